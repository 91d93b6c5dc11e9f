"""Metrics that have one value a network (ECE, AUROC): against a bound, or group against group.

Two variations may explain an effect: that over training seeds, and that over samples, where the study kept the metric
in bootstrap resamples that all networks share. A claim holds beyond both; one training tells nothing about seeds, so
it holds partly at most, as a difference in accuracy does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from robust.calibration.metrics import centred_interval
from robust.claims.accuracy_gap import beyond
from robust.claims.bounds import bound_words, gap_of, judged, limit, mean_of, over_seeds
from robust.claims.claim import Judgement, Verdict
from robust.claims.weighed import Finding, summed_up, told, weakest
from robust.claims.words import between, number
from robust.statistics import Interval

LONGEST = 5  # letters of an abbreviation: ECE, AUROC
Draws = npt.NDArray[np.float64]


class Side(NamedTuple):
    """One side of a comparison: its name, and the metric of each of its networks.

    `draws` [B] is the mean over the networks in each bootstrap resample of the samples, and `samples` names them: sides
    with the same samples were resampled alike. None and empty where no resamples were kept.
    """

    name: str
    values: list[float]
    draws: Draws | None = None
    samples: str = ""


def against_bound(
    sides: Sequence[Side], metric: str, at_least: float | None, at_most: float | None, what: str
) -> Judgement:
    """The metric of each side against bounds: the intervals over seeds and over samples must keep them."""
    findings = []
    for side in sides:
        found, samples = mean_of(side.values), _over_samples(side)
        limits = _limits(samples, found)
        row = {"what": side.name, "metric": metric, "mean": found.estimate, **limits, "seeds": len(side.values)}
        text = f"{side.name} has {over_seeds(found, len(side.values))}"
        text += f", over samples {between(samples)}" if samples else ""
        verdicts = {judged(interval, at_least, at_most) for interval in (samples or found, found)}
        verdict: Verdict = verdicts.pop() if len(verdicts) == 1 else "partly"
        findings.append(Finding(verdict, found.estimate, limits["low"], limits["high"], text, row))
    critical = weakest(findings) if at_most is None else max(findings, key=lambda finding: finding.effect)
    reason = f"Claimed is {named(metric)} {bound_words(at_least, at_most)}: {told(findings)}"
    return _judgement(findings, critical, reason, metric, what, min(len(side.values) for side in sides))


def against_others(
    sides: Sequence[Side], others: Sequence[Side], metric: str, at_least: float, larger_is_better: bool, what: str
) -> Judgement:
    """The gain of each side over its counterpart, positive for better: its intervals must exceed a bound."""
    findings = []
    for side, other in zip(sides, others):
        best, worst = (side, other) if larger_is_better else (other, side)
        gain, samples = gap_of(best.values, worst.values), _paired_over_samples(best, worst)
        means = [sum(values) / len(values) for values in (side.values, other.values)]
        row: dict[str, Any] = {"what": side.name, "than": other.name, "metric": metric, "value": means[0]}
        row |= {"other": means[1], "gain": gain.estimate, **_limits(samples, gain)}
        over = f"over samples {between(samples)}, " if samples else ""
        text = (
            f"{side.name} has {named(metric)} {number(means[0])} and {other.name} {number(means[1])}, a gain of "
            f"{number(gain.estimate)} ({over}over seeds {between(gain)})"
        )
        verdict = beyond(gain.estimate, (samples or gain).low, gain.low, at_least)
        findings.append(Finding(verdict, gain.estimate, row["low"], row["high"], text, row))
    seeds = min(len(side.values) for side in (*sides, *others))
    return _judgement(findings, weakest(findings), told(findings), metric, what, seeds)


def _over_samples(side: Side) -> Interval | None:
    return None if side.draws is None else _interval(sum(side.values) / len(side.values), side.draws)


def _paired_over_samples(first: Side, second: Side) -> Interval | None:
    """The paired bootstrap interval of first - second; None unless both were judged on the same samples."""
    if first.draws is None or second.draws is None or first.samples != second.samples:
        return None
    gap = sum(first.values) / len(first.values) - sum(second.values) / len(second.values)
    return _interval(gap, first.draws - second.draws)


def _interval(estimate: float, draws: Draws) -> Interval | None:
    """None if no resample defines the metric, such as the confidence on errors of a network that makes none."""
    kept = draws[np.isfinite(draws)]
    return Interval(estimate, *centred_interval(estimate, kept)) if len(kept) else None


def _limits(samples: Interval | None, seeds: Interval) -> dict[str, float | None]:
    """The interval that a table shows, that over samples where it is known, and that over seeds beside it."""
    shown = samples or seeds
    row = {"low": limit(shown.low), "high": limit(shown.high)}
    return row if samples is None else {**row, "seeds_low": limit(seeds.low), "seeds_high": limit(seeds.high)}


def _judgement(
    findings: Sequence[Finding], critical: Finding, reason: str, metric: str, what: str, seeds: int
) -> Judgement:
    return summed_up(findings, reason=reason, critical=critical, unit=named(metric), attack=what, seeds=seeds)


def named(metric: str) -> str:
    """A metric in words: ECE, confidence errors."""
    return metric.upper() if len(metric) <= LONGEST else metric.replace("_", " ")
