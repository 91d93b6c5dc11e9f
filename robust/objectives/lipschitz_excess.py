"""Lipschitz-regularised training: cross-entropy plus a price on the Lipschitz constant beyond an allowance."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.objectives.objective import Batch, Loss, Objective, State
from robust.sensitivity import jacobian_norms, loss_gradient_norms


class LipschitzExcess(Objective):
    """Cross-entropy plus lambda max(Lip - L0, 0): the Lipschitz constant is free up to L0 and priced beyond it.

    J = E[l(f(x), y)] + lambda max(Lip(f) - L0, 0) (Oberman & Calder 2018, arXiv 1808.09540, eq. 1.2), Lip estimated
    from below on the batch: `estimate: loss` by max_n |grad_x l(f(x_n), y_n)|_2, the talk's form; `estimate: logits`
    by max_n max_k |grad_x f_k(x_n)|_2, the l2 -> linf constant of the network. Both by exact double backpropagation.
    With labels in error (`training.label_noise`), the theory says that a large lambda should keep the network from
    fitting them: those labels are what needs a large constant.

    Cost: `loss` about three passes forward and back an image, `logits` two for each class.
    """

    name: ClassVar[str] = "lipschitz-excess"
    family: ClassVar[str] = "gradient regularisation"
    source: ClassVar[str] = "arXiv 1808.09540"

    penalty: float = Field(default=0.1, ge=0, description="lambda, price of the constant beyond the allowance")
    allowance: float = Field(default=0.0, ge=0, description="L0, per unit of l2 distance between [0,1] images")
    estimate: Literal["loss", "logits"] = Field(
        default="loss", description="whose constant is priced: the loss or the logits"
    )

    @property
    def whole_batch(self) -> str:
        """Why ranks cannot share its batches."""
        return "the constant is the largest in all of it"

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Cross-entropy plus the penalty; terms: accuracy, the batch's constant, cross-entropy, batch size."""
        graph = self.penalty > 0
        if self.estimate == "loss":
            norms, _, logits = loss_gradient_norms(classifier, batch.images, batch.labels, create_graph=graph)
        else:
            norms, logits = jacobian_norms(classifier, batch.images, create_graph=graph)
        fit, constant = F.cross_entropy(logits, batch.labels), norms.max()
        right = (logits.detach().argmax(1) == batch.labels).float().mean()
        terms = {
            "accuracy": right,
            "cross_entropy": fit.detach(),
            "lipschitz": constant.detach(),
            "batch_size": right.new_tensor(float(len(norms))),
        }
        return Loss(fit + self.penalty * F.relu(constant - self.allowance), terms)
