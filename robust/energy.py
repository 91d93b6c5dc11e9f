"""The energy of a classifier read as a density model, and the Langevin walk on it.

Shared by the objective that trains such a model, the defence that refines images with it, and the detectors and
diagnostics that score by it. Images are in [0,1] everywhere; the literature's settings are for pixels u = 2 x - 1 in
[-1,1] and are converted here, and only here: a step alpha in u is alpha / 4 in x (the gradient doubles, the distance
halves), a noise sigma in u is sigma / 2 in x, and a bound b on the gradient in u is 2 b in x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from robust.classifier import Classifier

Normals = Callable[[int], Tensor]  # step -> standard normal numbers [N,C,H,W]


def log_density(logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """log p(x) + log Z of images with these logits [N,K], in nats, [N]: the negative energy.

    log p(x) + log Z = logsumexp_k f(x)_k; with labels [N], log p(x, y) + log Z = f(x)_y (Grathwohl et al. 2020, arXiv
    1912.03263, eq. 5 to 7). Z is one unknown constant of the network.
    """
    return logits.logsumexp(1) if labels is None else logits.gather(1, labels[:, None])[:, 0]


def score(classifier: Classifier, images: Tensor, labels: Tensor | None = None, *, through: bool = False) -> Tensor:
    """d log p(x) / dx, or d log p(x, y) / dx with labels [N]: [N,C,H,W], in nats per [0,1] pixel.

    Args:
        classifier: frozen, or its weights collect no gradient anyway.
        images: [N,C,H,W].
        labels: classes [N] to walk towards; None for the density of all classes together.
        through: keep the graph, so that the result can be differentiated with respect to `images`.
    """
    with torch.enable_grad():
        point = images if through and images.requires_grad else images.detach().requires_grad_(True)
        total = log_density(classifier(point), labels).sum()
        gradient: Tensor = torch.autograd.grad(total, point, create_graph=through)[0]
    return gradient


def to_unit_noise(sigma: float) -> float:
    """A standard deviation for [-1,1] pixels in [0,1] units."""
    return sigma / 2


class Walk(NamedTuple):
    """Where a chain ended, and the last gradient it took: both [N,C,H,W]."""

    images: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Langevin:
    """Stochastic gradient Langevin dynamics: u' = u + alpha d log p(u) / du + sigma z, z ~ N(0, I), u in [-1,1].

    Welling & Teh 2011; with the constants of Grathwohl et al. 2020 (arXiv 1912.03263, eq. 2 and appendix A): alpha = 1,
    sigma = 0.01. Proper dynamics would pair alpha with sigma = sqrt(2 alpha): this is a sampler at a low temperature,
    and biased. Each step is one forward and one backward pass an image.

    Attributes:
        steps: 0 leaves the images as they are.
        step_size: alpha, for [-1,1] pixels.
        sigma: standard deviation of a step's noise, for [-1,1] pixels.
        gradient_bound: largest absolute entry of the gradient in [-1,1] pixels; none when None.
        box: clip the images to the box after each step.
    """

    steps: int
    step_size: float = 1.0
    sigma: float = 0.01
    gradient_bound: float | None = None
    box: bool = False

    def walk(
        self,
        classifier: Classifier,
        images: Tensor,
        normals: Normals,
        labels: Tensor | None = None,
        *,
        through: bool = False,
    ) -> Walk:
        """The chain's end after all steps from `images` [N,C,H,W] in [0,1] units.

        Args:
            classifier: frozen.
            images: where the chains start.
            normals: step -> standard normal numbers of the images' shape; not called where sigma is 0.
            labels: see `score`.
            through: keep the graph of the whole walk: memory grows with the steps.
        """
        state = images if through else images.detach()
        gradient = torch.zeros_like(state)
        for step in range(self.steps):
            gradient = score(classifier, state, labels, through=through)
            if self.gradient_bound is not None:
                gradient = gradient.clamp(-2 * self.gradient_bound, 2 * self.gradient_bound)
            state = torch.add(state, gradient, alpha=self.step_size / 4)  # one pass over the pixels, not two
            if self.sigma:
                state = torch.add(state, normals(step), alpha=to_unit_noise(self.sigma))
            if self.box:
                state = state.clamp(0, 1)
        return Walk(state, gradient)
