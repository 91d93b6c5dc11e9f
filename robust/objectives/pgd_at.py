"""PGD adversarial training: every batch is attacked by projected gradient steps, and the attacked images are fitted."""

from __future__ import annotations

from typing import ClassVar

from torch.nn import functional as F

from robust.classifier import Classifier
from robust.losses import cross_entropy
from robust.objectives.inner import Adversarial
from robust.objectives.objective import Batch, Loss, State


class PGDAT(Adversarial):
    """Adversarial training: min over weights of the mean of max over the ball of cross-entropy.

    L = mean_n CE(f(x'_n), y_n), x'_n = argmax_{|x' - x_n| <= eps} CE(f(x'), y_n) found by PGD
    (Madry et al. 2018, arXiv 1706.06083, eq. 2.1). Costs `steps` + 1 forward and backward passes an image.
    """

    name: ClassVar[str] = "pgd-at"
    family: ClassVar[str] = "adversarial training"
    source: ClassVar[str] = "arXiv 1706.06083"

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Mean cross-entropy on attacked images; terms: accuracy on them and the ramp's share of eps."""
        ramp = self.ramp(batch.progress)
        attacked = self.maximise(classifier, batch.images, cross_entropy, batch.labels, batch.rng, ramp)
        logits = classifier(attacked)
        right = (logits.detach().argmax(1) == batch.labels).float().mean()
        return Loss(F.cross_entropy(logits, batch.labels), {"accuracy": right, "ramp": right.new_tensor(ramp)})
