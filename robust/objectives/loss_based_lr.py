"""Loss-based learning rate: steps that grow as the loss falls, taken back whenever the loss rises.

Near the end of a training the gradient is about as small as the loss, so a rate of a / L keeps the steps in the
weights alive: the loss then falls geometrically, far below the smallest float, and the margin goes on growing.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.objectives.margin_tracking import MarginTracking, PlainSGD
from robust.objectives.objective import Batch, Loss, State


class LossBasedLR(MarginTracking):
    """Plain SGD at the rate a(t) / L(t-1), with the epoch undone when the training loss rises.

    Lyu & Li 2020, "Gradient Descent Maximizes the Margin of Homogeneous Neural Networks", arXiv 1906.05890, appendix on
    the loss-based learning rate, and its official code. L(t-1) is the mean training loss after the last accepted epoch.
    After an epoch the whole training set is passed: where its loss did not rise, a is multiplied by `growth`; where it
    rose or is not finite, or a batch's loss went above `largest` L(t-1) on the way, the weights go back to the start of
    the epoch and a is divided by `shrink`. An epoch of the training loop is one try; the history counts tries and
    accepted epochs. With growth = shrink^2 about one try in three is accepted: plan three times the epochs.

    The step is (a / L) grad L_batch = a grad exp(log L_batch - log L), so neither the loss (10^-800 and below) nor the
    rate is ever formed. Weights and layers are float32; logits and losses float64. During the first try L is the loss
    of the first batch. a starts as `training.lr`; below `smallest` the training stands still for the epochs left.
    One forward and one backward pass an image, and a forward pass more at the end of each try.
    """

    name: ClassVar[str] = "loss-based-lr"
    family: ClassVar[str] = "margin maximisation"
    source: ClassVar[str] = "arXiv 1906.05890"

    training: PlainSGD = PlainSGD(lr=0.1)
    growth: float = Field(default=2 ** (1 / 5), gt=1, description="factor on a after an accepted epoch")
    shrink: float = Field(default=2 ** (1 / 10), gt=1, description="divisor of a after a rejected one")
    largest: float = Field(default=600.0, gt=1, description="batch loss, in units of L(t-1), that ends a try")
    smallest: float = Field(default=1e-50, ge=0, description="a below which nothing is tried any more")

    @property
    def whole_batch(self) -> str:
        """Why ranks cannot share its batches."""
        return "the learning rate follows the loss of all of it"

    def start(self, classifier: Classifier, images: Tensor, seed: int) -> State:
        """a(0) = `training.lr`; the weights as they are."""
        own = {"log_growth": 0.0, "log_loss": math.nan, "failed": False, "saved": _copies(classifier), "numbers": {}}
        return super().start(classifier, images, seed) | own

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """a / a(0) times the batch's loss over L(t-1), so that the optimiser's rate is a; 0 in a failed try."""
        if state["failed"] or self._stands_still(state):
            return nothing(batch)
        logarithm = self.log_mean_loss(classifier, batch)
        if math.isnan(state["log_loss"]):
            state["log_loss"] = float(logarithm.detach())
        relative = (logarithm - state["log_loss"]).exp()
        if not float(relative.detach()) <= self.largest:  # NaN too
            self._fail(classifier, state)
            return nothing(batch)
        return Loss(relative * math.exp(state["log_growth"]))

    def before_step(self, classifier: Classifier, state: State) -> None:
        """A gradient that is not finite ends the try as a loss does."""
        gradients = [parameter.grad for parameter in classifier.parameters() if parameter.grad is not None]
        if gradients and not bool(nn.utils.get_total_norm(gradients).isfinite()):
            self._fail(classifier, state)
            torch._foreach_zero_(gradients)

    def after_epoch(self, classifier: Classifier, state: State, train_set: Dataset) -> dict[str, float]:
        """Accept the epoch, or take it back; see `MarginTracking` for the columns."""
        rate = math.log(self.training.lr) + state["log_growth"] - state["log_loss"]
        state["tries"] += 1
        still = self._stands_still(state)
        margins = None if state["failed"] or still else self.look(classifier, state, train_set)
        accepted = margins is not None and margins.log_loss <= state["log_loss"]
        if margins is not None and accepted:
            state["accepted"] += 1
            state["log_growth"] += math.log(self.growth)
            state["saved"], state["log_loss"], state["numbers"] = _copies(classifier), margins.log_loss, margins.row()
        else:
            _put_back(classifier, state["saved"])
            state["log_growth"] -= 0.0 if still else math.log(self.shrink)
            if not state["numbers"]:  # the first try: from here on L is the whole set's, not the first batch's
                before = self.look(classifier, state, train_set)
                state["log_loss"], state["numbers"] = before.log_loss, before.row()
        state["failed"] = False
        return self.row(state, rate, not accepted, state["numbers"])

    def _fail(self, classifier: Classifier, state: State) -> None:
        """End the try: the weights go back at once, so that a checkpoint in the middle of it holds good ones."""
        state["failed"] = True
        _put_back(classifier, state["saved"])

    def _stands_still(self, state: State) -> bool:
        return self.training.lr * math.exp(state["log_growth"]) < self.smallest


def nothing(batch: Batch) -> Loss:
    """A loss of zero that moves no weight."""
    return Loss(torch.zeros((), dtype=torch.float64, device=batch.images.device, requires_grad=True))


def _copies(classifier: Classifier) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in classifier.module.state_dict().items()}


def _put_back(classifier: Classifier, saved: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in classifier.module.state_dict().items():
            value.copy_(saved[name])
