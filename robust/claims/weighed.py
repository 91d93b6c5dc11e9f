"""What claims have in common: what is absent makes them untested, several comparisons make one verdict, doubt tempers.

`Compared` adds the gate of fair comparisons: no verdict unless all networks are accurate, and about equally so, on
clean images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field

from robust.claims.claim import Claim, Evidence, Judgement, Verdict
from robust.claims.evidence import Absent, Evaluation, Groups, doubts, right
from robust.claims.words import listed, percent

MOST_ROWS = 40  # of the small table under a claim


@dataclass(frozen=True)
class Finding:
    """One comparison of a claim: its verdict, the measured effect with its interval, and its row of the table."""

    verdict: Verdict
    effect: float
    low: float | None
    high: float | None
    text: str
    row: dict[str, Any] = field(default_factory=dict)


class Weighed(Claim):
    """Base of the claims that weigh evidence: where it is absent the claim is untested, and says why."""

    def judge(self, evidence: Evidence) -> Judgement:
        """The verdict of `weigh`; untested where the study lacks what it asks for."""
        try:
            return self.weigh(evidence)
        except Absent as absence:
            return Judgement("untested", f"Not tested: {absence}.")

    @abstractmethod
    def weigh(self, evidence: Evidence) -> Judgement:
        """The verdict.

        Raises:
            Absent: naming what the study lacks.
        """


class Compared(Weighed):
    """Base of the claims that compare networks, which is fair only among accurate ones."""

    clean: Evaluation = Field(default="clean", description="the evaluation on unchanged images, for the gate")
    clean_at_least: float = Field(default=0.0, ge=0, le=1, description="clean accuracy that every group must reach")
    clean_within: float = Field(default=1.0, ge=0, le=1, description="largest difference in clean accuracy, a fraction")
    clean_of: Groups = Field(default=(), description="further groups that must pass the gate, beside those compared")

    def gate(self, evidence: Evidence, groups: Iterable[str]) -> None:
        """Refuse to compare networks that are not accurate, or not equally so; groups count by their mean over seeds.

        Raises:
            Absent: naming the group that fails.
        """
        if self.clean_at_least == 0 and self.clean_within == 1:
            return
        wanted = dict.fromkeys([*groups, *self.clean_of])
        found = {group: float(right(evidence, group, [self.clean]).to_numpy().mean()) for group in wanted}
        least, most = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
        if found[least] < self.clean_at_least:
            raise Absent(
                f"{least} is {percent(found[least])} clean, and no verdict is given below "
                f"{percent(self.clean_at_least)}"
            )
        if found[most] - found[least] > self.clean_within + 1e-9:  # shares of samples are not exact in binary
            raise Absent(
                f"{most} is {percent(found[most])} clean and {least} {percent(found[least])}: more than "
                f"{100 * self.clean_within:g} points apart, so no verdict is given"
            )


def joint(findings: Sequence[Finding]) -> Verdict:
    """One verdict of several comparisons: holds if each holds, fails if each fails, partly otherwise.

    "Each holds" needs no correction for their number: the chance that all hold by luck is below that of any one.
    """
    verdicts = {finding.verdict for finding in findings}
    return verdicts.pop() if len(verdicts) == 1 else "partly"


def weakest(findings: Sequence[Finding]) -> Finding:
    """The comparison with the least effect, which a claim about all of them rests on."""
    return min(findings, key=lambda finding: finding.effect)


def told(findings: Sequence[Finding], most: int = 3) -> str:
    """The comparisons in one sentence, the weakest first."""
    texts = [finding.text for finding in sorted(findings, key=lambda finding: finding.effect)]
    more = f"; {len(texts) - most} more in the table" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more + "."


def summed_up(
    findings: Sequence[Finding],
    *,
    unit: str,
    attack: str | None,
    seeds: int,
    cost: float | None = None,
    reason: str = "",
    critical: Finding | None = None,
) -> Judgement:
    """One judgement of several comparisons: its effect and interval are those of the critical one.

    Args:
        reason: what stands for the sentence of all comparisons (`told`).
        critical: the comparison that the claim rests on; the one with the least effect when None.
    """
    least = critical or weakest(findings)
    return Judgement(
        verdict=joint(findings),
        reason=reason or told(findings),
        effect=least.effect,
        low=least.low,
        high=least.high,
        unit=unit,
        attack=attack,
        seeds=seeds,
        cost=cost,
        rows=[finding.row for finding in findings],
    )


def tempered(judgement: Judgement, evidence: Evidence, groups: Iterable[str], under: Sequence[str]) -> Judgement:
    """`holds` becomes `partly` where an attack that it rests on is not trusted; the reason names it either way."""
    found = doubts(evidence, groups, under)
    if not found:
        return judgement
    verdict: Verdict = "partly" if judgement.verdict == "holds" else judgement.verdict
    return replace(judgement, verdict=verdict, reason=f"{judgement.reason[:-1]}; but {listed(found, 2)}.")
