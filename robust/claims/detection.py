"""How well a score tells other data from the test set: against a bound, another group, or another score."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from robust.claims.claim import Evidence, Judgement
from robust.claims.evidence import Absent, Groups, MaybeGroup, Names, rows_of
from robust.claims.metrics import Side, against_bound, against_others
from robust.claims.weighed import Weighed
from robust.claims.words import listed


class Detection(Weighed):
    """A score detects out-of-distribution data better than another by some amount, or well enough for a bound.

    AUROC and AUPR are better when larger, FPR95 (false positives at 95 % true positives) when smaller; effects point
    so that positive is better. With `than` or `than_score` the claim holds if the 95 % interval of the gain over seeds
    (Welch) lies above `at_least`; otherwise if the interval of the metric (Student) keeps `at_least` or, for FPR95,
    `at_most`. Partly if only the estimate does. Of several groups and sets all must hold.
    """

    name = "detection"
    family = "detection"
    source = "Welch 1947, Biometrika 34; Student 1908, Biometrika 6"

    groups: Groups = Field(min_length=1, description="the groups whose score is judged")
    score: str = Field(description="the detector's label")
    ood: Names = Field(min_length=1, description="the sets to be told from the test set, by label")
    metric: Literal["auroc", "aupr", "fpr95"] = Field(default="auroc", description="what is claimed")
    than: MaybeGroup = Field(default=None, description="a group to compare with")
    than_score: str | None = Field(default=None, description="a score to compare with; default: the same")
    at_least: float | None = Field(default=None, description="the least gain, or without comparison the least metric")
    at_most: float | None = Field(default=None, description="without comparison: the largest metric")

    @model_validator(mode="after")
    def _bounded(self) -> Detection:
        if self.than is None and self.than_score is None and self.at_least is None and self.at_most is None:
            raise ValueError("give 'than' or 'than_score' to compare with, or a bound 'at_least' or 'at_most'")
        return self

    def weigh(self, evidence: Evidence) -> Judgement:
        """The metric, or the gain, where the claim is weakest."""
        cells = [(group, ood) for group in self.groups for ood in self.ood]
        sides = [self._side(evidence, group, self.score, ood) for group, ood in cells]
        against = f"{self.score} against {listed(self.ood)}"
        if self.than is None and self.than_score is None:
            return against_bound(sides, self.metric, self.at_least, self.at_most, against)
        score = self.than_score or self.score
        others = [self._side(evidence, self.than or group, score, ood) for group, ood in cells]
        return against_others(sides, others, self.metric, self.at_least or 0.0, self.metric != "fpr95", against)

    def _side(self, evidence: Evidence, group: str, score: str, ood: str) -> Side:
        rows = rows_of(evidence.detection, group, "detection scores")
        rows = rows[(rows["score"] == score) & (rows["ood"] == ood)]
        if len(rows) == 0 or self.metric not in rows or rows[self.metric].isna().any():
            raise Absent(f"{self.metric} of {score} of {group} against {ood} was not measured")
        name = f"{score} of {group} against {ood}"
        return Side(name, rows.sort_values("seed")[self.metric].astype(float).tolist())
