"""Grey levels of colour images."""

from __future__ import annotations

from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of red, green and blue


def luminance(images: Tensor) -> Tensor:
    """[N,1,H,W]: BT.601 luma of three channels; any other number of channels is averaged."""
    if images.shape[1] != 3:
        return sum(images.split(1, dim=1)[1:], images[:, :1]) / images.shape[1]
    red, green, blue = images.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def painted(colour: tuple[float, float, float], images: Tensor) -> Tensor:
    """A colour as [1,C,1,1]: itself for three channels, else its luma on every channel."""
    if images.shape[1] == 3:
        return images.new_tensor(colour).view(1, 3, 1, 1)
    luma = sum(weight * value for weight, value in zip(LUMA, colour))
    return images.new_full((1, images.shape[1], 1, 1), luma)
