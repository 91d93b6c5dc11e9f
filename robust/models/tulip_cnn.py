"""A small network for gradient regularisation on small images: with plain or tanh logits, and dropout if asked for."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from robust.models.model import Inputs
from robust.models.small_cnn import SmallCNN
from robust.models.tanh_logits import TanhLogits


class TulipCNN(SmallCNN):
    """Strided convolutions and two linear layers, with the choice of plain or tanh logits.

    `small-cnn` with two options: `logits: tanh` puts BatchNorm without scale and shift and t tanh(z / t) behind it
    (Finlay, Oberman & Abbasi 2018, arXiv 1810.00953); `dropout` drops units of the linear layer before the logits
    (Gal & Ghahramani 2016, arXiv 1506.02142), which `mc-dropout` then uses.
    """

    name: ClassVar[str] = "tulip-cnn"
    family: ClassVar[str] = "convolutional"
    source: ClassVar[str] = "after arXiv 1810.00953"

    logits: Literal["plain", "tanh"] = Field(default="plain", description="plain, or squeezed by the tanh logit layer")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="share of hidden units dropped before the logits")

    def build(self, inputs: Inputs) -> nn.Module:
        """The small network, then the tanh layer if asked for.

        Raises:
            ValueError: if a side is shorter than 4 pixels, or much shorter than the other.
        """
        body = super().build(inputs)
        if self.dropout and isinstance(body, nn.Sequential):
            body.insert(len(body) - 1, nn.Dropout(self.dropout))
        return TanhLogits(body, inputs.num_classes) if self.logits == "tanh" else body
