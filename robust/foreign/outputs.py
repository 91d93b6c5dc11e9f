"""What a network returns, read from the numbers alone: labels, logits, or logits that a softmax has been through."""

from __future__ import annotations

import torch
from torch import Tensor

from robust.foreign.loaded import ForeignError
from robust.foreign.preparation import Answer, inner_probabilities

CLOSE = 1e-3  # float16 rounds a sum of a thousand probabilities that far from 1


def kind_of(answer: Tensor, num_classes: int) -> Answer:
    """The kind of some answers [n,K'], or [n,1] where there is one number an image.

    A distribution is non-negative and sums to 1. That a softmax was applied to a distribution shows too: then the
    values it came from are all within one unit, which no confident network's logits are.

    Raises:
        ForeignError: if the answer is neither scores of two classes or more nor labels.
    """
    values = answer.double()
    if values.isnan().any():
        raise ForeignError("the network returns NaN for images of the data; is its range 0 to 1, its dtype float32?")
    if answer.shape[1] == 1:
        whole = torch.equal(values, values.round()) and values.min() >= 0 and values.max() < num_classes
        if whole:
            return "labels"
        raise ForeignError("the network returns one number an image that is no label; return scores [N,K]")
    if bool((values >= 0).all()) and _near(values.sum(1), 1):
        return "softmax twice" if _distributions(inner_probabilities(values.clamp_min(1e-300).log())) else "softmax"
    if bool((values <= CLOSE).all()) and _near(values.exp().sum(1), 1):
        return "log-softmax of softmax" if _distributions(inner_probabilities(values)) else "log-softmax"
    return "logits"


def _distributions(values: Tensor) -> bool:
    return bool((values > -CLOSE).all() and (values < 1 + CLOSE).all())


def _near(values: Tensor, target: float) -> bool:
    return bool(((values - target).abs() < CLOSE).all())
