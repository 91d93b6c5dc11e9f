"""Accuracy tables: every model under every evaluation, the worst case over attacks of one threat, and means over seeds.

The worst case at (norm, eps) is an AND over the rows of all attacks with that norm and eps: a sample counts as right
only if no attack is known to break it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from robust.report.cells import Cells, Key, Plan, ReportError
from robust.report.document import SEVERITY, EvaluationRow, GroupRow, Verdict
from robust.seeds import t_interval, variance_components
from robust.statistics import wilson

WORST = "worst-case"
UNCHECKED = "no validity checks were run for this number"


def worst_label(norm: str, eps: str) -> str:
    """How the worst case over attacks of one threat is called: `worst-case linf 8/255`."""
    return f"{WORST} {norm} {eps}"


@dataclass(frozen=True)
class Outcomes:
    """Right and wrong of every model under every evaluation and worst case, with the verdicts given."""

    cells: Cells
    plan: Plan
    verdicts: Mapping[Key, tuple[Verdict, list[str]]]
    members: Mapping[str, list[str]] = field(default_factory=dict)  # worst-case label -> labels of its attacks

    @property
    def labels(self) -> list[str]:
        """Every evaluation, and every worst case, in the order of the tables."""
        return [row["label"] for row in self.plan.evaluations] + list(self.members)

    def present(self, model: str, label: str) -> list[Key]:
        """The ledger's cells behind a label: one for an evaluation, several for a worst case."""
        keys = [(model, member) for member in self.members.get(label, [label])]
        return [key for key in keys if key in self.cells]

    def correct(self, model: str, label: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Sample ids [N] and right-or-wrong [N]; for a worst case on the samples that all its attacks judged."""
        samples, outcomes = align(self.cells, self.present(model, label))
        return samples, np.logical_and.reduce(outcomes, axis=0)

    def verdict(self, model: str, label: str) -> tuple[Verdict, list[str]]:
        """The verdict given; without one an attack is suspect, and a worst case as suspect as its worst member.

        The doubt that an attack is too weak is settled where an iterated gradient attack of the same threat is trusted
        and leaves no more right: the worst case then rests on that one.
        """
        if (model, label) in self.verdicts:
            return self.verdicts[model, label]
        if label in self.members:
            members = self.present(model, label)
            found = [(self.verdict(*key), key[1]) for key in members if not self._settled(key, members)]
            worst = worst_of(verdict for (verdict, _), _ in found)
            reasons = [f"{name}: {reason}" for (verdict, rs), name in found if verdict == worst for reason in rs]
            return worst, list(dict.fromkeys(reasons))
        return ("suspect", [UNCHECKED]) if self.plan.by_label[label]["norm"] else ("trusted", [])

    def _settled(self, doubted: Key, members: Sequence[Key]) -> bool:
        """Whether a trusted gradient attack left no more right, on shared samples, than a doubted one."""
        if self.verdict(*doubted)[0] == "trusted":
            return False
        for key in members:
            if self.plan.by_label[key[1]].get("strength") == "gradient" and self.verdict(*key)[0] == "trusted":
                _, (left, doubtful) = align(self.cells, [key, doubted])
                if len(left) and left.sum() <= doubtful.sum():
                    return True
        return False


def worst_of(verdicts: Iterable[Verdict]) -> Verdict:
    """The most severe verdict; trusted if there is none."""
    return SEVERITY[max((SEVERITY.index(verdict) for verdict in verdicts), default=0)]


def collect(cells: Cells, plan: Plan, verdicts: Iterable[Mapping[str, Any]]) -> Outcomes:
    """Join ledger, study and verdicts; a threat gets a worst case if it has a size and at least one attack."""
    members = {worst_label(norm, eps): labels for (norm, eps), labels in plan.threats().items() if eps}
    given: dict[Key, tuple[Verdict, list[str]]] = {}
    for row in verdicts:
        if row.get("verdict") not in SEVERITY:
            raise ReportError(f"a verdict is one of {', '.join(SEVERITY)}, got {row.get('verdict')!r}")
        label = row["evaluation"]
        if label == WORST:
            label = worst_label(row["norm"], row["eps"])
        given[row["model"], label] = (row["verdict"], list(row.get("reasons", [])))
    return Outcomes(cells, plan, given, members)


def align(cells: Cells, keys: Sequence[Key]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Sample ids [N] that all cells judged, and right-or-wrong [len(keys),N] on them."""
    if not keys:
        return np.zeros(0, np.int64), np.zeros((0, 0), bool)
    ids = [cells.samples(key) for key in keys]
    if all(np.array_equal(ids[0], other) for other in ids[1:]):
        return ids[0], np.stack([cells.correct(key) for key in keys])
    common = ids[0]
    for other in ids[1:]:
        common = np.intersect1d(common, other, assume_unique=True)
    rows = [cells.correct(key)[np.searchsorted(own, common)] for key, own in zip(keys, ids)]
    return common, np.stack(rows)


def evaluation_rows(outcomes: Outcomes) -> list[EvaluationRow]:
    """One row for each evaluation that the ledger holds of each model."""
    return [
        _row(outcomes, model["id"], entry["label"], entry["name"], entry["norm"], entry["eps"])
        for model in outcomes.plan.models
        for entry in outcomes.plan.evaluations
        if (model["id"], entry["label"]) in outcomes.cells
    ]


def worst_case_rows(outcomes: Outcomes) -> list[EvaluationRow]:
    """One row for each threat of each model."""
    return [
        _row(outcomes, model["id"], label, WORST, *label.removeprefix(WORST + " ").split(" ", 1))
        for model in outcomes.plan.models
        for label in outcomes.members
        if outcomes.present(model["id"], label)
    ]


def _row(outcomes: Outcomes, model: str, label: str, name: str, norm: str | None, eps: str | None) -> EvaluationRow:
    _, right = outcomes.correct(model, label)
    low, high = wilson(right.sum(), len(right))
    verdict, reasons = outcomes.verdict(model, label)
    frames = [outcomes.cells[key] for key in outcomes.present(model, label)]
    cost = {c: int(sum(frame[c].fillna(0).sum() for frame in frames)) for c in ("forward", "backward", "queries")}
    unbounded = norm is not None and eps is None  # at a fixed size the distance is that size
    distances = [frame["distance"].to_numpy(float) for frame in frames] if unbounded else []
    quantised = frames[0]["quantised"] if norm and len(frames) == 1 else None
    return EvaluationRow(
        model=model,
        name=name,
        label=label,
        norm=norm,
        eps=eps,
        n=len(right),
        correct=int(right.sum()),
        accuracy=float(right.mean()) if len(right) else 0.0,
        low=float(low),
        high=float(high),
        verdict=verdict,
        reasons=reasons,
        quantised=None if quantised is None or quantised.isna().all() else int(quantised.fillna(False).sum()),
        median_distance=_median(distances),
        members=outcomes.members.get(label, []),
        **cost,
    )


def _median(distances: list[npt.NDArray[np.float64]]) -> float | None:
    """Median distance of a smallest-distance attack; None for all others, and where it is infinite."""
    if not distances or len(distances[0]) == 0 or np.isnan(distances[0]).any():
        return None
    median = float(np.quantile(distances[0], 0.5, method="inverted_cdf"))
    return median if np.isfinite(median) else None


def matrix(outcomes: Outcomes, models: Sequence[str], label: str) -> tuple[npt.NDArray[np.int64], npt.NDArray]:
    """Sample ids [N] and right-or-wrong [S,N] of several models under one label, on the samples they share."""
    found = [outcomes.correct(model, label) for model in models if outcomes.present(model, label)]
    if not found:
        return np.zeros(0, np.int64), np.zeros((0, 0), bool)
    common = found[0][0]
    for samples, _ in found[1:]:
        if not np.array_equal(common, samples):
            common = np.intersect1d(common, samples, assume_unique=True)
    return common, np.stack([right[np.searchsorted(samples, common)] for samples, right in found])


def group_rows(outcomes: Outcomes) -> list[GroupRow]:
    """Mean over seeds of each group (model.objective) under each label, with Student's interval over seeds."""
    rows = []
    for group, models in outcomes.plan.groups.items():
        for label in outcomes.labels:
            _, right = matrix(outcomes, models, label)
            if right.size == 0:
                continue
            over_seeds = t_interval(right.mean(1))
            parts = variance_components(right) if min(right.shape) > 1 else None
            entry = outcomes.plan.by_label.get(label, {})
            norm, eps = _threat(label) if label in outcomes.members else (entry.get("norm"), entry.get("eps"))
            present = [m for m in models if outcomes.present(m, label)]
            rows.append(
                GroupRow(
                    group=group,
                    label=label,
                    norm=norm,
                    eps=eps,
                    seeds=len(right),
                    mean=over_seeds.estimate,
                    low=_limit(over_seeds.low, len(right)),
                    high=_limit(over_seeds.high, len(right)),
                    least=float(right.mean(1).min()),
                    most=float(right.mean(1).max()),
                    seeds_error=parts.seeds_error if parts else None,
                    samples_error=parts.samples_error if parts else None,
                    verdict=worst_of(outcomes.verdict(m, label)[0] for m in present),
                )
            )
    return rows


def _threat(label: str) -> tuple[str, str]:
    norm, eps = label.removeprefix(WORST + " ").split(" ", 1)
    return norm, eps


def _limit(value: float, seeds: int) -> float | None:
    return min(1.0, max(0.0, value)) if seeds > 1 else None
