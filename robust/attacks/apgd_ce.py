"""APGD-CE: Auto-PGD on the cross-entropy, the first member of AutoAttack."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.attacks.auto_pgd import AutoPGD
from robust.attacks.survivors import Survivors
from robust.classifier import Classifier
from robust.losses import cross_entropy
from robust.randomness import Randomness


class APGDCE(AutoPGD):
    """Auto-PGD on the cross-entropy: projected ascent with momentum that halves its own steps.

    Croce & Hein 2020, arXiv 2003.01690, algorithm 1; in l1 the sparse steps and decreasing radii of arXiv 2103.01208.
    Its loss depends on the scale of the logits and saturates: run it beside `apgd-dlr` or `apgd-t`.
    """

    name: ClassVar[str] = "apgd-ce"
    family: ClassVar[str] = "fixed budget"
    source: ClassVar[str] = "Croce & Hein 2020, arXiv 2003.01690"

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; start r is drawn from rng.fork("restart", r)."""
        survivors = Survivors(classifier, images, labels, rng)
        for restart in range(self.restarts):
            if len(survivors):
                self.climb(survivors, survivors.rng.fork("restart", restart), survivors.labels)
        return survivors.best

    def objective(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, [n]."""
        return cross_entropy(logits, labels)
