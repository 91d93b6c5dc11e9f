"""An order of several groups, each neighbour pair put to a paired test."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import stats

from robust.claims.claim import Evidence, Judgement, Verdict
from robust.claims.distance_ratio import medians
from robust.claims.evidence import Evaluations, Groups, Matrix, attack_words, distances, paired, passes, right
from robust.claims.weighed import Compared, tempered
from robust.claims.words import number, percent
from robust.seeds import difference, welch
from robust.statistics import holm

LEVEL = 0.05


class Order(Compared):
    """Groups stand in a given order, worst first, in accuracy or in median distance.

    Each neighbour pair is compared on the same samples (accuracy: McNemar's mid-p, or a paired t-test on the means over
    seeds; distance: Wilcoxon's signed-rank test on the medians over seeds, with infinity as the farthest), p corrected
    for the number of pairs (Holm), and over seeds (Welch, on the logarithms for distances). The claim holds if every
    pair stands in the order beyond both; it fails if a pair stands in the opposite order beyond its samples, or if no
    pair stands in the order beyond them; partly otherwise: ties.
    """

    name = "order"
    family = "comparison"
    source = (
        "McNemar 1947, Psychometrika 12; Wilcoxon 1945, Biometrics Bulletin 1; "
        "Holm 1979, Scandinavian Journal of Statistics 6"
    )

    groups: Groups = Field(min_length=2, description="the groups, the least robust first")
    under: Evaluations = Field(description="evaluations; of several, the worst case of each sample")
    by: Literal["accuracy", "distance"] = Field(default="accuracy", description="what orders them")

    def weigh(self, evidence: Evidence) -> Judgement:
        """The order, pair by pair."""
        self.gate(evidence, self.groups)
        read, test = (right, _accuracies) if self.by == "accuracy" else (distances, _distances)
        tables = [read(evidence, group, self.under) for group in self.groups]
        found = [test(*paired(upper, lower)) for lower, upper in pairwise(tables)]
        corrected = holm([p for _, p, _ in found])
        rows = [
            {"lower": lower, "upper": upper, "effect": effect, "p_holm": float(p), "beyond_seeds": beyond_seeds,
             "finding": _finding(effect, float(p))}
            for lower, upper, (effect, _, beyond_seeds), p in zip(self.groups, self.groups[1:], found, corrected)
        ]  # fmt: skip
        least = min(float(effect) for effect, *_ in found)
        shown = [self._shown(group, table.to_numpy(float)) for group, table in zip(self.groups, tables)]
        pairs = "; ".join(f"{r['upper']} over {r['lower']}: {r['finding']}, p {r['p_holm']:.2g}" for r in rows)
        judgement = Judgement(
            verdict=_verdict(rows),
            reason=f"{' < '.join(shown)} was claimed: {pairs}.",
            effect=100 * least if self.by == "accuracy" else least,
            unit="points" if self.by == "accuracy" else "distance",
            attack=attack_words(evidence, self.under),
            seeds=min(len(table) for table in tables),
            cost=passes(evidence, self.groups, self.under),
            rows=rows,
        )
        return tempered(judgement, evidence, self.groups, self.under)

    def _shown(self, group: str, table: Matrix) -> str:
        if self.by == "accuracy":
            return f"{group} ({percent(table.mean())})"
        return f"{group} ({number(float(medians(table).mean()))})"


def _accuracies(upper: Matrix, lower: Matrix) -> tuple[float, float, bool]:
    """Difference of accuracy, p over samples, and whether it exceeds the variation over seeds."""
    gap = difference(upper, lower)
    return gap.effect, gap.p, gap.seeds is not None and gap.seeds.excludes_zero()


def _distances(upper: Matrix, lower: Matrix) -> tuple[float, float, bool]:
    """Difference of median distance, p over samples, and whether it exceeds the variation over seeds."""
    finite = [table[np.isfinite(table)].max(initial=0.0) for table in (upper, lower)]
    cap = 2 * max(finite) or 1.0  # not broken: farther than whatever was
    a, b = (np.minimum(table, cap) for table in (upper, lower))
    gaps = np.median(a, axis=0) - np.median(b, axis=0)
    p = float(stats.wilcoxon(gaps, zero_method="zsplit").pvalue) if gaps.any() else 1.0
    first, second = medians(a), medians(b)
    over_seeds = welch(np.log(first), np.log(second)) if min(first.min(), second.min()) > 0 else None
    return float(first.mean() - second.mean()), p, over_seeds is not None and over_seeds.excludes_zero()


def _finding(effect: float, p: float) -> str:
    if p > LEVEL or effect == 0:
        return "a tie"
    return "as claimed" if effect > 0 else "reversed"


def _verdict(rows: list[dict[str, object]]) -> Verdict:
    found = [row["finding"] for row in rows]
    if "reversed" in found or "as claimed" not in found:
        return "fails"
    return "holds" if set(found) == {"as claimed"} and all(row["beyond_seeds"] for row in rows) else "partly"
