"""The tanh logit layer: logits standardised over the batch and squeezed into (-t, t), t learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScaledTanh(nn.Tanh):
    """z -> t tanh(z / t) with t = |scale| learned, 1 at the start; of slope at most 1, as nn.Tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, input: Tensor) -> Tensor:
        """Values in (-t, t), any shape."""
        bound = self.scale.abs()
        return bound * torch.tanh(input / bound)


class TanhLogits(nn.Sequential):
    """A network followed by BatchNorm without scale and shift and by z -> t tanh(z / t).

    The layer that Finlay, Oberman & Abbasi 2018 (arXiv 1810.00953) put before the softmax; t starts at 1 and its
    absolute value is used, as in their code. It bounds every logit by t, hence the loss gradient; where tanh
    saturates, the gradient of the cross-entropy vanishes although the decision is where it was (tanh is increasing):
    a masked gradient, for which `gradient_views` declares the network without the tanh as `substitute`.

    Args:
        body: images [N,C,H,W] -> raw logits [N,K].
        num_classes: K.
    """

    def __init__(self, body: nn.Module, num_classes: int) -> None:
        super().__init__(body, nn.BatchNorm1d(num_classes, affine=False), ScaledTanh())

    def gradient_views(self) -> dict[str, nn.Module]:
        """`substitute`: the network without the tanh, of the same decisions; it shares all weights."""
        return {"substitute": nn.Sequential(self[0], self[1])}
