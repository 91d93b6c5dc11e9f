"""A measured quantity of some networks against a bound."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from robust.claims.bounds import bound_words, judged, limit, mean_of, over_seeds
from robust.claims.claim import Evidence, Judgement
from robust.claims.evidence import Groups, attack_words, passes
from robust.claims.quantity import Quantity
from robust.claims.weighed import Finding, Weighed, summed_up, tempered, told
from robust.statistics import Interval


class MeasuredBound(Weighed):
    """A quantity that a diagnostic, the training or the ledger holds keeps a bound.

    The claim holds if the 95 % interval of the mean over seeds (Student) keeps the bound; partly if only the mean does;
    else it fails. A fact that no training changes, such as a number of parameters, is `fixed`: its value decides. Of
    several groups all must hold.
    """

    name = "measured"
    family = "bound"
    source = "Student 1908, Biometrika 6"

    groups: Groups = Field(min_length=1, description="the groups whose networks were measured")
    quantity: Quantity = Field(description="the quantity: its name, or name, diagnostic, of, at, epoch, under")
    at_least: float | None = Field(default=None, description="lower bound, in the quantity's unit")
    at_most: float | None = Field(default=None, description="upper bound, in the quantity's unit")
    unit: str = Field(default="", max_length=20, description="the quantity's unit, as the report prints it")
    fixed: bool = Field(default=False, description="a fact that is the same for every seed")

    @model_validator(mode="after")
    def _bounded(self) -> MeasuredBound:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a claim 'measured' needs 'at_least', 'at_most' or both")
        return self

    def weigh(self, evidence: Evidence) -> Judgement:
        """The mean of the group nearest to, or farthest beyond, its bound."""
        findings, seeds = [], []
        for group in self.groups:
            values = self.quantity.values(evidence, group)
            seeds.append(len(values))
            findings.append(self._finding(group, mean_of(values.tolist()), values.tolist()))
        critical = min(findings, key=self._room)
        under = self.quantity.under
        judgement = summed_up(
            findings,
            reason=f"Claimed is {self.quantity} {bound_words(self.at_least, self.at_most)}: {told(findings)}",
            critical=critical,
            unit=self.unit,
            attack=attack_words(evidence, under) or None,
            seeds=min(seeds),
            cost=passes(evidence, self.groups, under) if under else None,
        )
        return tempered(judgement, evidence, self.groups, under) if under else judgement

    def _finding(self, group: str, found: Interval, values: list[float]) -> Finding:
        if self.fixed:
            found = Interval(found.estimate, min(values), max(values))
        low, high = limit(found.low), limit(found.high)
        row: dict[str, Any] = {
            "group": group,
            "quantity": str(self.quantity),
            "mean": found.estimate,
            "low": low,
            "high": high,
        }
        row |= {"least": min(values), "most": max(values), "seeds": len(values)}
        text = f"{group} has {over_seeds(found, len(values))}"
        return Finding(judged(found, self.at_least, self.at_most), found.estimate, low, high, text, row)

    def _room(self, finding: Finding) -> float:
        """How far the estimate lies inside its bounds; negative outside."""
        rooms = [finding.effect - self.at_least] if self.at_least is not None else []
        rooms += [self.at_most - finding.effect] if self.at_most is not None else []
        return min(rooms)
