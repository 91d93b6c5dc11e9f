"""Survivors: the working set of an attack, the rows of a batch that are still classified correctly.

Samples leave as soon as an image fools the classifier, so every later pass is spent on those that stand. `best` holds
the answer for the whole batch: the first fooling image of a fallen row, the highest-scoring one of a standing row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robust.classifier import Classifier
from robust.randomness import Randomness
from robust.threat import ThreatModel, steepest


class Survivors:
    """Rows not fooled yet, with everything that belongs to them; shrinks in `fell`.

    Attributes:
        classifier: narrowed to the standing rows, so that passes are counted for them alone.
        origin: their clean images [n,C,H,W].
        labels: their labels [n].
        rows: their positions [n] in the batch.
        best: an answer for every row of the batch [N,C,H,W], fallen or not.
    """

    def __init__(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> None:
        self.classifier, self.origin, self.labels = classifier, images, labels
        self.rows = torch.arange(len(labels), device=images.device)
        self.best = images.clone()
        self._score = images.new_full((len(labels),), -torch.inf)
        self._rng = rng
        self._whole = classifier

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rng(self) -> Randomness:
        """Randomness of the standing rows."""
        return self._rng if len(self) == len(self._rng.ids) else self._rng.select(self.rows.cpu())

    def fell(self, fallen: Tensor, images: Tensor, *state: Any) -> tuple[Any, ...]:
        """Keep the images of the fallen rows and let these rows go.

        Args:
            fallen: mask [n] over the standing rows.
            images: the images [n,C,H,W] that were just classified.
            state: whatever else the attack carries row by row: anything that can be indexed by positions.

        Returns:
            (images, *state) for the rows that still stand; the very same objects when nobody fell.
        """
        if not fallen.any():
            return (images, *state)
        self.best[self.rows[fallen]] = images[fallen]
        kept = (~fallen).nonzero().flatten()
        self.rows, self.origin, self.labels = self.rows[kept], self.origin[kept], self.labels[kept]
        self.classifier = self._whole.select(self.rows)
        return (images[kept], *(item[kept] for item in state))

    def offer(self, images: Tensor, values: Tensor) -> None:
        """Keep these images for the standing rows where `values` [n] exceeds what any earlier offer reached."""
        better = values > self._score[self.rows]
        rows = self.rows[better]
        self.best[rows], self._score[rows] = images[better], values[better]


class Ball:
    """The threat model around some images, with what every ascent step needs computed once.

    Args:
        threat: norm and radius.
        origin: [n,C,H,W] in [0,1].
        share: for l1, the share of coordinates that one step moves (Tramer & Boneh 2019, arXiv 1904.13000, use 1 %).
    """

    def __init__(self, threat: ThreatModel, origin: Tensor, share: float = 0.01) -> None:
        self.threat, self.origin, self.share = threat, origin, share
        if threat.norm == "linf":
            self.lower, self.upper = (origin - threat.radius).clamp_(min=0), (origin + threat.radius).clamp_(max=1)

    def __getitem__(self, rows: Tensor) -> Ball:
        part = object.__new__(Ball)
        part.threat, part.origin, part.share = self.threat, self.origin[rows], self.share
        if self.threat.norm == "linf":
            part.lower, part.upper = self.lower[rows], self.upper[rows]
        return part

    def step(self, images: Tensor, gradient: Tensor, size: float) -> Tensor:
        """One projected steepest-ascent step of length `size`; overwrites `images` where the norm allows it."""
        if self.threat.norm == "linf":  # in place: two passes over the pixels instead of eight
            return images.add_(gradient.sign(), alpha=size).clamp_(self.lower, self.upper)
        if self.threat.norm == "l2":
            return self.threat.project(images + size * steepest(gradient, "l2"), self.origin)
        return self.threat.project(images + size * sparse_ascent(gradient, images, self.share), self.origin)


def sparse_ascent(gradient: Tensor, images: Tensor, share: float) -> Tensor:
    """The l1 direction of SLIDE, [n,C,H,W] with |d|_1 = 1: signs of the largest coordinates that the box lets move.

    A coordinate that already lies on the side of the box it is pushed to is left out (Tramer & Boneh 2019).
    """
    stuck = ((images <= 0) & (gradient < 0)) | ((images >= 1) & (gradient > 0))
    flat = gradient.masked_fill(stuck, 0.0).flatten(1)
    count = max(1, int(share * flat.shape[1]))
    chosen = flat.abs().topk(count, dim=1).indices
    signs = torch.zeros_like(flat).scatter_(1, chosen, flat.gather(1, chosen).sign())
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1.0)).view_as(gradient)
