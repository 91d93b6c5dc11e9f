"""Metrics that have one value a network (ECE, AUROC): against a bound, or group against group, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from robust.claims.accuracy_gap import beyond
from robust.claims.bounds import bound_words, gap_of, judged, limit, mean_of, over_seeds
from robust.claims.claim import Judgement
from robust.claims.weighed import Finding, summed_up, told, weakest
from robust.claims.words import between, number


class Side(NamedTuple):
    """One side of a comparison: its name, and the metric of each of its networks."""

    name: str
    values: list[float]


def against_bound(
    sides: Sequence[Side], metric: str, at_least: float | None, at_most: float | None, what: str
) -> Judgement:
    """The metric of each side against bounds: the interval over seeds must keep them."""
    findings = []
    for name, values in sides:
        found = mean_of(values)
        row: dict[str, Any] = {"what": name, "metric": metric, "mean": found.estimate, "low": limit(found.low)}
        row |= {"high": limit(found.high), "seeds": len(values)}
        text = f"{name} has {over_seeds(found, len(values))}"
        verdict = judged(found, at_least, at_most)
        findings.append(Finding(verdict, found.estimate, row["low"], row["high"], text, row))
    critical = weakest(findings) if at_most is None else max(findings, key=lambda finding: finding.effect)
    reason = f"Claimed is {metric} {bound_words(at_least, at_most)}: {told(findings)}"
    return _judgement(findings, critical, reason, metric, what, min(len(side.values) for side in sides))


def against_others(
    sides: Sequence[Side], others: Sequence[Side], metric: str, at_least: float, larger_is_better: bool, what: str
) -> Judgement:
    """The gain of each side over its counterpart, positive for better: its interval over seeds must exceed a bound."""
    findings = []
    for side, other in zip(sides, others):
        pair = (side.values, other.values) if larger_is_better else (other.values, side.values)
        gain = gap_of(*pair)
        means = [sum(values) / len(values) for values in (side.values, other.values)]
        row: dict[str, Any] = {
            "what": side.name,
            "than": other.name,
            "metric": metric,
            "value": means[0],
            "other": means[1],
        }
        row |= {"gain": gain.estimate, "low": limit(gain.low), "high": limit(gain.high)}
        text = (
            f"{side.name} has {metric} {number(means[0])} and {other.name} {number(means[1])}, a gain of "
            f"{number(gain.estimate)} (over seeds {between(gain)})"
        )
        verdict = beyond(gain.estimate, gain.low, gain.low, at_least)
        findings.append(Finding(verdict, gain.estimate, row["low"], row["high"], text, row))
    seeds = min(len(side.values) for side in (*sides, *others))
    return _judgement(findings, weakest(findings), told(findings), metric, what, seeds)


def _judgement(
    findings: Sequence[Finding], critical: Finding, reason: str, metric: str, what: str, seeds: int
) -> Judgement:
    return summed_up(findings, reason=reason, critical=critical, unit=metric.upper(), attack=what, seeds=seeds)
