"""The claim contract: a sentence about methods, judged on the rows that a study has measured, never on a live model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pandas as pd
from pydantic import Field

from robust.method import Method

Verdict = Literal["holds", "partly", "fails", "untested"]
Frame = pd.DataFrame


@dataclass(frozen=True)
class Evidence:
    """Everything that a study has measured, as frames. A `group` is `model.objective[+defence]`, a `model` one network.

    Attributes:
        ledger: model, group, seed, evaluation, sample, correct, success, distance, forward, backward, queries.
        measured: rows of the diagnostics: model, group, seed, diagnostic, quantity, value, and where given epoch, at,
            of, n, low, high.
        history: rows of the trainings: model, group, seed, epoch, and what the objective logged.
        calibration: model, group, seed, under, calibrator, ece, mce, brier, nll, temperature...
        resampled: model, group, seed, under, calibrator, metric, samples (a digest of their ids), draws [B]: the
            metric in bootstrap resamples of the samples; networks on the same samples were resampled alike.
        detection: model, group, seed, score, ood, auroc, aupr, fpr95...
        costs: model, group, evaluation, samples, seconds: volatile, so no number of a claim may come from it.
        verdicts: (model, evaluation) -> verdict and reasons of the validity checks.
        attacks: evaluation label -> what it is in words (method, norm, eps).
        balls: evaluation label -> threat model, of the attacks of a fixed size.
        iterated: labels of the attacks that follow a gradient for several steps.
    """

    ledger: Frame
    measured: Frame
    history: Frame
    calibration: Frame
    detection: Frame
    costs: Frame
    resampled: Frame = field(default_factory=pd.DataFrame)
    verdicts: Mapping[tuple[str, str], tuple[str, list[str]]] = field(default_factory=dict)
    attacks: Mapping[str, str] = field(default_factory=dict)
    balls: Mapping[str, str] = field(default_factory=dict)
    iterated: Collection[str] = ()


@dataclass(frozen=True)
class Judgement:
    """What became of a claim.

    Attributes:
        verdict: holds, partly, fails or untested.
        reason: one sentence a person can check against the tables.
        effect: the measured number; low, high: its 95 % interval; None where there is none.
        unit: of the effect: `points`, `x`, `AUROC`...
        attack: the evaluation that it rests on, in words; seeds: how many.
        cost: passes per sample, forward and backward, of the attacks it rests on.
        rows: a small table behind it, shown under the claim.
    """

    verdict: Verdict
    reason: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    attack: str | None = None
    seeds: int | None = None
    cost: float | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


class Claim(Method):
    """Base of all claims; each stands in a study under a `label`, which is its id (`Q15`, `tulip-order`)."""

    kind: ClassVar[str] = "claim"

    question: str = Field(max_length=400, description="the question in words, as the report prints it")
    section: str = Field(default="", max_length=80, description="where it comes from, e.g. 'methods: Q15'")

    @abstractmethod
    def judge(self, evidence: Evidence) -> Judgement:
        """The verdict; `untested` with the reason where the study does not hold what it needs."""
