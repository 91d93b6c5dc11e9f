"""Are the gradients gradients? Vanished or non-finite ones, and slopes measured by finite differences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust.diagnostics.probe import Connected, Probe, gradient_of, raw_gradient
from robust.losses import Loss, cross_entropy, margin
from robust.threat import norm_of

DIRECTIONS = 12


@dataclass(frozen=True)
class Gradients:
    """Shares of samples in [0,1].

    Attributes:
        zero_ce, zero_margin: whose input gradient vanishes everywhere, under cross-entropy and under the margin.
        unfinite: with a NaN or an infinity in either.
        near, far: median agreement (cosine over directions) of slopes with the gradient, at 1/100 and 1/8 of eps.
        jump: change of the margin over a step a thousandth of eps long, relative to its change over eps/8; median.
    """

    zero_ce: float
    zero_margin: float
    unfinite: float
    near: float
    far: float
    jump: float


def examine(probe: Probe) -> Gradients:
    """Measure them at random points of a ball of half the radius, where an attack walks."""
    half = probe.within(probe.threat.norm, probe.threat.radius / 2)
    points = half.threat.random_start(probe.images, probe.rng.fork("points"))
    zero_ce, bad_ce = _vanished(probe, points, cross_entropy)
    zero_margin, bad_margin = _vanished(probe, points, margin)
    radius = probe.threat.radius
    near, _ = slopes(probe, points, radius / 100)
    far, moved = slopes(probe, points, radius / 8)
    _, nudged = slopes(probe, points, radius / 1000)
    jump = nudged / moved.clamp_min(1e-30)
    return Gradients(
        zero_ce, zero_margin, float((bad_ce | bad_margin).double().mean()),
        float(near.median()), float(far.median()), float(jump.median()),
    )  # fmt: skip


def slopes(probe: Probe, points: Tensor, length: float) -> tuple[Tensor, Tensor]:
    """Agreement [N] of the margin's central differences over +-length with its gradient, and their mean size [N].

    Directions of unit norm: random ones, and the steepest ascent that the gradient itself names.
    """
    # away from the walls of the box, so that a defence's own clamp does not bend the line
    points = points.clamp(min(length, 0.1), 1 - min(length, 0.1)) if probe.threat.norm == "linf" else points
    gradient, _, _ = gradient_of(Connected(probe.classifier), points, probe.labels)
    random = probe.rng.fork("directions").normal((DIRECTIONS, *points.shape[1:]), like=points)
    if probe.threat.norm == "linf":
        random = random.sign()
    own = probe.threat.steepest(gradient)[:, None]
    directions = torch.cat([random, own], 1)
    sizes = norm_of(directions.flatten(0, 1), probe.threat.norm).view(directions.shape[:2])
    directions = directions / sizes.clamp_min(1e-30)[:, :, None, None, None]
    with torch.no_grad():
        rises = torch.stack(
            [_rise(probe, points, directions[:, i], length) for i in range(directions.shape[1])], 1
        )  # [N,D]
    promised = (directions.double() * gradient.double()[:, None]).flatten(2).sum(2)
    cosine = (rises * promised).sum(1) / (rises.norm(dim=1) * promised.norm(dim=1)).clamp_min(1e-300)
    flat = rises.norm(dim=1) == 0
    still = flat & (promised.norm(dim=1) == 0)  # flat and known to be
    return torch.where(still, torch.ones_like(cosine), cosine), rises.abs().mean(1)


def _rise(probe: Probe, points: Tensor, direction: Tensor, length: float) -> Tensor:
    ahead = margin(probe.classifier(points + length * direction), probe.labels)
    behind = margin(probe.classifier(points - length * direction), probe.labels)
    return (ahead.double() - behind.double()) / 2


def _vanished(probe: Probe, points: Tensor, loss: Loss) -> tuple[float, Tensor]:
    gradient, _, _ = raw_gradient(Connected(probe.classifier), points, probe.labels, loss)
    flat = gradient.flatten(1)
    return float((flat == 0).all(1).double().mean()), (~flat.isfinite()).any(1)
