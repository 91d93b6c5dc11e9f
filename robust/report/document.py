"""The schema of report.json, version 1: everything that a report says, as data.

The pinned keys stand first in each class; further keys serve the rendering. Fractions lie in [0,1], eps is an exact
fraction as text, and only `volatile` may hold seconds, dates, hosts and run ids, so that two runs of one study agree
in every other byte.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["trusted", "suspect", "broken"]
ClaimVerdict = Literal["holds", "partly", "fails", "untested"]
SEVERITY: tuple[Verdict, ...] = ("trusted", "suspect", "broken")


class Row(BaseModel):
    """A row of a table; keys beyond the schema are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class DatasetRow(Row):
    """What was judged on."""

    name: str
    digest: str = ""
    split: str = "test"
    samples: int = Field(default=0, ge=0)
    classes: list[str] = []


class ModelRow(Row):
    """One trained network; `group` is what its seeds have in common."""

    id: str
    model: str
    objective: str = ""
    seed: int = 0
    sha256: str = ""
    group: str = ""


class EvaluationRow(Row):
    """One model under one evaluation, or under the worst of several (then `members` names them)."""

    model: str
    name: str
    label: str
    norm: str | None = None
    eps: str | None = None
    n: int = Field(ge=0)
    correct: int = Field(ge=0)
    accuracy: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    verdict: Verdict
    reasons: list[str] = []
    forward: int = 0
    backward: int = 0
    queries: int = 0
    quantised: int | None = None  # successes that survive rounding to 8 bits
    median_distance: float | None = None  # of attacks without a size; None also if more than half of the samples hold
    members: list[str] = []


class GroupRow(Row):
    """All seeds of one model under one evaluation: mean accuracy with its t-interval over seeds."""

    group: str
    label: str
    norm: str | None
    eps: str | None
    seeds: int
    mean: float
    low: float | None  # None: one seed sets no limits
    high: float | None
    least: float
    most: float
    seeds_error: float | None = None
    samples_error: float | None = None
    verdict: Verdict


class DifferenceRow(Row):
    """Two groups on the same samples; p is corrected for the number of rows (Holm)."""

    first: str
    second: str
    label: str
    n: int
    effect: float
    low: float
    high: float
    seeds_low: float | None
    seeds_high: float | None
    p: float
    p_holm: float
    only_first: int | None
    only_second: int | None
    larger_than: Literal["both", "samples", "seeds", "neither"]
    sentence: str


class CalibrationRow(Row):
    """Calibration of one model under one evaluation, after one calibrator; each figure with its bootstrap interval.

    Further figures come in the same way, `aurc, aurc_low, aurc_high`; prediction sets have `coverage` and `size`.
    """

    model: str
    under: str
    calibrator: str = "none"
    ece: float | None = None
    ece_low: float | None = None
    ece_high: float | None = None
    mce: float | None = None
    mce_low: float | None = None
    mce_high: float | None = None
    brier: float | None = None
    brier_low: float | None = None
    brier_high: float | None = None
    nll: float | None = None
    nll_low: float | None = None
    nll_high: float | None = None
    temperature: float | None = None


class DetectionRow(Row):
    """How well a score tells the test set from another set."""

    model: str
    score: str
    ood: str
    auroc: float | None = None
    aupr: float | None = None
    fpr95: float | None = None


class ShiftRow(Row):
    """A group under all corruptions of the study; mCE is relative to the base's errors, 1 = as bad as the base."""

    group: str
    corruptions: int
    accuracy: float
    worst: str
    worst_accuracy: float
    base: str
    mce: float | None = None
    relative_mce: float | None = None


class FlipRow(Row):
    """How often a group's prediction changes along a perturbation sequence; the rate is relative to the base's."""

    group: str
    sequence: str
    severity: int
    frames: int
    n: int
    seeds: int
    probability: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    base: str
    rate: float | None = None


class CertificateRow(Row):
    """What a sound method proves, and what it leaves open."""

    model: str
    name: str
    norm: str
    eps: str
    n: int
    verified: int
    falsified: int
    unknown: int


class ClaimRow(Row):
    """A published claim and what this study finds of it."""

    id: str
    question: str
    verdict: ClaimVerdict
    effect: float | str | None = None
    low: float | None = None
    high: float | None = None
    attack: str | None = None
    seeds: int | list[int] | None = None
    section: str | None = None
    reason: str = ""
    unit: str = ""
    cost: float | None = None  # passes per sample of the attacks that it rests on
    rows: list[dict[str, Any]] = []  # the small table behind it


class MeasuredRow(Row):
    """One number that a diagnostic found of one network."""

    model: str
    diagnostic: str
    quantity: str
    value: float | None = None
    group: str = ""
    seed: int | None = None
    of: str | None = None  # which series
    at: float | None = None  # a size or a step count
    epoch: int | None = None
    n: int | None = None
    low: float | None = None
    high: float | None = None


class PublishedRow(Row):
    """A published number beside ours: under the published protocol, and under a strong one."""

    table: str
    row: str
    column: str
    published: float | str | None
    source: str = ""
    quantity: str = ""
    group: str = ""
    evaluation: str = ""
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int | None = None
    verdict: Verdict | None = None
    strong_evaluation: str = ""
    strong: float | None = None
    strong_low: float | None = None
    strong_high: float | None = None
    strong_verdict: Verdict | None = None
    reason: str = ""  # why a number of ours is missing


class PaperFigureRow(Row):
    """A figure that a paper shows: where it stands here, or why it is absent."""

    id: str
    title: str
    figures: list[str] = []
    pictures: list[str] = []
    section: str = ""
    reason: str = ""


class Series(BaseModel):
    """One curve, cloud or row of bars: columns of equal length; `low` and `high` bound `y`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    mark: Literal["line", "steps", "points", "bars", "histogram", "rule"] = "line"  # rule: a vertical line at each x
    colour: int = 0
    dash: int = 0
    direct: bool = True  # labelled at its end in the figure
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None
    count: list[int] | None = None
    width: float | None = None  # of bars, in units of x; default: nearly their distance


class FigureRow(BaseModel):
    """One figure: its vector file, the CSV behind it, and the data it is drawn from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    file: str
    csv: str
    group: str
    title: str
    caption: str = ""
    x_label: str = ""
    y_label: str = ""
    x_log: bool = False
    y_log: bool = False
    diagonal: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    x_ticks: list[str] = []  # names of the positions 0, 1, 2... on a scale of categories
    paper: str = ""  # the published figure that it draws again
    model: str = ""  # the network that it was measured of, if it is one network's
    kind: str = ""  # shared by the same figure of several networks
    series: list[Series]


class ExampleRow(Row):
    """One attacked image as small PNG data URIs; `magnified` says how many times the perturbation is enlarged."""

    evaluation: str
    model: str
    sample: int
    label: int
    prediction_clean: int
    prediction_adv: int
    clean: str
    perturbation: str
    adversarial: str
    magnified: float


class PictureRow(Row):
    """A grid of images as one PNG data URI."""

    id: str
    model: str
    diagnostic: str
    title: str
    caption: str = ""
    paper: str = ""
    image: str
    width: int
    height: int


class Report(BaseModel):
    """The whole report."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    version: Literal[1] = Field(default=1, alias="schema")
    study: str
    size: str
    title: str
    question: str
    summary: list[dict[str, Any]]
    threat: list[str]
    dataset: DatasetRow
    models: list[ModelRow]
    evaluations: list[EvaluationRow]
    worst_case: list[EvaluationRow]
    groups: list[GroupRow]
    differences: list[DifferenceRow]
    calibration: list[CalibrationRow]
    detection: list[DetectionRow]
    certificates: list[CertificateRow]
    claims: list[ClaimRow]
    evidence: list[Row]
    classes: list[Row]
    fragile: list[Row]
    sturdy: list[Row]
    examples: list[ExampleRow]
    examples_left_out: int
    figures: list[FigureRow]
    measured: list[MeasuredRow] = []
    pictures: list[PictureRow] = []
    pictures_left_out: int = 0
    published: list[PublishedRow] = []
    paper_figures: list[PaperFigureRow] = []
    not_run: list[Row] = []
    shift: list[ShiftRow] = []
    flips: list[FlipRow] = []
    environment: dict[str, str]
    manifest: list[Row]
    commands: list[str]
    checkpoints: list[Row] = []
    settings: dict[str, Any] = {}
    volatile: dict[str, Any]


def plain(report: BaseModel) -> dict[str, Any]:
    """The report as JSON data.

    Raises:
        ValueError: if a number is NaN or infinite; those have no place in JSON, None says "not known".
    """
    data: dict[str, Any] = report.model_dump(mode="python", by_alias=True)
    data = tidy(data)
    json.dumps(data, allow_nan=False)
    return data


def tidy(value: Any) -> Any:
    """Plain JSON values: numpy scalars become Python's, tuples lists, mapping keys text; non-finite becomes None."""
    if isinstance(value, dict):
        return {str(key): tidy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return tidy(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
