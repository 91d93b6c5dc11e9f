"""How much a weak attack overstates robustness: the same networks under two attacks."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from robust.claims.accuracy_gap import beyond
from robust.claims.claim import Evidence, Judgement
from robust.claims.evidence import Absent, Evaluations, Groups, attack_words, paired, passes, right
from robust.claims.weighed import Finding, Weighed, summed_up, tempered
from robust.claims.words import between_points, counted, percent
from robust.seeds import t_interval
from robust.statistics import paired_bootstrap


class AttackGap(Weighed):
    """A weak attack (FGSM, cross-entropy, the official one) leaves more accuracy than a strong one by some points.

    The effect is accuracy under `weak` less accuracy under `strong`, of the same networks on the same samples: what
    the weak attack overstates. The claim holds if the interval over samples (paired bootstrap) and that over seeds
    (Student, of each network's own gap) both lie above `at_least`; partly if only the estimate or the first does. Of
    several groups all must hold.
    """

    name = "attack-gap"
    family = "protocol"
    source = "Efron 1979, Annals of Statistics 7(1); Student 1908, Biometrika 6"

    groups: Groups = Field(min_length=1, description="the groups that were attacked both ways")
    weak: Evaluations = Field(description="the weak attack, or several: their worst case")
    strong: Evaluations = Field(description="the strong attack, or several: their worst case")
    at_least: float = Field(default=0.0, ge=-1, le=1, description="the gap claimed, a fraction: 0.05 = 5 points")

    def weigh(self, evidence: Evidence) -> Judgement:
        """The gap of the group where it is smallest, in points."""
        findings = [self._of(evidence, group) for group in self.groups]
        judgement = summed_up(
            findings,
            unit="points",
            attack=f"{attack_words(evidence, self.weak)} against {attack_words(evidence, self.strong)}",
            seeds=min(finding.row["seeds"] for finding in findings),
            cost=passes(evidence, self.groups, (*self.weak, *self.strong)),
        )
        return tempered(judgement, evidence, self.groups, self.strong)

    def _of(self, evidence: Evidence, group: str) -> Finding:
        tables = [right(evidence, group, under) for under in (self.weak, self.strong)]
        models = tables[0].index.intersection(tables[1].index)
        if len(models) == 0:
            raise Absent(f"no network of {group} was attacked both ways")
        weak, strong = paired(tables[0].loc[models], tables[1].loc[models])
        samples = paired_bootstrap(weak.mean(0), strong.mean(0))
        seeds = t_interval((weak - strong).mean(1)) if len(models) > 1 else None
        text = (
            f"{group} keeps {percent(weak.mean())} under the weak attack and {percent(strong.mean())} under the strong "
            f"one on {counted(weak.shape[1], 'sample')}, {100 * samples.estimate:.1f} points less (over samples "
            f"{between_points(samples)}, over seeds {between_points(seeds)})"
        )
        row: dict[str, Any] = {
            "group": group,
            "weak": float(weak.mean()),
            "strong": float(strong.mean()),
            "n": weak.shape[1],
        }
        row |= {"points": 100 * samples.estimate, "low": 100 * samples.low, "high": 100 * samples.high}
        row |= {"seeds": len(models)}
        verdict = beyond(samples.estimate, samples.low, seeds.low if seeds else None, self.at_least)
        return Finding(verdict, row["points"], row["low"], row["high"], text, row)
