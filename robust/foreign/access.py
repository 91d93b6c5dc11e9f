"""What can be had from a network: gradients, scores or labels; and whether it answers the same twice."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from robust.foreign.bench import Bench, assembled
from robust.foreign.preparation import Preparation


def access_of(bench: Bench, preparation: Preparation) -> Literal["gradient", "scores", "labels"]:
    """Whether a gradient reaches the images; else whether scores or labels come back."""
    if preparation.answer == "labels":
        return "labels"
    images, _ = bench.images(preparation.shape, "search")
    classifier = assembled(bench.module, preparation)
    leaf = images[:2].to(classifier.device, classifier.dtype).requires_grad_(True)
    with torch.enable_grad():
        logits = classifier(leaf)
        if not logits.requires_grad:
            return "scores"
        (gradient,) = torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    return "scores" if gradient is None else "gradient"


def instability(bench: Bench, preparation: Preparation) -> str:
    """How the answers to the same images differ, in words; empty where they do not, or the module says they may."""
    if getattr(bench.module, "random", False):
        return ""
    count = min(16, len(bench.data))
    first, again = bench.raw(preparation, count), bench.raw(preparation, count)
    alone = bench.raw(preparation, 2)
    if not (isinstance(first, Tensor) and isinstance(again, Tensor) and isinstance(alone, Tensor)):
        return ""
    if not _same(first, again):
        return "it answers the same images differently each time, as dropout in train mode does"
    if count > 2 and not _same(first[:2], alone):
        return "its answer to an image depends on the others of the batch, as batch statistics in train mode do"
    return ""


def _same(first: Tensor, second: Tensor) -> bool:
    scale = float(first.double().abs().max()) or 1.0
    return bool(((first.double() - second.double()).abs() <= 1e-3 * scale).all())
