"""A difference in accuracy between groups of networks, on the same samples and over seeds."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from robust.claims.claim import Evidence, Judgement, Verdict
from robust.claims.evidence import Evaluations, Groups, attack_words, paired, passes, right
from robust.claims.weighed import Compared, Finding, summed_up, tempered
from robust.claims.words import between_points, counted, percent, points
from robust.seeds import Difference, difference


class AccuracyGap(Compared):
    """One group of networks is more accurate than another under an evaluation, or the worst of several.

    The effect is the mean difference of accuracy in points, paired on the same samples. The claim holds if the 95 %
    interval over samples (paired bootstrap) and that over seeds (Welch) both lie above `at_least`; partly if only the
    first does, or only the estimate; else it fails. Of lists of groups each `better` is compared with each `than`: all
    must hold.
    """

    name = "accuracy-gap"
    family = "comparison"
    source = "Efron 1979, Annals of Statistics 7(1); Welch 1947, Biometrika 34"

    better: Groups = Field(min_length=1, description="the groups that are claimed to be more accurate")
    than: Groups = Field(min_length=1, description="the groups that they are compared with")
    under: Evaluations = Field(description="evaluations; of several, a sample is right if it is right under all")
    at_least: float = Field(default=0.0, ge=-1, le=1, description="the difference claimed, a fraction: 0.05 = 5 points")

    def weigh(self, evidence: Evidence) -> Judgement:
        """The weakest pair's difference in points."""
        groups = (*self.better, *self.than)
        self.gate(evidence, groups)
        tables = {group: right(evidence, group, self.under) for group in groups}
        findings = []
        for first in self.better:
            for second in self.than:
                a, b = paired(tables[first], tables[second])
                findings.append(self._finding(first, second, difference(a, b), (a.mean(), b.mean()), a.shape[1]))
        judgement = summed_up(
            findings,
            unit="points",
            attack=attack_words(evidence, self.under),
            seeds=min(len(table) for table in tables.values()),
            cost=passes(evidence, groups, self.under),
        )
        return tempered(judgement, evidence, groups, self.under)

    def _finding(self, first: str, second: str, gap: Difference, means: tuple[float, float], n: int) -> Finding:
        seeds_low = gap.seeds.low if gap.seeds else None
        row: dict[str, Any] = {"first": first, "second": second, "n": n, "first_accuracy": float(means[0])}
        row |= {"second_accuracy": float(means[1]), "points": 100 * gap.effect, "low": 100 * gap.samples.low}
        row |= {"high": 100 * gap.samples.high, "seeds_low": 100 * gap.seeds.low if gap.seeds else None}
        row |= {"seeds_high": 100 * gap.seeds.high if gap.seeds else None, "p": gap.p}
        text = (
            f"{first} has {percent(means[0])} right and {second} {percent(means[1])} on {counted(n, 'sample')}, "
            f"{points(gap.effect)} (over samples {between_points(gap.samples)}, over seeds {between_points(gap.seeds)})"
        )
        if self.at_least:
            text += f" against the {100 * self.at_least:g} claimed"
        verdict = beyond(gap.effect, gap.samples.low, seeds_low, self.at_least)
        return Finding(verdict, 100 * gap.effect, row["low"], row["high"], text, row)


def beyond(effect: float, samples_low: float, seeds_low: float | None, bound: float) -> Verdict:
    """holds: above the bound beyond both variations; partly: only the estimate, or only over samples; else fails."""
    if effect <= bound:
        return "fails"
    return "holds" if samples_low > bound and seeds_low is not None and seeds_low > bound else "partly"
