"""Does the attack get stronger with what it is given? Radius up to the whole box, steps, restarts, loss along the way.

Carlini et al. 2019, "On Evaluating Adversarial Robustness", arXiv 1902.06705, section 5: accuracy must not rise with
any of them, and an attack that may change the image into anything must always succeed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from robust.diagnostics.probe import Probe
from robust.diagnostics.verdict import CLEAR, LEVEL, Check, Scope, Verdict, at_least
from robust.losses import cross_entropy, margin

RADII = (0.25, 0.5, 1.0, 2.0, 4.0)  # in units of eps
WHOLE_BOX = (0.5, 1.0)  # linf radii: half of the box around grey, and all of it from anywhere
STEPS = (10, 40, 100, 200)
RESTARTS = 3
UNBOUNDED = 0.02  # share that 40 steps in the whole box may leave
RESTART_GAIN = 0.10
# share that the margin may break and cross-entropy not, with 95 % confidence: honest networks measured up to 0.11
# (TRADES at twice its radius)
SCALE_GAP = 0.1
CONFIDENT = 0.1  # smallest mean confidence above 1/K of images that are classified correctly


@dataclass(frozen=True)
class Budget:
    """What plain ascents broke: masks [N] by radius (in image units), steps and restarts; mean losses at each step.

    `reference` is the union of cross-entropy and margin, 40 steps, `RESTARTS` starts: what a careful user would report.
    """

    by_radius: dict[float, Tensor]
    whole_box: dict[float, Tensor]
    by_steps: dict[int, Tensor]
    by_restarts: list[Tensor]
    margin_alone: Tensor
    reference: Tensor
    confidence: float
    rise_ce: list[float]
    rise_margin: list[float]


def spend(probe: Probe) -> Budget:
    """All ascents on the probe's samples."""
    by_steps = {steps: probe.climb(cross_entropy, steps).broken for steps in STEPS}
    first = probe.climb(margin, 40).broken
    restarts, standing = [first], first | by_steps[40]
    for restart in range(1, RESTARTS):
        restarts.append(restarts[-1] | _again(probe, standing, restart))
        standing = standing | restarts[-1]
    if probe.threat.norm == "l1":  # sparse steps need more of them
        standing = standing | by_steps[200] | _patient(probe, standing)
    radii = {share * probe.threat.radius: 20 for share in RADII if _fits(probe, share)}
    return Budget(
        {
            radius: probe.within(probe.threat.norm, radius).climb(margin, steps).broken
            for radius, steps in radii.items()
        },
        {radius: _unbounded(probe.within("linf", radius)) for radius in WHOLE_BOX},
        by_steps,
        restarts,
        first,
        standing,
        _confidence(probe),
        probe.climb(cross_entropy, 40, traced=True).trace,
        probe.climb(margin, 40, traced=True).trace,
    )


def _fits(probe: Probe, share: float) -> bool:
    return probe.threat.norm != "linf" or share * probe.threat.radius < WHOLE_BOX[0]


def _again(probe: Probe, standing: Tensor, restart: int) -> Tensor:
    """Another start of the margin ascent, for the samples that stand."""
    broken = torch.zeros_like(standing)
    if not standing.all():
        rest = probe.select(~standing)
        broken[~standing] = rest.climb(margin, 40, restart=restart).broken
    return broken


def _patient(probe: Probe, standing: Tensor) -> Tensor:
    """Two hundred steps on the margin, for the samples that stand."""
    broken = torch.zeros_like(standing)
    if not standing.all():
        broken[~standing] = probe.select(~standing).climb(margin, 200, restart=RESTARTS).broken
    return broken


@torch.no_grad()
def _confidence(probe: Probe) -> float:
    """Mean of (max softmax - 1/K) / (1 - 1/K), in [0,1]; 0 for one class."""
    logits = probe.classifier(probe.images).double()
    floor = 1 / logits.shape[1]
    return float((logits.softmax(1).amax(1) - floor).mean()) / max(1 - floor, 1e-9)


def _unbounded(probe: Probe) -> Tensor:
    broken = probe.climb(margin, 40).broken
    for restart in (1, 2):
        broken = broken | _again(probe, broken, restart)
    return broken


def checks(spent: Budget, probe: Probe, model: str) -> list[Check]:
    """Radius, steps, restarts, the loss along the way, the whole box, and cross-entropy against the margin."""
    threat, n = str(probe.threat), len(probe)

    def check(name: str, value: float, bound: float, failed: bool, reason: str, scope: Scope = "gradient") -> Check:
        severity: Verdict = "suspect"
        return Check(model, "", name, not failed, value, bound, reason, severity, threat, scope)

    rise, where = _largest_rise([*spent.by_radius.items(), *spent.whole_box.items()] if probe.threat.norm == "linf"
                                else list(spent.by_radius.items()))  # fmt: skip
    slower, steps = _largest_rise(list(spent.by_steps.items()))
    gained = _share(spent.by_restarts[-1]) - _share(spent.by_restarts[0])
    lucky = int((spent.by_restarts[-1] & ~spent.by_restarts[0]).sum())
    box = 1 - _share(spent.whole_box[1.0])
    climb = spent.rise_margin[-1] - spent.rise_margin[0]
    return [
        check("falls with eps", rise, CLEAR, rise > CLEAR,
              f"the share still right rises with the radius, by {_points(rise)} at {where:.3g}: the attack loses its "
              "way"),
        check("falls with steps", slower, CLEAR, slower > CLEAR,
              f"the share still right rises with the number of steps, by {_points(slower)} at {steps} steps"),
        check("restart gain", gained, RESTART_GAIN, at_least(lucky, n) > RESTART_GAIN,
              f"{RESTARTS} starts instead of one break {_points(gained)} more: the surface is full of local traps, "
              "and a number from one start is luck"),
        check("loss rises", climb, 0.0, climb <= 0,
              f"the margin loss does not rise along the attack: {spent.rise_margin[0]:.3g} at the start, "
              f"{spent.rise_margin[-1]:.3g} after 40 steps"),
        check("whole box", box, UNBOUNDED, float(stats.binom.sf(round(box * n) - 1, n, UNBOUNDED)) < LEVEL,
              f"an attack that may change every pixel to anything still leaves {100 * box:.1f} % of the images "
              "right that were right when clean; it must leave none"),
        _scale(spent, probe, model),
        Check(model, "", "confidence", spent.confidence >= CONFIDENT, spent.confidence, CONFIDENT,
              f"the softmax gives its first choice only {_points(spent.confidence)} more than 1/K on images that it "
              "gets right: the logits are squeezed until cross-entropy hardly moves; use margin, dlr or apgd-t",
              threat=threat, scope="cross-entropy"),
    ]  # fmt: skip


def _scale(spent: Budget, probe: Probe, model: str) -> Check:
    """Cross-entropy against the margin, 40 steps from one start each: only the margin is blind to the logits' scale."""
    n = len(probe)
    lost = int((spent.margin_alone & ~spent.by_steps[40]).sum())
    left, better = 1 - _share(spent.by_steps[40]), 1 - _share(spent.by_steps[40] | spent.margin_alone)
    low = at_least(lost, n)
    severity: Verdict = "broken" if low > 2 * SCALE_GAP else "suspect"
    reason = (
        f"of the images that were right when clean, cross-entropy leaves {100 * left:.1f} % right, the margin loss "
        f"{100 * better:.1f} %: the logits' scale or shape hides the gradient of cross-entropy; use margin, dlr or "
        "apgd-t"
    )
    if severity == "broken":
        reason = f"broken: {reason}"
    return Check(
        model,
        "",
        "logit scale",
        low <= SCALE_GAP,
        lost / n,
        SCALE_GAP,
        reason,
        severity,
        str(probe.threat),
        "cross-entropy",
    )


def _largest_rise(broken: Sequence[tuple[float, Tensor]]) -> tuple[float, float]:
    """Largest significant rise of accuracy from any earlier to any later entry, and where; 0 if there is none."""
    worst, where = 0.0, 0.0
    for later in range(1, len(broken)):
        for earlier in range(later):
            before, after = broken[earlier][1], broken[later][1]
            only_before, only_after = int((before & ~after).sum()), int((after & ~before).sum())
            p_value = stats.binom.sf(only_before - 1, only_before + only_after, 0.5) if only_before else 1.0
            rise = _share(before) - _share(after)
            if p_value < LEVEL / len(broken) ** 2 and rise > worst:
                worst, where = rise, broken[later][0]
    return worst, where


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
