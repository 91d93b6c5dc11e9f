"""Multi-targeted: PGD towards each likely wrong class in turn."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.attacks.pgd import PGD
from robust.attacks.survivors import Survivors
from robust.attacks.targets import margin_targeted, passes_towards_each, towards_each
from robust.classifier import Classifier
from robust.randomness import Randomness


class MultiTargeted(PGD):
    """Multi-targeted attack: PGD on z_t - z_y for one likely wrong class t after another.

    Gowal et al. 2019, arXiv 1910.09338, eq. 5: the margin to a fixed class is smooth where the untargeted margin has
    kinks between classes, so its ascent stalls less. Every class gets its own random starts; a sample leaves at its
    first misclassification. Costs targets x restarts x (steps + 1 forward, steps backward) passes at most.
    """

    name: ClassVar[str] = "multi-targeted"
    family: ClassVar[str] = "fixed budget"
    source: ClassVar[str] = "Gowal et al. 2019, arXiv 1910.09338"

    targets: int = Field(default=9, ge=1, description="wrong classes to aim at, likeliest first")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb` and `towards_each`."""
        survivors = Survivors(classifier, images, labels, rng)
        return towards_each(classifier, survivors, self.targets, self.restarts, self._climb)

    def objective(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Margin of the target over the label, [n]; the field `loss` plays no part."""
        return margin_targeted(logits, labels, targets)

    def passes(self, num_classes: int) -> tuple[int, int]:
        """A run for each target, and one forward pass to choose them."""
        return passes_towards_each(self.targets, num_classes, super().passes(num_classes))
