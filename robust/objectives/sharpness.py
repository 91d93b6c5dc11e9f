"""Sharpness-aware minimisation as two moves: uphill before the gradient is taken, and back before it is used.

Foret et al. 2021, arXiv 2010.01412, eq. 2 and 3: the gradient of L at w + rho g / |g|_2, g = grad L(w), is applied at
w. The weights at rest wait in the objective's state between the two moves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robust.classifier import Classifier


def climb(classifier: Classifier, loss: Tensor, rho: float, state: dict[str, Any]) -> None:
    """Move all weights by rho along the gradient of `loss`, and keep in the state where they were."""
    weights = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, weights)
    length = torch.stack([gradient.norm() for gradient in gradients]).norm().clamp_min(1e-12)
    state["rest"] = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients):
            weight.add_(gradient * (rho / length))


def return_to_rest(classifier: Classifier, state: dict[str, Any]) -> None:
    """Put the weights back, exactly; nothing where `climb` was not called."""
    if "rest" not in state:
        return
    weights = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for weight, rest in zip(weights, state.pop("rest")):
            weight.copy_(rest)
