"""FGSM adversarial training: one full step of the sign of the gradient, and the images that it gives are fitted."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.losses import cross_entropy
from robust.method import Exact, exact
from robust.objectives.inner import Adversarial
from robust.objectives.objective import Batch, Loss, State


class FGSMAT(Adversarial):
    """Adversarial training with a single step: cross-entropy on x + eps sign(grad_x CE), and on x in part.

    L = mean_n (1 - clean) CE(f(x'_n), y_n) + clean CE(f(x_n), y_n), x' = clip(x + eps sign(grad_x CE(f(x), y)), 0, 1)
    (Goodfellow et al. 2015, arXiv 1412.6572, section 6, with clean = 1/2 there). The default is what the authors of
    arXiv 1910.05513 report beside their method: eps 0.3 on MNIST, attacked images alone. Costs 2 forward and backward
    passes an image. Can learn to mask: accuracy under FGSM high, under PGD nothing (arXiv 1705.07204).
    """

    name: ClassVar[str] = "fgsm-at"
    family: ClassVar[str] = "adversarial training"
    source: ClassVar[str] = "arXiv 1412.6572"

    eps: Exact = Field(default=exact("3/10"), gt=0, description="the ball's radius in [0,1] image units")
    steps: int = Field(default=1, ge=1, le=1, description="one: for more steps there is pgd-at")
    random_start: bool = Field(default=False, description="start at a random point of the ball, else at the image")
    clean: float = Field(default=0.0, ge=0, lt=1, description="share of the loss that clean images have")

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """The mixture; terms: accuracy on attacked images and the ramp's share of eps."""
        ramp = self.ramp(batch.progress)
        attacked = self.maximise(classifier, batch.images, cross_entropy, batch.labels, batch.rng, ramp)
        logits = classifier(attacked)
        total = F.cross_entropy(logits, batch.labels)
        if self.clean:
            total = (1 - self.clean) * total + self.clean * F.cross_entropy(classifier(batch.images), batch.labels)
        right = (logits.detach().argmax(1) == batch.labels).float().mean()
        return Loss(total, {"accuracy": right, "ramp": right.new_tensor(ramp)})
