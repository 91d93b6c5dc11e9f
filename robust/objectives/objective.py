"""The objective contract: what a training run minimises, and how it is trained.

`robust.training` runs the loop; an objective gives the loss of a batch and carries whatever it needs (a replay
buffer, averages, class weights) in a plain dictionary that goes into every checkpoint.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.method import Method
from robust.randomness import Randomness

Augment = Literal["none", "crop", "crop-flip"]
State = dict[str, Any]  # tensors, numbers and strings only: it must survive torch.save with weights_only loading


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        images: [N,C,H,W] in [0,1].
        labels: [N] int64.
        ids: sample ids [N] int64.
        rng: randomness of these samples in this epoch.
        progress: share of all steps already taken, 0 <= progress < 1: what ramps and warm-ups follow.
        step: number of optimiser steps taken before this one.
        epoch: number of epochs finished before this one.
        independent: another batch of training images [N,C,H,W], drawn with replacement and augmented by draws of the
            purpose that it is given: for objectives that need images which the labelled batch does not hold.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    rng: Randomness
    progress: float
    step: int
    epoch: int
    independent: Callable[[str], Tensor] | None = None


@dataclass(frozen=True)
class Loss:
    """The scalar to differentiate, and named parts of it for the record (detached scalars)."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class Training(BaseModel):
    """How an objective is optimised. The defaults train a small network on small images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd only")
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine", "one-cycle", "multistep"] = "cosine"
    cycles: int = Field(
        default=1, ge=1, description="cosine: times that the rate falls from lr to 0; equal parts of what warmup leaves"
    )
    milestones: tuple[int, ...] = Field(
        default=(), description="multistep: epochs after which lr is multiplied by gamma"
    )
    gamma: float = Field(default=0.1, gt=0, le=1)
    warmup: float = Field(default=0.0, ge=0, lt=1, description="share of all steps over which lr rises linearly")
    clip_norm: float | None = Field(default=None, gt=0, description="largest norm of the gradient of all weights")
    augment: Augment = "none"
    precision: Literal["32", "bf16", "16"] = Field(default="32", description="autocast type of the training passes")
    compile: bool = Field(default=False, description="torch.compile the network")
    select_every: int = Field(default=1, ge=1, description="epochs between two looks at the select split")
    select_samples: int = Field(default=1000, ge=1, description="samples of the select split that a look takes at most")
    samples: int | None = Field(default=None, ge=1, description="first samples of the train split; all when empty")
    label_noise: float = Field(
        default=0.0, ge=0, le=1, description="share of training labels replaced by another class, drawn per sample"
    )
    snapshots: tuple[int, ...] = Field(
        default=(), description="epochs after which the weights are kept beside the best"
    )
    restarts: int = Field(
        default=0, ge=0, description="times that a diverged training goes back to its last good epoch, with other draws"
    )
    restart_lr: float = Field(default=1.0, gt=0, le=1, description="factor on the learning rate at each restart")
    ranks: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="processes that share each batch, on a GPU each; the weights differ by the order of summation only",
    )


class Diverged(RuntimeError):  # noqa: N818 - reads as the message it is
    """The training has left the region where it can be trusted, as the objective's own guard says."""


class Objective(Method):
    """Base of all training objectives."""

    kind: ClassVar[str] = "objective"
    min_classes: ClassVar[int] = 2

    training: Training = Training()

    @model_validator(mode="after")
    def _ranks_can_share_the_batch(self) -> Objective:
        if self.training.ranks > 1 and self.whole_batch:
            raise ValueError(
                f"{self.name}: training.ranks must be 1: ranks see a part of each batch, and {self.whole_batch}"
            )
        return self

    @property
    def whole_batch(self) -> str:
        """Why a part of a batch is not enough, as a clause; empty where the loss is a mean over samples.

        Empty is a promise: with the same state and `rng`, the mean of the losses of two parts, weighted by their
        samples, is the loss of the batch, and no draw or state depends on which samples stand in it together.
        """
        return ""

    @abstractmethod
    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """The loss of one batch, classifier in train mode; may read and update `state`.

        Raises:
            Diverged: if the objective's guard fires; the loop goes back to its last good epoch while
                `training.restarts` allows, as it does for a loss that is not finite.
        """

    def start(self, classifier: Classifier, images: Tensor, seed: int) -> State:
        """The state before the first step; `images` is one batch, to take shape and device from."""
        return {}

    def before_training(self, state: State, train_set: Dataset) -> None:
        """Called once, after `start`: puts into the state what must be known of the samples that are fitted."""

    def before_step(self, classifier: Classifier, state: State) -> None:
        """Called after the gradients are computed and before the optimiser uses them."""

    def after_step(self, classifier: Classifier, state: State) -> None:
        """Called after each optimiser step: projections, averages."""

    def selection(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Which images count as right when the checkpoint is chosen, [N] bool: here, those classified correctly.

        Called on the select split with the classifier frozen (eval mode); `rng` is the same in every epoch, so two
        epochs are judged by the same draws.
        """
        with torch.no_grad():
            right: Tensor = classifier(images).argmax(1) == labels
        return right

    def after_epoch(self, classifier: Classifier, state: State, train_set: Dataset) -> dict[str, float]:
        """Called after each epoch; returns what the epoch's row of the history shows beside the mean terms."""
        return {}
