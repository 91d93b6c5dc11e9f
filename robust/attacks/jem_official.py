"""The attack of the JEM paper: iterated gradient steps whose size is searched, restarted, the nearest success kept."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robust.attacks.attack import SmallestDistance
from robust.attacks.binary_search import BinarySearch
from robust.attacks.nearest import Nearest, wrong_at
from robust.attacks.pgd import PGD
from robust.classifier import Classifier
from robust.losses import LossName
from robust.method import Exact, exact
from robust.randomness import Randomness
from robust.threat import ThreatModel


class JEMOfficial(SmallestDistance):
    """Smallest distance by PGD of 40 steps with a binary search over its radius, restarted up to 20 times.

    The protocol of the official code of Grathwohl et al. 2020 (arXiv 1912.03263, section 5.4), there by Foolbox: linf
    PGD from a random start, or the l2 iterative method from the image itself, steps of a fixed share of the radius,
    `halvings` of the radius from `largest` down, the nearest of `restarts` runs. Only images that are classified
    correctly are attacked; where no run succeeds the image is not broken (distance inf), whereas the code then stored
    its neighbour's distance, and of the restarts it saved the last one's image instead of the nearest.

    A random defence is averaged by the defence itself (five copies). A success next to the decision boundary does not
    last from one call to the next, so against a classifier that declares itself random each must be wrong in
    `confirmations` further calls, and the steps go on after the first success; 1 is what the official code asked.

    Cost: at most restarts x (halvings + 1) x (steps + 1 + confirmations) forward passes.
    """

    name = "jem-official"
    family = "smallest distance"
    source = "arXiv 1912.03263"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    largest: Exact | None = Field(
        default=None, gt=0, description="largest radius, in [0,1] image units; 3/10 in linf and 5 in l2 when empty"
    )
    steps: int = Field(default=40, ge=1, description="gradient steps of each run")
    share: float = Field(default=1 / 30, gt=0, description="length of a step, as a share of the radius")
    halvings: int = Field(default=8, ge=1, le=20, description="the answer is exact to largest / 2^halvings")
    restarts: int = Field(default=20, ge=1, description="independent searches, the nearest success of which counts")
    confirmations: int = Field(default=5, ge=1, description="calls of a random classifier that must all be wrong")
    loss: LossName = Field(default="ce", description="ce as in the official code; margin where logits saturate")

    @model_validator(mode="after")
    def _largest_fits_the_box(self) -> JEMOfficial:
        _ = self.search(random=False)
        return self

    def search(self, random: bool) -> BinarySearch:
        """One restart's search, for a classifier that is or is not random."""
        norm = self.threat.norm
        radius = self.largest or exact({"linf": "3/10", "l2": "5"}[norm])
        insist = random and self.confirmations > 1
        inner = _Proportional(
            threat=ThreatModel(norm=norm, eps=radius),
            steps=self.steps,
            step_size=radius * Fraction(self.share).limit_denominator(10_000),
            random_start=norm == "linf",
            loss=self.loss,
            early_stop=not insist,
        )
        search = _Confirmed if insist else BinarySearch
        found = search(attack=inner, halvings=self.halvings)
        return found.model_copy(update={"calls": self.confirmations}) if insist else found

    def passes(self, num_classes: int) -> tuple[int, int]:
        """The search's, once for each restart; for a random classifier, which costs more."""
        forward, backward = self.search(random=True).passes(num_classes)
        return self.restarts * forward, self.restarts * backward

    def minimise(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """The nearest success over all restarts, [N,C,H,W]; the original where there is none."""
        search = self.search(classifier.random)
        nearest = Nearest(images, self.threat.norm)
        for restart in range(self.restarts):
            found = search.minimise(classifier, images, labels, rng.fork("search", restart))
            nearest.offer(found, (found != images).flatten(1).any(1))
        return nearest.images


class _Proportional(PGD):
    """PGD whose steps keep their share of the radius."""

    def at(self, eps: Fraction) -> Self:
        scaled = (self.step_size or Fraction(0)) * eps / (self.threat.eps or Fraction(1))
        return super().at(eps).model_copy(update={"step_size": scaled})


class _Confirmed(BinarySearch):
    """A search that believes a success only after several calls of a random classifier."""

    calls: int = 5

    def passes(self, num_classes: int) -> tuple[int, int]:
        forward, backward = super().passes(num_classes)
        return forward + (self.halvings + 1) * (self.calls - 1), backward

    def wrong(self, classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([wrong_at(classifier, images, labels) for _ in range(self.calls)]).all(0)
