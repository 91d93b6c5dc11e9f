"""The ratio of a measured quantity between two groups, at equal epoch or equal size."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from robust.claims.accuracy_gap import beyond
from robust.claims.bounds import limit, mean_of, over_seeds
from robust.claims.claim import Evidence, Judgement
from robust.claims.evidence import Absent, Group, attack_words
from robust.claims.quantity import Measure, Quantity
from robust.claims.weighed import Weighed
from robust.claims.words import listed, number
from robust.statistics import Interval


class MeasuredRatio(Weighed):
    """A measured quantity of one group is some times that of another, network by network of the same seed.

    Of a quantity with epochs the last one that all networks have is compared (`epoch` in the quantity names another).
    The effect is the geometric mean over seeds of the ratios. The claim holds if its 95 % interval (Student on the
    logarithms) lies above `at_least`; partly if only the estimate does; else it fails. Only positive quantities have
    ratios: others leave the claim untested.
    """

    name = "measured-ratio"
    family = "comparison"
    source = "Student 1908, Biometrika 6"

    group: Group = Field(description="the group whose quantity is above the line")
    over: Group = Field(description="the group whose quantity is below the line; may be the same")
    quantity: Quantity = Field(description="the quantity: its name, or name, diagnostic, of, at, epoch, under")
    over_quantity: Quantity | None = Field(default=None, description="the quantity below the line, if another")
    at_least: float = Field(default=1.0, gt=0, description="the ratio claimed")

    def weigh(self, evidence: Evidence) -> Judgement:
        """The ratio, seed by seed."""
        below = self.over_quantity or self.quantity
        epoch = self._epoch(evidence, below)
        first = self.quantity.values(evidence, self.group, epoch)
        second = below.values(evidence, self.over, epoch)
        seeds = first.index.intersection(second.index)
        if len(seeds) == 0:
            raise Absent(f"{self.group} and {self.over} have no seed in common")
        a, b = first[seeds].to_numpy(float), second[seeds].to_numpy(float)
        if min(a.min(), b.min()) <= 0:
            raise Absent(
                f"a ratio needs positive values, and {self.quantity} is {listed([number(x) for x in a])} of "
                f"{self.group} and {below} {listed([number(x) for x in b])} of {self.over}"
            )
        found = Interval(*(math.exp(min(value, 700.0)) for value in mean_of(np.log(a / b).tolist())))
        known = found if len(seeds) > 1 else None
        when = f" at epoch {epoch}" if epoch is not None else ""
        means = (math.exp(np.log(a).mean()), math.exp(np.log(b).mean()))
        reason = (
            f"{self.quantity} is {number(means[0])} of {self.group} and {number(means[1])} of {self.over}{when}, a "
            f"ratio of {over_seeds(found, len(seeds))} against the {self.at_least:g} claimed."
        )
        low = found.low if known else -math.inf
        return Judgement(
            verdict=beyond(found.estimate, low, low, self.at_least),
            reason=reason,
            effect=found.estimate,
            low=limit(low),
            high=found.high if known else None,
            unit="x",
            attack=attack_words(evidence, self.quantity.under) or None,
            seeds=len(seeds),
            rows=[
                {"seed": int(seed), self.group: float(x), self.over if self.over != self.group else "below": float(y),
                 "ratio": float(x / y)}
                for seed, x, y in zip(seeds, a, b)
            ],
        )  # fmt: skip

    def _epoch(self, evidence: Evidence, below: Measure) -> int | None:
        """The last epoch that all networks have, where the quantity has epochs and the claim names none."""
        if self.quantity.epoch != "last" or below.epoch != "last":
            return None
        found = [self.quantity.points(evidence, self.group), below.points(evidence, self.over)]
        if any(points["epoch"].isna().all() for points in found):
            return None
        epochs = [set(own["epoch"].dropna()) for points in found for _, own in points.groupby("model", observed=True)]
        common = set.intersection(*epochs)
        if not common:
            raise Absent(f"{self.group} and {self.over} have no epoch in common at which {self.quantity} was measured")
        return int(max(common))
