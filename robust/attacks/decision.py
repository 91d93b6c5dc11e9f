"""What the decision-based attacks share: a first misclassified image found without gradients or scores."""

from __future__ import annotations

import torch
from torch import Tensor

from robust.attacks.nearest import bisect, wrong_at
from robust.classifier import Classifier
from robust.randomness import Randomness


def misclassified_start(
    classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness, tries: int
) -> tuple[Tensor, Tensor]:
    """Some misclassified image for each sample: the negative, then noise of varying brightness and contrast.

    Uniform noise alone, the usual start, falls into one class on many networks and then finds nothing for that class.

    Returns:
        images [N,C,H,W] (the original where nothing was found) and whether something was found, [N].
    """
    start, found = images.clone(), torch.zeros_like(labels, dtype=torch.bool)
    for attempt in range(tries):
        rows = (~found).nonzero().flatten()
        if not len(rows):
            break
        draws = rng.select(rows.cpu()).fork("start", attempt)
        candidate = 1 - images[rows] if attempt == 0 else _noise(draws, images[rows])
        wrong = wrong_at(classifier.select(rows), candidate, labels[rows])
        start[rows[wrong]], found[rows[wrong]] = candidate[wrong], True
    return start, found


def boundary_start(
    classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness, norm: str, tries: int, halvings: int
) -> tuple[Tensor, Tensor]:
    """As `misclassified_start`, then bisected toward the original until it lies just beyond the boundary."""
    start, found = misclassified_start(classifier, images, labels, rng, tries)
    rows = found.nonzero().flatten()
    start[rows] = bisect(classifier.select(rows), images[rows], start[rows], labels[rows], norm, halvings)
    return start, found


def _noise(rng: Randomness, like: Tensor) -> Tensor:
    low, high = rng.fork("level").uniform((2, like.shape[1], 1, 1), like=like).unbind(1)
    return low + (high - low) * rng.fork("noise").uniform(like.shape[1:], like=like)
