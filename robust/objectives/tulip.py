"""Tulip: J2 plus a price on the steepest point of the loss in the batch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.objectives.j2 import J2
from robust.objectives.objective import Batch, Loss, State
from robust.sensitivity import loss_gradient_norms


class Tulip(J2):
    """One normalised-gradient step and Lipschitz regularisation: J2 plus lambda times the largest loss gradient.

    J = J2 + lambda max_{(x,y) in batch} |grad_x l(f(x), y)|_2 (Finlay, Oberman & Abbasi 2018, arXiv 1810.00953,
    "J^{2-Lip}"), differentiated exactly by double backpropagation in train mode. The maximum is over a minibatch, so
    it grows with the batch size, which stands in every row of the history.

    `scaling: paper` (default) takes each sample's own gradient. The authors' code differentiates the MEAN loss, which
    divides every norm by the batch size B: `scaling: code` does the same, so that its penalty 0.1 is 0.1 / B here.
    `at: moved` (default, the code) takes the gradient at the moved images, `at: images` at the data, as the formula
    reads. The authors' best run is penalty 0.1 with scaling code, eps 0.01, tanh logits, weight_decay 1e-3 in torch's
    terms (5e-4 sum w^2), SGD 0.1, momentum 0.9, batch 128, 200 epochs, "not tuned".

    Cost: about four passes forward and back an image; with `at: images` five.
    """

    name: ClassVar[str] = "tulip"
    family: ClassVar[str] = "gradient regularisation"
    source: ClassVar[str] = "arXiv 1810.00953"

    penalty: float = Field(default=0.1, ge=0, description="lambda, price of the batch's largest loss gradient norm")
    scaling: Literal["paper", "code"] = Field(
        default="paper", description="gradient of each sample's loss (paper), or of the batch mean (code: 1/B of it)"
    )
    at: Literal["moved", "images"] = Field(default="moved", description="where the gradient is taken")

    @property
    def whole_batch(self) -> str:
        """Why ranks cannot share its batches."""
        return "the penalty is on the largest gradient in all of it"

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """J2 plus the penalty; terms: accuracy, largest and mean loss gradient (per sample), batch size."""
        moved = self.moved(classifier, batch.images, batch.labels)
        points = moved if self.at == "moved" else batch.images
        norms, losses, logits = loss_gradient_norms(classifier, points, batch.labels, create_graph=self.penalty > 0)
        fit = losses.mean() if self.at == "moved" else F.cross_entropy(classifier(moved), batch.labels)
        largest = norms.max() / (len(norms) if self.scaling == "code" else 1)
        right = (logits.detach().argmax(1) == batch.labels).float().mean()
        terms = {
            "accuracy": right,
            "largest_loss_gradient": norms.detach().max(),
            "mean_loss_gradient": norms.detach().mean(),
            "batch_size": right.new_tensor(float(len(norms))),
        }
        return Loss(fit + self.penalty * largest, terms)
