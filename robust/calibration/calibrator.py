"""The calibrator contracts: fitted on the calibrate split, applied to logits from anywhere.

A `Calibrator` returns probabilities, a `SetPredictor` sets of classes, a `SmoothedSetPredictor` sets from logits under
noise; all are of the kind "calibrator" and are named in a study's `calibrators`. Parameters and results are float64, on
the device of the logits.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robust.classifier import Classifier
from robust.method import Method
from robust.randomness import Randomness

Fitted = dict[str, Tensor]


class Calibrator(Method):
    """Base of all calibrators; what `fit` returns is a dictionary of float64 tensors, stored beside the model."""

    kind: ClassVar[str] = "calibrator"

    @abstractmethod
    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """Parameters from logits [N,K] and labels [N] of the calibrate split."""

    @abstractmethod
    def transform(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Calibrated probabilities [N,K], float64, rows summing to 1."""


class SetPredictor(Method):
    """Base of conformal predictors: sets of classes that hold the true one with probability at least 1 - alpha."""

    kind: ClassVar[str] = "calibrator"

    @abstractmethod
    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """The threshold, from logits [N,K] and labels [N] of the calibrate split."""

    @abstractmethod
    def sets(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Prediction sets of logits [N,K] as a boolean mask [N,K]."""


class SmoothedSetPredictor(Method):
    """Base of conformal predictors whose sets hold the true class also after an attack: they see logits under noise."""

    kind: ClassVar[str] = "calibrator"

    @abstractmethod
    def noisy_logits(self, classifier: Classifier, images: Tensor, rng: Randomness) -> Tensor:
        """Logits [N,M,K] of M noisy copies of each image [N,C,H,W]; what `fit` and `sets` are given."""

    @abstractmethod
    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """The threshold, from noisy logits [N,M,K] of clean images and labels [N] of the calibrate split."""

    @abstractmethod
    def sets(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Prediction sets [N,K] bool of (attacked) images, from their noisy logits [N,M,K]."""


def checked(logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """Logits in float64, after a check.

    Raises:
        ValueError: if logits are not [N,K] with K >= 2, hold NaN or infinity, or labels do not fit them.
    """
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must have the shape [N,K] with at least 2 classes, got {tuple(logits.shape)}")
    bad = int((~logits.isfinite()).any(1).sum())
    if bad:
        raise ValueError(f"logits are NaN or infinite in {bad} of {len(logits)} rows")
    if labels is not None:
        if labels.shape != logits.shape[:1] or len(labels) == 0:
            raise ValueError(f"need at least one label for {len(logits)} logits, got {tuple(labels.shape)}")
        if labels.is_floating_point() or labels.min() < 0 or labels.max() >= logits.shape[1]:
            raise ValueError(f"labels must be integers from 0 to {logits.shape[1] - 1}")
    return logits.detach().double()


def mean_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats, from logits [N,K] without going through probabilities."""
    return cross_entropy(logits, labels.long())


def with_floor(probabilities: Tensor, floor: float = 1e-12) -> Tensor:
    """Rows that sum to 1 with no entry below about `floor`, so that an unseen class never costs infinite NLL."""
    raised = probabilities.clamp(min=floor)
    normalised: Tensor = raised / raised.sum(1, keepdim=True)
    return normalised


def as_logits(probabilities: Tensor) -> Tensor:
    """log p, finite: logits whose softmax is p."""
    return torch.log(with_floor(probabilities))
