"""The words for what a probe found: each of the usual mistakes with its evidence and its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from robust.foreign.normalisations import PLAIN, Normalisation

MISTAKES = (
    "normalised twice", "unnormalised", "BGR", "0-255", "softmax applied", "log-softmax applied", "train mode",
    "class order", "missing class", "image size", "HWC", "grey for colour",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One mistake, recognised.

    Attributes:
        mistake: one of `MISTAKES`.
        evidence: what was seen.
        remedy: what to do; what this run did.
        without, accuracy: clean accuracy as it was given and with the correction, on the same `n` samples that did not
            take part in the choice; None where the network could not be asked without it.
    """

    mistake: str
    evidence: str
    remedy: str
    without: float | None = None
    accuracy: float | None = None
    n: int = 0

    @property
    def told(self) -> str:
        """Evidence, numbers and remedy: what to say behind the mistake's name."""
        numbers = ""
        if self.without is not None and self.accuracy is not None:
            numbers = f" ({100 * self.without:.1f} % of {self.n} right without, {100 * self.accuracy:.1f} % with)"
        return f"{self.evidence}{numbers}; {self.remedy}"

    def __str__(self) -> str:
        return f"{self.mistake}: {self.told}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def guessing(right: Tensor, labels: Tensor) -> str:
    """Why a model is not evaluated that tells no class from another; right [n] and labels [n] of the same samples."""
    n, chance = len(labels), float(torch.bincount(labels).max()) / len(labels)
    return (
        "the model is no better than guessing: untrained, or wrong weights or preprocessing. It gets "
        f"{100 * float(right.float().mean()):.1f} % of {n} samples right, always naming the most frequent class "
        f"{100 * chance:.1f} %, whatever is assumed about size, range, normalisation, layout and channels; "
        "--no-probe evaluates it as it is"
    )


def scaling(given: Normalisation, found: Normalisation, alike: Sequence[str] = ()) -> tuple[str, str, str]:
    """Mistake, evidence and remedy for a normalisation that is not the given one; `alike` do about as well."""
    if found.name.endswith("undone") or (given.std and found == PLAIN):
        inside = found.name.removesuffix(" undone") if found != PLAIN else given.name
        return (
            "normalised twice",
            f"the network normalises its images itself ({inside} normalisation is done twice)",
            "take one of the two out" + ("; leave out --mean and --std" if given.std else ""),
        )
    flags = f"--mean {_flag(found.mean)} --std {_flag(found.std)}"
    if found.std and max(found.std) < 0.02:
        return "0-255", f"the network expects pixels from 0 to 255 ({found.name})", f"evaluated so; the same is {flags}"
    others = f"; {' or '.join(alike[:3])} would do about as well" if alike else ""
    evidence = f"the network expects a normalisation, best {found.name}{others}"
    return "unnormalised", evidence, f"evaluated so; the same is {flags}"


def answering(kind: str) -> Finding | None:
    """The finding for what a network returns, if it is not logits."""
    if kind in ("softmax", "softmax twice"):
        twice = ", applied twice" if kind == "softmax twice" else ""
        return Finding(
            "softmax applied",
            f"every row of its output is a distribution{twice}: gradients of a loss on top vanish",
            "evaluated on the logits before it, or their logarithm; return logits",
        )
    if kind in ("log-softmax", "log-softmax of softmax"):
        on = "of probabilities, which squeezes them into one unit" if kind != "log-softmax" else "already"
        return Finding(
            "log-softmax applied",
            f"its output is a log-softmax {on}; a loss that takes it again would take it twice",
            "evaluated on the logits before it; return logits",
        )
    return None


def placing(name: str, columns: Sequence[int], classes: Sequence[str], outputs: int) -> tuple[str, str, str]:
    """Mistake, evidence and remedy for outputs that stand in other places than the data's classes."""
    if name == "off by one":
        step = columns[0] if columns[0] <= 1 else columns[0] - outputs
        more = f": it has {outputs} outputs for {len(columns)} classes" if outputs != len(columns) else ""
        evidence = f"class k of the data is output k{step:+d} of the network, off by one{more}"
        return "missing class", evidence, "evaluated so; return the outputs in the data's order, without a background"
    if outputs > len(columns):
        evidence = f"{len(columns)} of its {outputs} outputs stand for the data's classes: {_listed(columns, classes)}"
        return "class order", evidence, "evaluated on these outputs alone"
    moved = [(k, c) for k, c in enumerate(columns) if k != c]
    evidence = f"its outputs are in another order than the data's classes: {_listed(columns, classes)}"
    order = ",".join(classes[columns.index(j)] for j in range(outputs))
    return "class order", evidence, f"evaluated so ({len(moved)} moved); the same is --classes {order}"


def _listed(columns: Sequence[int], classes: Sequence[str]) -> str:
    pairs = [f"{classes[k]} is output {c}" for k, c in enumerate(columns) if k != c]
    return ", ".join(pairs[:6]) + (" ..." if len(pairs) > 6 else "")


def _flag(values: Sequence[float]) -> str:
    return ",".join(f"{value:.6g}" for value in values)
