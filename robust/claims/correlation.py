"""Whether two measured quantities go together over snapshots and arms."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from scipy import stats

from robust.claims.bounds import bound_words, judged
from robust.claims.claim import Evidence, Frame, Judgement
from robust.claims.evidence import Absent, Groups
from robust.claims.quantity import Quantity
from robust.claims.weighed import MOST_ROWS, Weighed
from robust.claims.words import between, counted
from robust.statistics import Interval


class Correlation(Weighed):
    """Two quantities rank snapshots and arms alike, or not: Spearman's rank correlation against a bound.

    One point is a network at an epoch (or one `at`) where both were measured. The 95 % interval is Bonett and Wright's
    (2000, doi:10.1007/BF02294183): tanh(atanh(rho) -+ 1.96 sqrt((1 + rho^2/2) / (n - 3))). It takes points as
    independent; snapshots of one training are not, so the reason counts the trainings too. The claim holds if the
    interval keeps the bound, partly if only the estimate does.
    """

    name = "correlation"
    family = "association"
    source = "Spearman 1904, American Journal of Psychology 15"

    groups: Groups = Field(min_length=1, description="the groups whose networks give the points")
    x: Quantity = Field(description="the first quantity")
    y: Quantity = Field(description="the second quantity")
    at_least: float | None = Field(default=None, ge=-1, le=1, description="lower bound of rho")
    at_most: float | None = Field(default=None, ge=-1, le=1, description="upper bound of rho")

    @model_validator(mode="after")
    def _bounded(self) -> Correlation:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a claim 'correlation' needs 'at_least', 'at_most' or both")
        return self

    def weigh(self, evidence: Evidence) -> Judgement:
        """Spearman's rho with its interval."""
        points = pd.concat([self._points(evidence, group) for group in self.groups], ignore_index=True)
        n, networks = len(points), points["network"].nunique()
        if n < 4:
            raise Absent(f"a rank correlation needs 4 points, and {self.x} and {self.y} meet in {n}")
        if min(points["x"].nunique(), points["y"].nunique()) < 2:
            raise Absent(f"{self.x} or {self.y} is the same at all {n} points, so nothing can correlate")
        found = spearman(points["x"].to_numpy(float), points["y"].to_numpy(float))
        reason = (
            f"Spearman's correlation of {self.x} with {self.y} over {counted(n, 'point')} of "
            f"{counted(networks, 'training')} is {found.estimate:.2f} ({between(found)} if points were independent), "
            f"claimed {bound_words(self.at_least, self.at_most)}."
        )
        return Judgement(
            verdict=judged(found, self.at_least, self.at_most),
            reason=reason,
            effect=found.estimate,
            low=found.low,
            high=found.high,
            unit="Spearman's rho",
            seeds=int(points["seed"].nunique()),
            rows=[{str(k): v for k, v in row.items()} for row in points.head(MOST_ROWS).to_dict("records")],
        )

    def _points(self, evidence: Evidence, group: str) -> Frame:
        """Network, seed, epoch or at, x, y: where both were measured; a value without epoch meets the last epoch."""
        first, second = self.x.points(evidence, group), self.y.points(evidence, group)
        on = ["model"]
        for axis in ("epoch", "at"):
            shared = first[axis].notna().all() and second[axis].notna().all()
            if shared:
                on.append(axis)
            elif axis == "epoch" and first[axis].notna().any() != second[axis].notna().any():
                first, second = (_last(points) for points in (first, second))
        both = first[[*on, "seed", "value"]].merge(second[[*on, "value"]], on=on, suffixes=("_x", "_y"))
        if both.duplicated(on).any():
            raise Absent(f"{self.x} or {self.y} of {group} has several values at one point; say which 'of' and 'at'")
        return both.rename(columns={"model": "network", "value_x": "x", "value_y": "y"}).astype(
            {"x": float, "y": float}
        )


def spearman(x: np.ndarray, y: np.ndarray) -> Interval:
    """Rank correlation of [N] and [N] with Bonett and Wright's 95 % interval, N >= 4."""
    rho = float(stats.spearmanr(x, y).statistic)
    if abs(rho) >= 1:
        return Interval(rho, rho, rho)
    half = float(stats.norm.ppf(0.975)) * math.sqrt((1 + rho**2 / 2) / (len(x) - 3))
    return Interval(rho, math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half))


def _last(points: Frame) -> Frame:
    """The last epoch of each network, where there are epochs."""
    if points["epoch"].isna().all():
        return points
    epochs = points["epoch"].astype(float)
    return points[epochs == epochs.groupby(points["model"].astype(str)).transform("max")]
