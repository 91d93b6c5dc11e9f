"""Are the gradients gradients? Vanished or non-finite ones, and slopes measured by finite differences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from robust.diagnostics.probe import Connected, Probe, gradient_of, raw_gradient
from robust.diagnostics.verdict import LEVEL, Check, Scope
from robust.losses import Loss, cross_entropy, margin
from robust.threat import norm_of

DIRECTIONS = 12
VANISHED = 0.02  # share of images without a usable gradient that any honest network may have
# smallest cosines between slopes and gradient; honest networks measured above 0.96, also over eps/8
ROUGH, WRONG = 0.8, 0.85
JUMP = 0.5  # a continuous function measures 0.16


@dataclass(frozen=True)
class Gradients:
    """Shares of samples in [0,1].

    Attributes:
        zero_ce, zero_margin: whose input gradient vanishes everywhere, under cross-entropy and under the margin.
        unfinite: with a NaN or an infinity in either.
        near, far: mean agreement (cosine over directions) of slopes with the gradient, at 1/100 and 1/16 of eps.
        jump: change of the margin over a step of eps/100, relative to its change over eps/16; median.
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
    near, nudged = slopes(probe, points, radius / 100)
    far, moved = slopes(probe, points, radius / 16)
    jump = nudged / moved.clamp_min(1e-30)
    return Gradients(
        zero_ce, zero_margin, float((bad_ce | bad_margin).double().mean()),
        float(near.mean()), float(far.mean()), float(jump.median()),
    )  # fmt: skip


def checks(gradients: Gradients, probe: Probe, model: str) -> list[Check]:
    """Vanished, non-finite, wrong and broken-up gradients, in float arithmetic of the classifier's own width."""
    threat, n = str(probe.threat), len(probe)

    def check(name: str, value: float, bound: float, failed: bool, reason: str, scope: Scope = "gradient") -> Check:
        return Check(model, "", name, not failed, value, bound, reason, threat=threat, scope=scope)

    flat, ce, bad = gradients.zero_margin, gradients.zero_ce, gradients.unfinite
    wrong = max(gradients.near, gradients.far) < WRONG or gradients.far < ROUGH
    return [
        check("gradient of the margin", flat, VANISHED, _many(flat, n),
              f"the margin's input gradient is exactly zero for {_share(flat)} of the images: the function is flat or "
              "its graph is cut, and an attack that follows it stands still"),
        check("gradient of cross-entropy", ce, VANISHED, _many(ce, n) and not _many(flat, n),
              f"the input gradient of cross-entropy is exactly zero for {_share(ce)} of the images, that of the margin "
              f"for {_share(flat)}: the logits are too large for it; use margin, dlr or apgd-t", "cross-entropy"),
        check("finite gradients", bad, VANISHED, _many(bad, n),
              f"the input gradient holds NaN or infinity for {_share(bad)} of the images: these steps are lost"),
        check("slopes as the gradient says", gradients.far, ROUGH, wrong and not probe.random,
              f"finite differences over eps/16 agree with the gradient only by cos = {gradients.far:.2f} (over eps/100 "
              f"by {gradients.near:.2f}): it is not the slope that an attack's step meets"),
        check("no jumps", gradients.jump, JUMP, gradients.jump > JUMP and not probe.random,
              f"over a step of eps/100 the margin moves by {gradients.jump:.2g} of its movement over eps/16; there a "
              "continuous function moves by 0.16: the surface is broken up"),
    ]  # fmt: skip


def _many(share: float, samples: int) -> bool:
    """Whether a share of the samples exceeds `VANISHED` beyond chance."""
    return float(stats.binom.sf(round(share * samples) - 1, samples, VANISHED)) < LEVEL


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


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
