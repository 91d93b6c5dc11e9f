"""TI-FGSM: momentum steps along gradients smoothed over neighbouring pixels."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robust.attacks.mi_fgsm import MIFGSM
from robust.classifier import Classifier
from robust.randomness import Randomness


class TIFGSM(MIFGSM):
    """Translation-invariant FGSM: gradients are convolved with a Gaussian before the step, for transfer.

    Dong et al. 2019, arXiv 1904.02884, eq. 9: to first order this is the gradient averaged over shifted copies of the
    image, at the price of one. The kernel spans three standard deviations to either side; keep it well below the
    image (the paper: 15 pixels of 299).
    """

    name: ClassVar[str] = "ti-fgsm"
    family: ClassVar[str] = "transfer"
    source: ClassVar[str] = "Dong et al. 2019, arXiv 1904.02884"

    sigma: float = Field(default=1.0, gt=0, description="standard deviation of the kernel in pixels")

    def gradient(self, classifier: Classifier, x: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """The smoothed gradient, [N,C,H,W]."""
        raw = super().gradient(classifier, x, labels, rng)
        reach = max(1, int(3 * self.sigma))
        places = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
        line = torch.exp(-0.5 * (places / self.sigma) ** 2)
        line = (line / line.sum()).repeat(x.shape[1], 1)
        channels = x.shape[1]
        down = F.conv2d(raw, line[:, None, :, None], padding=(reach, 0), groups=channels)
        return F.conv2d(down, line[:, None, None, :], padding=(0, reach), groups=channels)
