"""The detector contracts: one score an image, higher = more in-distribution.

A `Detector` works on what one pass over the data gives (penultimate features and logits), so that every detector of a
study shares that pass. What it learns is a dictionary of tensors, which is stored and passed to `score_features`. An
`ImageDetector` needs the images and the classifier themselves, for gradients or for repeated passes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from robust.classifier import Classifier, last_linear
from robust.method import Method
from robust.randomness import Randomness

Fitted = dict[str, Tensor]


class Head(NamedTuple):
    """The classifier's last linear layer: logits = features @ weight.T + bias."""

    weight: Tensor  # [K,D]
    bias: Tensor  # [K]


class Detector(Method):
    """Base of all detectors that work on features and logits; scores are float64."""

    kind: ClassVar[str] = "detector"
    needs_features: ClassVar[bool] = False
    needs_head: ClassVar[bool] = False

    def fit_features(self, features: Tensor, logits: Tensor, labels: Tensor, head: Head | None = None) -> Fitted:
        """What must be known of the training data: features [N,D], logits [N,K], labels [N]. Nothing by default.

        `head` is the last linear layer, given to detectors that set `needs_head`.
        """
        return {}

    @abstractmethod
    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Score [N] of images with these features [N,D] and logits [N,K]; higher = more in-distribution.

        `features` is an empty [N,0] tensor for detectors that do not set `needs_features`.
        """


class ImageDetector(Method):
    """Base of detectors that look at the images: by gradients of the classifier or by several passes through it."""

    kind: ClassVar[str] = "detector"

    def fit_images(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Fitted:
        """What must be known of training images [N,C,H,W] with labels [N]. Nothing by default."""
        return {}

    @abstractmethod
    def score_images(self, classifier: Classifier, images: Tensor, fitted: Fitted, rng: Randomness) -> Tensor:
        """Score [N] of images [N,C,H,W] in [0,1]; higher = more in-distribution. The classifier is frozen."""


def head_of(classifier: Classifier, features: Tensor, logits: Tensor) -> Head:
    """The last linear layer, after a check that it really maps these features [N,D] to these logits [N,K].

    Raises:
        ValueError: if the classifier has no such layer, so that `needs_head` detectors cannot serve it.
    """
    layer = last_linear(classifier.module)
    bias = layer.bias if layer.bias is not None else layer.weight.new_zeros(layer.weight.shape[0])
    head = Head(layer.weight.detach(), bias.detach())
    if features.shape[1] != head.weight.shape[1] or logits.shape[1] != head.weight.shape[0]:
        raise ValueError(
            f"the last linear layer maps {head.weight.shape[1]} to {head.weight.shape[0]} values, features and logits "
            f"have {features.shape[1]} and {logits.shape[1]}; detectors that need the head do not serve this model"
        )
    again = features.to(head.weight) @ head.weight.T + head.bias
    if not torch.allclose(again, logits.to(again), rtol=1e-2, atol=1e-2 * float(logits.abs().max())):
        raise ValueError("the last linear layer does not turn these features into these logits; the model adds to it")
    return head


def required(head: Head | None, name: str) -> Head:
    """The head in float64, or a message that the detector `name` cannot do without it."""
    if head is None:
        raise ValueError(f"{name} needs the last linear layer: pass head=head_of(classifier, features, logits)")
    return Head(head.weight.double(), head.bias.double())
