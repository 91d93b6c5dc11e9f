"""TRADES: clean cross-entropy plus a price on how far predictions can be moved inside the ball."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.objectives.inner import Adversarial
from robust.objectives.objective import Batch, Loss, State
from robust.randomness import Randomness


class TRADES(Adversarial):
    """Trades accuracy for robustness: cross-entropy on clean images plus beta times a divergence inside the ball.

    L = mean_n CE(f(x_n), y_n) + beta KL(p(x_n) || p(x'_n)), p = softmax(f), x'_n = argmax over the ball of the same
    KL (Zhang et al. 2019, arXiv 1901.08573, eq. 5 and algorithm 1; beta = 1 / lambda). The inner attack starts at
    x + 0.001 z, z ~ N(0, I), because the KL has no gradient at x itself. Costs `steps` + 3 forward passes and
    `steps` + 2 backward passes an image.
    """

    name: ClassVar[str] = "trades"
    family: ClassVar[str] = "adversarial training"
    source: ClassVar[str] = "arXiv 1901.08573"

    beta: float = Field(default=6.0, ge=0, description="weight of the divergence: robustness against clean accuracy")

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Cross-entropy plus beta KL; terms: natural loss, divergence, clean accuracy, the ramp's share of eps."""
        ramp = self.ramp(batch.progress)
        with classifier.frozen(), torch.no_grad():
            believed = F.log_softmax(classifier(batch.images), dim=1)
        attacked = self.maximise(classifier, batch.images, divergence, believed, batch.rng, ramp)
        logits = classifier(batch.images)
        natural = F.cross_entropy(logits, batch.labels)
        apart = divergence(classifier(attacked), F.log_softmax(logits, dim=1)).mean()
        right = (logits.detach().argmax(1) == batch.labels).float().mean()
        terms = {"natural": natural.detach(), "divergence": apart.detach(), "accuracy": right}
        return Loss(natural + self.beta * apart, {**terms, "ramp": right.new_tensor(ramp)})

    def starting_point(self, images: Tensor, rng: Randomness, ramp: float) -> Tensor:
        """The image plus a little noise, whatever `random_start` says: the divergence is flat at the image."""
        noise = rng.fork("start").normal(images.shape[1:], like=images)
        return self.threat.project(images + 0.001 * noise, images, ramp * float(self.eps))

    def selection(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Right on the image and on the worst image that the inner attack on the divergence finds, [N] bool."""
        with torch.no_grad():
            clean = classifier(images)
        attacked = self.maximise(classifier, images, divergence, F.log_softmax(clean, dim=1), rng, ramp=1.0)
        with torch.no_grad():
            right: Tensor = (classifier(attacked).argmax(1) == labels) & (clean.argmax(1) == labels)
        return right


def divergence(logits: Tensor, believed: Tensor) -> Tensor:
    """KL(p || q) of each row, [N], with log p = `believed` [N,K] and q = softmax(logits)."""
    return F.kl_div(F.log_softmax(logits, dim=1), believed, reduction="none", log_target=True).sum(1)
