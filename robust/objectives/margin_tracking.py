"""Plain gradient descent whose history is the margin: what the two arms of the margin experiments share.

One pass over the whole training set after each epoch gives the loss in log space, the margins and the norms. Both arms
write the same columns, so that they can be compared epoch by epoch.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, field_validator
from torch import Tensor

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.diagnostics.homogeneity import degree
from robust.log_losses import LossFunction, log_losses, mean_log
from robust.margins import Margins, margins_of
from robust.objectives.objective import Batch, Objective, State, Training


class PlainSGD(Training):
    """Stochastic gradient descent as the theory has it: one constant rate, no momentum, no weight decay."""

    epochs: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=100, ge=1)
    optimizer: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.01, gt=0, description="learning rate; loss-based-lr: a(0), its first factor")
    momentum: float = Field(default=0.0, ge=0, le=0, description="none")
    weight_decay: float = Field(default=0.0, ge=0, le=0, description="none: it would bound the weights' norm")
    schedule: Literal["constant"] = "constant"
    warmup: float = Field(default=0.0, ge=0, le=0, description="none")
    clip_norm: None = None
    precision: Literal["32"] = "32"
    select_every: int = Field(default=100_000, ge=1, description="epochs between two looks at the select split")


class MarginTracking(Objective):
    """Base of both arms: mean loss of a batch, and after each epoch the margins of the whole training set.

    Columns of the history, for the weights as the epoch leaves them: `tries` (epochs gone through) and `accepted`
    (those kept), `rolled_back` (1 where this one was not), `log10_rate` (of the learning rate on the loss itself), and
    those of `robust.margins.Margins.row`: log10_loss, smallest_margin, margin_product, parameter_norm,
    train_accuracy, and for a homogeneous network margin_norm, smoothed_margin, log_smoothed_margin (while positive).
    """

    training: PlainSGD = PlainSGD()
    loss_function: LossFunction = Field(
        default="cross-entropy",
        description="cross-entropy, exponential or logistic (one term for each pair of classes)",
    )
    full_precision: Literal["32", "64"] = Field(
        default="32", description="float type of the pass over the training set; logits and loss are 64 either way"
    )

    @field_validator("training", mode="before")
    @classmethod
    def _from_general_settings(cls, value: Any) -> Any:
        """Settings given as the general class: those that were set are kept."""
        general = isinstance(value, Training) and not isinstance(value, PlainSGD)
        return value.model_dump(exclude_unset=True) if general else value

    def start(self, classifier: Classifier, images: Tensor, seed: int) -> State:
        """Nothing done yet; the degree of homogeneity, 0 for none, is found on the first batch."""
        return {"tries": 0, "accepted": 0, "degree": degree(classifier, images[:8]) or 0}

    def log_mean_loss(self, classifier: Classifier, batch: Batch) -> Tensor:
        """Logarithm of the batch's mean loss, float64: the loss itself is never formed."""
        return mean_log(log_losses(classifier(batch.images), batch.labels, self.loss_function))

    def look(self, classifier: Classifier, state: State, train_set: Dataset) -> Margins:
        """The whole training set through the network as it is."""
        if self.full_precision == "32":
            return margins_of(classifier, train_set, state["degree"] or None, self.loss_function)
        classifier.double()
        found = margins_of(classifier, train_set, state["degree"] or None, self.loss_function)
        classifier.float()  # a float32 survives the way to float64 and back
        return found

    @staticmethod
    def row(state: State, log_rate: float, rolled_back: bool, numbers: dict[str, float]) -> dict[str, float]:
        """The history's row: counts and rate, then the margins."""
        return {
            "tries": float(state["tries"]),
            "accepted": float(state["accepted"]),
            "rolled_back": float(rolled_back),
            "log10_rate": log_rate / math.log(10),
            **numbers,
        }
