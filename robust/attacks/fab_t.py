"""FAB-T: the fast adaptive boundary attack towards one likely class after another."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.attacks.attack import input_gradient
from robust.attacks.boundary_steps import BoundarySteps
from robust.attacks.targets import likely_targets, margin_targeted
from robust.classifier import Classifier
from robust.randomness import Randomness


class FABT(BoundarySteps):
    """Targeted fast adaptive boundary attack: FAB against the boundary to each of the most likely wrong classes.

    Croce & Hein 2020, arXiv 1907.02044 and 2003.01690, section 6: one gradient an iteration instead of K, for the 9
    classes likeliest at the clean image (all of them where there are fewer). Any misclassification counts.

    Costs targets x restarts x steps x (2 forward, 1 backward) passes at most; with a radius, a sample that is found
    within it leaves, as in the official code, and its distance is then only an upper bound.
    """

    name: ClassVar[str] = "fab-t"
    family: ClassVar[str] = "smallest distance"
    source: ClassVar[str] = "Croce & Hein 2020, arXiv 1907.02044"

    targets: int = Field(default=9, ge=1, description="wrong classes to aim at, likeliest first")

    def minimise(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `SmallestDistance.minimise`; start r > 0 towards class t is drawn from rng.fork("target", t)."""
        if not len(labels):
            return images.clone()
        targets = likely_targets(classifier, images, labels, self.targets)
        runs = (
            (rng.fork("target", rank).fork("restart", restart), targets[:, rank], restart)
            for rank in range(targets.shape[1])
            for restart in range(self.restarts)
        )
        return self.nearest_of(classifier, images, labels, runs)

    def boundary(self, classifier: Classifier, x: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The linearised boundary to the target class."""
        gradient, gap, _ = input_gradient(classifier, x, lambda logits: margin_targeted(logits, labels, targets))
        return gap, gradient

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Two forward passes and one backward a step and target."""
        runs = min(self.targets, num_classes - 1) * self.restarts * self.steps
        return (1 + 2 * runs + self.final_search, runs)
