"""A calibration error of some networks against that of others, or against a bound."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from robust.claims.claim import Evidence, Judgement
from robust.claims.evidence import Absent, Evaluation, Groups, MaybeGroup, rows_of
from robust.claims.metrics import Draws, Side, against_bound, against_others
from robust.claims.weighed import Weighed

Metric = Literal[
    "ece", "ece_mass", "ece_debiased", "mce", "brier", "nll", "overconfidence", "confidence_errors"
]  # fmt: skip


class CalibrationGap(Weighed):
    """Networks are better calibrated than others by some amount, or their calibration error keeps a bound.

    With `than`, the effect is the error of `than` less that of the group, in the metric's unit, and the claim holds if
    its 95 % interval over samples (paired bootstrap: both are resampled alike) and that over seeds (Welch) lie above
    `at_least`; without, the effect is the error itself, and the claim holds if its intervals (bootstrap, Student) lie
    below `at_most`. Partly if only the estimate does, or only one of the two; a single seed holds partly at most.
    """

    name = "calibration-gap"
    family = "calibration"
    source = "Efron 1979, Annals of Statistics 7(1); Welch 1947, Biometrika 34; Student 1908, Biometrika 6"

    groups: Groups = Field(min_length=1, description="the groups that are claimed to be well calibrated")
    than: MaybeGroup = Field(default=None, description="the group that they are compared with")
    under: Evaluation = Field(default="clean", description="the evaluation whose logits were used")
    metric: Metric = Field(default="ece", description="the error; overconfidence is confidence less accuracy, signed")
    calibrator: str = Field(default="none", description="the calibrator of the groups; none: as trained")
    than_calibrator: str = Field(default="none", description="the calibrator of `than`, for example temperature")
    at_least: float = Field(default=0.0, description="with `than`: how much smaller the error is claimed to be")
    at_most: float | None = Field(default=None, ge=0, description="without `than`: the largest error claimed")

    @model_validator(mode="after")
    def _one_of_two(self) -> CalibrationGap:
        if (self.than is None) == (self.at_most is None):
            raise ValueError("give either 'than', a group to compare with, or 'at_most', a bound")
        return self

    def weigh(self, evidence: Evidence) -> Judgement:
        """The gap, or the error, of the group where the claim is weakest."""
        sides = [self._side(evidence, group, self.calibrator) for group in self.groups]
        if self.than is None:
            return against_bound(sides, self.metric, None, self.at_most, self.under)
        other = self._side(evidence, self.than, self.than_calibrator)
        return against_others(sides, [other] * len(sides), self.metric, self.at_least, False, self.under)

    def _side(self, evidence: Evidence, group: str, calibrator: str) -> Side:
        rows = rows_of(evidence.calibration, group, "calibration")
        rows = rows[(rows["under"] == self.under) & (rows["calibrator"] == calibrator)]
        if len(rows) == 0 or self.metric not in rows or rows[self.metric].isna().any():
            raise Absent(f"{self.metric} of {group} under {self.under} with calibrator {calibrator} was not measured")
        name = group if calibrator == "none" else f"{group} ({calibrator})"
        rows = rows.sort_values("seed")
        draws, samples = self._draws(evidence, rows["model"].tolist(), calibrator)
        return Side(name, rows[self.metric].astype(float).tolist(), draws, samples)

    def _draws(self, evidence: Evidence, models: list[str], calibrator: str) -> tuple[Draws | None, str]:
        """The metric's mean over the networks in each resample [B], and the samples; None unless all have the same."""
        kept = evidence.resampled
        if len(kept) == 0:
            return None, ""
        kept = kept[
            (kept["under"] == self.under) & (kept["calibrator"] == calibrator) & (kept["metric"] == self.metric)
        ]
        kept = kept[kept["model"].isin(models)]
        samples = kept["samples"].unique()
        if len(kept) != len(models) or len(samples) != 1:
            return None, ""
        return np.stack(kept["draws"].tolist()).mean(0), str(samples[0])
