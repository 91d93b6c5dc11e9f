"""Spatial: the worst rotation and translation of an image out of a grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import FixedBudget, fooled
from robust.attacks.survivors import Survivors
from robust.classifier import Classifier
from robust.losses import margin
from robust.randomness import Randomness
from robust.threat import ThreatModel


class Spatial(FixedBudget):
    """Spatial attack: every rotation and shift of a grid is tried, mildest first, until one fools the classifier.

    Engstrom et al. 2019, arXiv 1712.02779, section 3: x' is x turned by at most `rotation` degrees and shifted by at
    most `translation` of its side, sampled bilinearly, with black where nothing was. The landscape is too rugged for
    gradients; the grid is the strongest of their attacks and draws nothing. The change is not small in any l_p norm:
    the threat model is the whole box (linf 1). Costs at most angles x shifts^2 forward passes.
    """

    name: ClassVar[str] = "spatial"
    family: ClassVar[str] = "transformation"
    source: ClassVar[str] = "Engstrom et al. 2019, arXiv 1712.02779"
    norms: ClassVar[tuple[str, ...]] = ("linf",)

    threat: ThreatModel = Field(default=ThreatModel(eps=Fraction(1)), description="the whole box")
    rotation: float = Field(default=30.0, ge=0, le=180, description="largest angle in degrees, either way")
    translation: float = Field(default=0.1, ge=0, le=1, description="largest shift as a share of the side, either way")
    angles: int = Field(default=31, ge=1, description="angles on the grid")
    shifts: int = Field(default=5, ge=1, description="shifts on the grid in each direction")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; images that stand get the transformation of the largest margin."""
        survivors = Survivors(classifier, images, labels, rng)
        for angle, across, down in self.grid():
            if not len(survivors):
                break
            x = transform(survivors.origin, angle, across, down)
            with torch.no_grad():
                logits = survivors.classifier(x)
            survivors.offer(x, margin(logits, survivors.labels))
            survivors.fell(fooled(logits, survivors.labels), x)
        return survivors.best

    def grid(self) -> Iterator[tuple[float, float, float]]:
        """(degrees, shift across, shift down), shifts as shares of the side; small transformations first."""
        turns, moves = _spread(self.rotation, self.angles), _spread(self.translation, self.shifts)
        places = list(product(turns, moves, moves))
        yield from sorted(
            places, key=lambda p: abs(p[0]) / (self.rotation or 1) + (abs(p[1]) + abs(p[2])) / (self.translation or 1)
        )

    def passes(self, num_classes: int) -> tuple[int, int]:
        """One forward pass a grid point."""
        return (self.angles * self.shifts**2, 0)


def transform(images: Tensor, degrees: float, across: float, down: float) -> Tensor:
    """Images turned about their centre and shifted by shares of their sides, bilinear, black outside, [N,C,H,W]."""
    height, width = images.shape[2:]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # affine_grid works in [-1,1] coordinates, where pixels of an oblong image are not square
    theta = [[cosine, -sine * height / width, -2 * across], [sine * width / height, cosine, -2 * down]]
    matrix = images.new_tensor(theta).expand(len(images), 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False).clamp_(0, 1)


def _spread(largest: float, count: int) -> list[float]:
    return [0.0] if count == 1 else [largest * (2 * k / (count - 1) - 1) for k in range(count)]
