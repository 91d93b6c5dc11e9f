"""Two ledgers side by side: which samples flipped under each shared evaluation, and whether chance explains it.

The same sample judged twice is a pair, so the tests are paired (McNemar's mid-p, the bootstrap of the differences) and
see changes that two separate intervals would hide. Worst cases over the attacks of one threat are compared as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robust.report.accuracy import Outcomes, collect
from robust.report.cells import Cells, Plan
from robust.seeds import Difference, difference
from robust.statistics import holm


class NotComparable(ValueError):  # noqa: N818 - reads as the message it is
    """Two ledgers share no sample under any evaluation."""


@dataclass(frozen=True)
class Judged:
    """One report with its ledger: what was right, of every model under every evaluation and worst case."""

    report: Mapping[str, Any]
    rows: pa.Table
    outcomes: Outcomes

    @classmethod
    def of(cls, report: Mapping[str, Any], rows: pa.Table) -> Judged:
        """A report.json and the ledger it was made from.

        Raises:
            ReportError: if they do not belong together.
        """
        evaluations = {row["label"]: row for row in report["evaluations"]}
        cells = Cells(rows)
        plan = Plan({"models": report["models"], "evaluations": list(evaluations.values())}, cells)
        return cls(report, rows, collect(cells, plan, ()))

    @property
    def labels(self) -> list[str]:
        """Every evaluation and worst case; not that over a single attack, which says the same twice."""
        members = self.outcomes.members
        return [label for label in self.outcomes.labels if len(members.get(label, ())) != 1]

    def threat(self, label: str) -> tuple[str | None, str | None]:
        """Norm and eps behind a label; (None, None) for what is no attack."""
        member = self.outcomes.members.get(label, [label])[0]
        entry = self.outcomes.plan.by_label[member]
        return entry["norm"], entry["eps"]


@dataclass(frozen=True)
class Flips:
    """One evaluation of one pair of models, on the samples that both judged.

    `gap.effect` is the accuracy of the second less that of the first, with its bootstrap interval; `lost` and `won`
    are the ids of the samples that only the first, and only the second, got right; `p_holm` is corrected for all
    comparisons made together.
    """

    first: str
    second: str
    label: str
    n: int
    accuracy: tuple[float, float]
    gap: Difference
    lost: tuple[int, ...]
    won: tuple[int, ...]
    p_holm: float = 1.0

    @property
    def larger_than_chance(self) -> bool:
        """Whether the corrected test and the interval both leave no room for no difference, at 5 %."""
        return self.p_holm <= 0.05 and self.gap.samples.excludes_zero()

    def row(self) -> dict[str, Any]:
        """The comparison as plain data."""
        return {
            "first": self.first, "second": self.second, "label": self.label, "n": self.n,
            "accuracy_first": self.accuracy[0], "accuracy_second": self.accuracy[1],
            "effect": self.gap.effect, "low": self.gap.samples.low, "high": self.gap.samples.high,
            "p": self.gap.p, "p_holm": self.p_holm, "larger_than_chance": self.larger_than_chance,
            "lost": list(self.lost), "won": list(self.won),
        }  # fmt: skip


def flips(first: Judged, second: Judged, seed: int = 0) -> list[Flips]:
    """Every shared evaluation of every pair of models, tested and corrected together (Holm).

    Models of the same id are paired; where two studies share none, each of the first with each of the second.

    Raises:
        NotComparable: if no evaluation shares a sample, or the shared samples are not the same images.
    """
    _refuse_other_data(first, second)
    labels = [label for label in first.labels if _shared(first, second, label)]
    found = [
        paired
        for mine, other in model_pairs(first, second)
        for label in labels
        if (paired := _paired(first, second, mine, other, label, seed)) is not None
    ]
    if not found:
        raise NotComparable("the two share no evaluation with the same label, threat and samples")
    corrected = holm([entry.gap.p for entry in found])
    return [Flips(**{**entry.__dict__, "p_holm": float(p)}) for entry, p in zip(found, corrected)]


def left_out(first: Judged, second: Judged) -> list[str]:
    """Labels that only one of the two has, or whose threat is another in each."""
    labels = dict.fromkeys((*first.labels, *second.labels))
    return [label for label in labels if not _shared(first, second, label)]


def model_pairs(first: Judged, second: Judged) -> list[tuple[str, str]]:
    """Which model is compared with which."""
    mine, other = ([str(row["id"]) for row in judged.report["models"]] for judged in (first, second))
    shared = [(name, name) for name in mine if name in other]
    return shared or [(a, b) for a in mine for b in other]


def paired_gap(
    first: tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]],
    second: tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]],
    seed: int = 0,
    level: float = 0.95,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], Difference] | None:
    """Shared sample ids [N], right-or-wrong [N] of each, and their difference (second - first); None without any."""
    common, own, other = np.intersect1d(first[0], second[0], assume_unique=True, return_indices=True)
    if not len(common):
        return None
    before, after = first[1][own], second[1][other]
    return common, before, after, difference(after, before, seed=seed, level=level)


def _paired(first: Judged, second: Judged, mine: str, other: str, label: str, seed: int) -> Flips | None:
    outcomes = [judged.outcomes for judged in (first, second)]
    if not (outcomes[0].present(mine, label) and outcomes[1].present(other, label)):
        return None
    found = paired_gap(outcomes[0].correct(mine, label), outcomes[1].correct(other, label), seed)
    if found is None:
        return None
    ids, before, after, gap = found
    return Flips(
        first=mine,
        second=other,
        label=label,
        n=len(ids),
        accuracy=(float(before.mean()), float(after.mean())),
        gap=gap,
        lost=tuple(int(sample) for sample in ids[before & ~after]),
        won=tuple(int(sample) for sample in ids[~before & after]),
    )


def _shared(first: Judged, second: Judged, label: str) -> bool:
    both = label in first.labels and label in second.labels
    return both and first.threat(label) == second.threat(label)


def _refuse_other_data(first: Judged, second: Judged) -> None:
    """Ids name the same images only within one published set; another order of it or a part of it is fine."""
    names = [judged.report["dataset"]["name"] for judged in (first, second)]
    if names[0] != names[1]:
        raise NotComparable(f"the two were judged on other data, {names[0]} and {names[1]}: no sample is shared")
    labels = [dict(zip(*(j.rows.column(c).to_pylist() for c in ("sample", "label")))) for j in (first, second)]
    shared = labels[0].keys() & labels[1].keys()
    if any(labels[0][sample] != labels[1][sample] for sample in shared):
        raise NotComparable(f"the two were judged on different versions of {names[0]}: shared ids have other labels")
