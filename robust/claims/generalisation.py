"""Whether training against one attack helps against others: the matrix of train attacks and test attacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field, model_validator

from robust.claims.accuracy_gap import beyond
from robust.claims.claim import Evidence, Judgement
from robust.claims.evidence import Evaluations, Groups, attack_words, paired, passes, right
from robust.claims.weighed import Compared, Finding, summed_up, tempered
from robust.claims.words import between_points, points
from robust.seeds import difference


class Generalisation(Compared):
    """Networks trained against an attack gain accuracy under attacks that they did not see.

    Each group of `trained` is compared with its counterpart of `baseline` (one for all, or one each) under each of
    `seen` and `unseen`; a cell gains if the difference lies above `at_least` beyond both variations, of samples and of
    seeds. The claim is about the unseen cells: it holds if each gains, fails if none does, partly otherwise. The effect
    is the smallest gain, in points; the table is the whole matrix.
    """

    name = "generalisation"
    family = "comparison"
    source = "Efron 1979, Annals of Statistics 7(1); Welch 1947, Biometrika 34"

    trained: Groups = Field(min_length=1, description="the groups trained against an attack")
    baseline: Groups = Field(min_length=1, description="the same networks trained without it: one for all, or one each")
    seen: Evaluations = Field(description="evaluations by the attack of the training")
    unseen: Evaluations = Field(description="evaluations by other attacks, each a cell of its own")
    at_least: float = Field(default=0.0, ge=0, le=1, description="the gain claimed of each cell, a fraction")

    @model_validator(mode="after")
    def _counterparts(self) -> Generalisation:
        if len(self.baseline) not in (1, len(self.trained)):
            raise ValueError("'baseline' names one group for all of 'trained', or one for each")
        return self

    def weigh(self, evidence: Evidence) -> Judgement:
        """The gain in each cell of the matrix."""
        baselines = self.baseline * len(self.trained) if len(self.baseline) == 1 else self.baseline
        groups = [*self.trained, *self.baseline]
        self.gate(evidence, groups)
        cells = {
            label: [self._cell(evidence, group, base, label) for group, base in zip(self.trained, baselines)]
            for label in dict.fromkeys([*self.seen, *self.unseen])
        }
        findings = [finding for label in self.unseen for finding in cells[label]]
        judgement = summed_up(
            findings,
            unit="points",
            attack=attack_words(evidence, self.unseen),
            seeds=min(finding.row["seeds"] for finding in findings),
            cost=passes(evidence, groups, self.unseen),
        )
        rows = [finding.row for row in cells.values() for finding in row]
        return tempered(replace(judgement, rows=rows), evidence, groups, self.unseen)

    def _cell(self, evidence: Evidence, group: str, baseline: str, label: str) -> Finding:
        tables = [right(evidence, name, [label]) for name in (group, baseline)]
        first, second = paired(*tables)
        gap = difference(first, second)
        verdict = beyond(gap.effect, gap.samples.low, gap.seeds.low if gap.seeds else None, self.at_least)
        row: dict[str, Any] = {
            "trained": group,
            "under": label,
            "seen": label in self.seen,
            "accuracy": float(first.mean()),
        }
        row |= {"baseline": float(second.mean()), "points": 100 * gap.effect, "low": 100 * gap.samples.low}
        row |= {"high": 100 * gap.samples.high, "seeds": min(len(table) for table in tables)}
        text = (
            f"{group} gains {points(gap.effect)} on {baseline} under {label} (over samples "
            f"{between_points(gap.samples)}, over seeds {between_points(gap.seeds)})"
        )
        return Finding(verdict, row["points"], row["low"], row["high"], text, row)
