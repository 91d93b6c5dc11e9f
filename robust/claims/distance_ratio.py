"""The ratio of two groups' median distances to the nearest adversarial image, with its paired interval."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from robust.claims.accuracy_gap import beyond
from robust.claims.claim import Evidence, Judgement
from robust.claims.evidence import Absent, Evaluations, Group, Matrix, attack_words, distances, paired, passes
from robust.claims.weighed import Compared, tempered
from robust.claims.words import between, counted, number
from robust.seeds import welch
from robust.statistics import Interval, bootstrap


class DistanceRatio(Compared):
    """The median distance of one group under a smallest-distance attack is some times that of another.

    The effect is the geometric mean over seeds of the median distances of `group`, over that of `over`. A sample
    misclassified unattacked has distance 0, one that was not broken infinity, so a median needs half of the samples
    broken. The claim holds if the interval over samples (bootstrap that keeps pairs together) and that over seeds
    (Welch on the logarithms) both lie above `at_least`; partly if only the estimate or only the first does.
    """

    name = "distance-ratio"
    family = "comparison"
    source = "Efron 1979, Annals of Statistics 7(1); Welch 1947, Biometrika 34"

    group: Group = Field(description="the group that is claimed to be farther from its errors")
    over: Group = Field(description="the group that it is compared with")
    under: Evaluations = Field(description="smallest-distance attacks; of several, the smallest distance found counts")
    at_least: float = Field(default=1.0, gt=0, description="the ratio claimed")

    def weigh(self, evidence: Evidence) -> Judgement:
        """The ratio of medians."""
        groups = (self.group, self.over)
        self.gate(evidence, groups)
        a, b = paired(*(distances(evidence, group, self.under) for group in groups))
        for group, table in zip(groups, (a, b)):
            _usable(group, medians(table))
        seeds = len(a)
        samples = bootstrap(lambda rows: ratio(rows[:, :seeds].T, rows[:, seeds:].T), np.vstack([a, b]).T)
        logs = None if min(len(a), len(b)) < 2 else welch(np.log(medians(a)), np.log(medians(b)))
        over_seeds = None if logs is None else Interval(*(math.exp(value) for value in logs))
        verdict = beyond(samples.estimate, samples.low, over_seeds.low if over_seeds else None, self.at_least)
        means = [math.exp(np.log(medians(table)).mean()) for table in (a, b)]
        reason = (
            f"The median distance is {number(means[0])} of {self.group} and {number(means[1])} of {self.over} on "
            f"{counted(a.shape[1], 'sample')}, a ratio of {number(samples.estimate)} (over samples {between(samples)}, "
            f"over seeds {between(over_seeds)}) against the {self.at_least:g} claimed."
        )
        judgement = Judgement(
            verdict=verdict,
            reason=reason,
            effect=samples.estimate,
            low=samples.low,
            high=samples.high,
            unit="x",
            attack=attack_words(evidence, self.under),
            seeds=min(len(a), len(b)),
            cost=passes(evidence, groups, self.under),
            rows=[
                {"group": group, "median": mean, "misclassified": float((table == 0).mean()),
                 "not_broken": float(np.isinf(table).mean()), "seeds": len(table), "n": table.shape[1]}
                for group, mean, table in zip(groups, means, (a, b))
            ],
        )  # fmt: skip
        return tempered(judgement, evidence, groups, self.under)


def medians(table: Matrix) -> Matrix:
    """Median of each row of [S,N], without interpolation, so that infinity stays a value and no NaN arises."""
    return np.quantile(table, 0.5, axis=1, method="inverted_cdf")


def ratio(first: Matrix, second: Matrix) -> float:
    """Geometric mean of the medians of [S1,N] over that of [S2,N]; 1 where both are 0 or both infinite."""
    with np.errstate(divide="ignore"):
        a, b = float(np.log(medians(first)).mean()), float(np.log(medians(second)).mean())
    return 1.0 if a == b else math.exp(min(a - b, 700.0)) if math.isfinite(a - b) else math.inf if a > b else 0.0


def _usable(group: str, found: Matrix) -> None:
    if np.isinf(found).any():
        raise Absent(f"the attack breaks less than half of the samples of {group}, so there is no median distance")
    if (found == 0).any():
        raise Absent(f"{group} gets half of the clean samples wrong, so its median distance is 0")
