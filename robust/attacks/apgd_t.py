"""APGD-T: Auto-PGD towards each of the most likely wrong classes in turn."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.attacks.auto_pgd import AutoPGD
from robust.attacks.survivors import Survivors
from robust.attacks.targets import dlr_or_margin_targeted, passes_towards_each, towards_each
from robust.classifier import Classifier
from robust.randomness import Randomness


class APGDT(AutoPGD):
    """Targeted Auto-PGD on the targeted DLR loss, over the most likely wrong classes.

    Croce & Hein 2020, arXiv 2003.01690, eq. 8:  -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2), t running through the 9
    classes likeliest at the clean image (all of them where there are fewer). Any misclassification ends the search.
    With 2 or 3 classes this loss is undefined and the targeted margin z_t - z_y takes its place.
    """

    name: ClassVar[str] = "apgd-t"
    family: ClassVar[str] = "fixed budget"
    source: ClassVar[str] = "Croce & Hein 2020, arXiv 2003.01690"

    targets: int = Field(default=9, ge=1, description="wrong classes to aim at, likeliest first")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb` and `towards_each`."""
        survivors = Survivors(classifier, images, labels, rng)
        return towards_each(classifier, survivors, self.targets, self.restarts, self.climb)

    def objective(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Targeted DLR, or the targeted margin below 4 classes, [n]."""
        return dlr_or_margin_targeted(logits, labels, targets)

    def passes(self, num_classes: int) -> tuple[int, int]:
        """A run for each target, and one forward pass to choose them."""
        return passes_towards_each(self.targets, num_classes, super().passes(num_classes))
