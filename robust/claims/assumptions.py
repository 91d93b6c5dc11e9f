"""A list of yes-or-no conditions of a theorem, as found in the networks at hand."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from robust.claims.claim import Evidence, Judgement, Verdict
from robust.claims.evidence import Absent, Groups
from robust.claims.quantity import Measure, Quantity
from robust.claims.weighed import Weighed
from robust.claims.words import listed


class Assumptions(Weighed):
    """The conditions that a theory asks for are met by these networks.

    Each condition is a measured quantity, met where its value is at least 1/2 (1 yes, 0 no) in every network of the
    group. The claim holds if all are met, fails if none is, and is partly true otherwise; a condition that was not
    measured stands in the table as such, and lets the claim hold no more than partly.
    """

    name = "assumptions"
    family = "theory"
    source = "Lyu & Li 2020, arXiv 1906.05890, section 3"

    groups: Groups = Field(min_length=1, description="the groups whose networks are to meet the conditions")
    quantities: tuple[Quantity, ...] = Field(min_length=1, description="the conditions, each a quantity of 1 or 0")

    def weigh(self, evidence: Evidence) -> Judgement:
        """The share of conditions that are met."""
        rows = [self._row(evidence, group, quantity) for group in self.groups for quantity in self.quantities]
        known = [row for row in rows if row["met"] is not None]
        if not known:
            raise Absent(f"none of {listed([str(q) for q in self.quantities])} was measured")
        failed = [f"{row['condition']} ({row['group']})" for row in known if not row["met"]]
        unknown = [f"{row['condition']} ({row['group']})" for row in rows if row["met"] is None]
        parts = [f"{len(known) - len(failed)} of {len(known)} measured conditions are met"]
        parts += [f"not met: {listed(failed)}"] if failed else []
        parts += [f"not measured: {listed(unknown)}"] if unknown else []
        return Judgement(
            verdict=_verdict(len(known), len(failed), len(unknown)),
            reason="; ".join(parts) + ".",
            effect=(len(known) - len(failed)) / len(known),
            unit="share of conditions met",
            seeds=min(row["networks"] for row in known),
            rows=rows,
        )

    def _row(self, evidence: Evidence, group: str, quantity: Measure) -> dict[str, Any]:
        row: dict[str, Any] = {"group": group, "condition": str(quantity), "met": None, "networks": 0}
        try:
            values = quantity.values(evidence, group)
        except Absent:
            return row
        return row | {"met": bool((values >= 0.5).all()), "networks": len(values)}


def _verdict(known: int, failed: int, unknown: int) -> Verdict:
    if failed == known:
        return "fails"
    return "partly" if failed or unknown else "holds"
