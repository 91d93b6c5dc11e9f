"""The detector contract: one score an image, higher = more in-distribution.

A detector works on what one pass over the data gives (penultimate features and logits), so that every detector of a
study shares that pass. What it learns in `fit` is a dictionary of tensors, which is stored and passed to `score`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from robust.method import Method

Fitted = dict[str, Tensor]


class Detector(Method):
    """Base of all detectors that work on features and logits."""

    kind: ClassVar[str] = "detector"
    needs_features: ClassVar[bool] = False

    def fit_features(self, features: Tensor, logits: Tensor, labels: Tensor) -> Fitted:
        """What must be known of the training data: features [N,D], logits [N,K], labels [N]. Nothing by default."""
        return {}

    @abstractmethod
    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Score [N] of images with these features [N,D] and logits [N,K]; higher = more in-distribution.

        `features` is an empty [N,0] tensor for detectors that do not set `needs_features`.
        """
