"""Drops: whether a model that is watched has become worse than it was, by more than chance.

On the same data a model's attacks are drawn anew, and each sample is its own control (McNemar's mid-p and the paired
bootstrap). On new data the samples are other ones, so two proportions are compared: Fisher's exact test and Newcombe's
interval. All p-values are corrected together (Holm), so that many evaluations raise no more false alarms than one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from robust.pairing import Judged, NotComparable, paired_gap
from robust.statistics import Interval, holm, wilson

Right = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Drop:
    """One evaluation then and now. `fall` is accuracy then less accuracy now, with its interval at 1 - alpha."""

    label: str
    paired: bool
    n: tuple[int, int]
    accuracy: tuple[float, float]
    fall: Interval
    p: float
    lost: int | None = None
    won: int | None = None
    p_holm: float = 1.0
    alpha: float = 0.01

    @property
    def raised(self) -> bool:
        """Whether accuracy fell by more than chance: corrected p at most alpha, and an interval above 0."""
        return self.p_holm <= self.alpha and self.fall.low > 0

    def row(self) -> dict[str, Any]:
        """The comparison as plain data."""
        return {
            "label": self.label, "paired": self.paired, "n_before": self.n[0], "n_now": self.n[1],
            "before": self.accuracy[0], "now": self.accuracy[1],
            "drop": self.fall.estimate, "low": self.fall.low, "high": self.fall.high,
            "lost": self.lost, "won": self.won, "p": self.p, "p_holm": self.p_holm, "raised": self.raised,
        }  # fmt: skip


def drops(before: Judged, now: Judged, model: str, alpha: float = 0.01, seed: int = 0) -> list[Drop]:
    """Every evaluation and worst case that both ledgers hold of a model.

    Args:
        before, now: what the model's last ledger says, and what a fresh one says.
        model: its id in both.
        alpha: chance of one false alarm or more in a look, in (0,1).
        seed: of the bootstrap.

    Raises:
        NotComparable: if they share no evaluation.
    """
    same = before.report["dataset"]["digest"] == now.report["dataset"]["digest"]
    labels = [label for label in before.labels if label in now.labels]
    pairs = [
        (label, before.outcomes.correct(model, label), now.outcomes.correct(model, label))
        for label in labels
        if before.outcomes.present(model, label) and now.outcomes.present(model, label)
    ]
    found = [(_paired if same else _unpaired)(label, then, after, alpha, seed) for label, then, after in pairs]
    if not found:
        raise NotComparable(f"{model} has no evaluation in common with its last ledger")
    corrected = holm([drop.p for drop in found])
    return [Drop(**{**drop.__dict__, "p_holm": float(p)}) for drop, p in zip(found, corrected)]


def newcombe(first: tuple[int, int], second: tuple[int, int], level: float = 0.95) -> Interval:
    """Interval of p1 - p2 of two independent proportions, from their Wilson limits.

    Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, method 10: with d = p1 - p2,
    low = d - sqrt((p1 - l1)^2 + (u2 - p2)^2) and high = d + sqrt((u1 - p1)^2 + (p2 - l2)^2).

    Args:
        first, second: successes and trials of each, trials >= 1.
        level: confidence level.
    """
    (a, n), (b, m) = first, second
    lows, highs = wilson([a, b], [n, m], level)
    p, q = a / n, b / m
    low = p - q - math.hypot(p - float(lows[0]), float(highs[1]) - q)
    high = p - q + math.hypot(float(highs[0]) - p, q - float(lows[1]))
    return Interval(p - q, low, high)


def _paired(label: str, before: Right, now: Right, alpha: float, seed: int) -> Drop:
    found = paired_gap(now, before, seed, 1 - alpha)
    if found is None:
        raise NotComparable(f"{label}: the last ledger and the new one share no sample")
    ids, after, then, gap = found
    lost, won = int((then & ~after).sum()), int((~then & after).sum())
    accuracy = (float(then.mean()), float(after.mean()))
    return Drop(label, True, (len(ids), len(ids)), accuracy, gap.samples, gap.p, lost, won, alpha=alpha)


def _unpaired(label: str, before: Right, now: Right, alpha: float, seed: int) -> Drop:
    counts = [(int(right.sum()), len(right)) for _, right in (before, now)]
    (a, n), (b, m) = counts
    p = float(stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue)
    fall = newcombe(counts[0], counts[1], 1 - alpha)
    return Drop(label, False, (n, m), (a / n, b / m), fall, p, alpha=alpha)
