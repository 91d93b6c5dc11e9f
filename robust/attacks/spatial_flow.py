"""Spatial flow: every pixel is fetched from a place of its own, and the places are optimised."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import FixedBudget, fooled, input_gradient
from robust.attacks.survivors import Survivors
from robust.classifier import Classifier
from robust.losses import margin
from robust.randomness import Randomness
from robust.threat import ThreatModel


class SpatialFlow(FixedBudget):
    """Spatial flow attack (stAdv): a smooth field of small displacements, one for each pixel, found by gradients.

    Xiao et al. 2018, arXiv 1801.02612: x'(p) is x sampled bilinearly at p + f(p) (eq. 1), and f minimises
    max(z_y - max_{j != y} z_j, 0) + tau sum_p sum_{q next to p} |f(p) - f(q)|_2 (eq. 2-4). The authors use L-BFGS;
    here normalised gradient steps with momentum, so that samples in one batch do not meet, and no pixel is fetched
    from farther than `reach` of the side. Like `spatial`, the change is small in no l_p norm: the threat model is the
    whole box (linf 1). Costs at most steps + 1 forward and backward passes; fallen samples leave.
    """

    name: ClassVar[str] = "spatial-flow"
    family: ClassVar[str] = "transformation"
    source: ClassVar[str] = "Xiao et al. 2018, arXiv 1801.02612"
    norms: ClassVar[tuple[str, ...]] = ("linf",)

    threat: ThreatModel = Field(default=ThreatModel(eps=Fraction(1)), description="the whole box")
    steps: int = Field(default=40, ge=1, description="gradient steps on the flow")
    reach: float = Field(default=0.1, ge=0, le=1, description="largest displacement, as a share of the side")
    tau: float = Field(default=0.05, ge=0, description="weight of the flow's roughness against the margin")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; draws nothing. Standing images get the flow of the largest margin."""
        survivors = Survivors(classifier, images, labels, rng)
        flow = images.new_zeros(len(images), 2, *images.shape[2:])
        velocity = torch.zeros_like(flow)
        for step in range(self.steps + 1):
            if not len(survivors):
                break
            gradient, moved, logits = self._look(survivors, flow)
            survivors.offer(moved, margin(logits, survivors.labels))
            _, flow, velocity, gradient = survivors.fell(
                fooled(logits, survivors.labels), moved, flow, velocity, gradient
            )
            # a step of a fifth of the reach for the pixel that moves most, shrinking to nothing
            size = 0.2 * self.reach * (1 - step / (self.steps + 1))
            velocity = 0.9 * velocity - gradient / _largest(gradient)
            flow = (flow + size * velocity / _largest(velocity)).clamp(-self.reach, self.reach)
        return survivors.best

    def _look(self, survivors: Survivors, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of the objective to the flow [n,2,H,W], the images it gives, and their logits."""
        with torch.enable_grad():
            leaf = flow.detach().requires_grad_(True)
            moved = displaced(survivors.origin, leaf)
            slope, _, logits = input_gradient(
                survivors.classifier, moved, lambda z: (-margin(z, survivors.labels)).clamp_min(0)
            )
            (gradient,) = torch.autograd.grad((moved * slope).sum() + self.tau * roughness(leaf).sum(), leaf)
        return gradient.nan_to_num(0.0, 0.0, 0.0), moved.detach(), logits

    def passes(self, num_classes: int) -> tuple[int, int]:
        """At most steps + 1 of each: every look takes a gradient."""
        return (self.steps + 1, self.steps + 1)


def displaced(images: Tensor, flow: Tensor) -> Tensor:
    """Images [N,C,H,W] whose pixel p is fetched at p + flow(p), bilinear, the edge repeated outside.

    Args:
        images: [N,C,H,W] in [0,1].
        flow: [N,2,H,W], displacements across and down as shares of the sides.
    """
    identity = torch.eye(2, 3, dtype=images.dtype, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(identity, list(images.shape), align_corners=False) + 2 * flow.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False).clamp(0, 1)


def roughness(flow: Tensor) -> Tensor:
    """Sum [N] over neighbouring pixels, in pixels, of |f(p) - f(q)|_2 (eq. 4); each pair counts twice, as there."""
    side = flow.new_tensor([flow.shape[3], flow.shape[2]]).view(1, 2, 1, 1)
    pixels = flow * side
    pairs = (pixels[..., 1:] - pixels[..., :-1], pixels[:, :, 1:] - pixels[:, :, :-1])
    # the root of a sum of squares has no gradient at 0, where the flow starts
    return 2 * torch.stack([(pair.square().sum(1) + 1e-12).sqrt().flatten(1).sum(1) for pair in pairs]).sum(0)


def _largest(field: Tensor) -> Tensor:
    return field.flatten(1).abs().amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
