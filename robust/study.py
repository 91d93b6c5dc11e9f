"""Study: the whole specification of an experiment, validated before anything runs.

A study file is YAML. Its sizes (`smoke`, `cpu`, `full`) are presets of one file: mappings laid over it, where a
mapping over a list changes the entries of that label. Every error names the file, the line, the field and what would
be right.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from robust.attacks.attack import Attack
from robust.calibration.calibrator import Calibrator, SetPredictor, SmoothedSetPredictor
from robust.certificates.certificate import Certificate
from robust.claims.claim import Claim
from robust.claims.evidence import references
from robust.corruptions.corruption import Corruption
from robust.corruptions.suites import suite
from robust.datasets.dataset import DatasetSpec
from robust.defences.defence import Defence
from robust.detection.attacked import ScoreAttack
from robust.detection.detector import Detector, ImageDetector
from robust.diagnostics.diagnostic import Diagnostic
from robust.method import LABEL, Method
from robust.models.model import Model
from robust.objectives.objective import Objective
from robust.registry import create
from robust.spelling import meant
from robust.yamltree import Lines, StudyError, deep_merge, parse, read, set_value

Size = Literal["smoke", "cpu", "full"]
MAX_SEED = 2**53 - 1  # the largest integer that JSON readers and the servers' databases keep exact


def _method(*kinds: str) -> BeforeValidator:
    """Reads `pgd` or `{name: pgd, steps: 40}` as the method of that name."""

    def read_method(value: Any) -> Method:
        return create(kinds, value)

    return BeforeValidator(read_method, json_schema_input_type=dict[str, Any] | str)


class On(BaseModel):
    """Which part of a study an entry is for: everything, unless it says less."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    networks: tuple[str, ...] = Field(
        default=(),
        description="patterns of groups `model.objective` or `model.objective+defence`, as 'tisode.*'; all when empty",
    )
    samples: int | None = Field(default=None, ge=1, description="first samples of the test split; all when empty")

    def covers(self, group: str) -> bool:
        """Whether the entry is for this group of networks."""
        return not self.networks or any(fnmatchcase(group, pattern) for pattern in self.networks)


class _Named(BaseModel):
    """A method in a study, with the label that tables show (default: its name)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    selective: ClassVar[tuple[str, ...]] = ()  # the fields of `on` that this kind of entry understands

    label: str = Field(pattern=LABEL, max_length=60)
    method: Method
    on: On = On()

    @model_validator(mode="before")
    @classmethod
    def _label_beside_the_settings(cls, data: Any) -> Any:
        if isinstance(data, cls) or (isinstance(data, dict) and "method" in data):
            return data
        if isinstance(data, Method):
            return {"label": data.name, "method": data}
        if isinstance(data, str):
            data = {"name": data}
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            raise PydanticCustomError("method", "expected a name, or a mapping with the key 'name'")
        own = [field for field in cls.model_fields if field not in ("label", "method")]
        settings = {k: v for k, v in data.items() if k not in ("label", *own)}
        return {
            "label": data.get("label", data["name"]),
            "method": settings,
            **{field: data[field] for field in own if field in data},
        }

    @model_validator(mode="after")
    def _on_is_understood(self) -> _Named:
        for part in self.on.model_fields_set - set(self.selective):
            raise PydanticCustomError("on", f"{self.label}: on.{part} has no meaning here; remove it")
        return self

    def settings(self) -> dict[str, Any]:
        """The entry as a study file would say it, with every default of the method spelled out."""
        on = {k: v for k, v in self.on.model_dump(mode="json").items() if v}
        return {"label": self.label, **self.method.settings(), **({"on": on} if on else {})}


class ModelEntry(_Named):
    """An architecture of the study."""

    method: Annotated[Model, _method("model")]


class ObjectiveEntry(_Named):
    """A training objective of the study; `on.networks` limits the architectures that it trains."""

    selective = ("networks",)
    method: Annotated[Objective, _method("objective")]


class EvaluationEntry(_Named):
    """An evaluation of the study: an attack, or a corruption (`clean` is one)."""

    selective = ("networks", "samples")
    method: Annotated[Attack | Corruption, _method("attack", "corruption")]
    after: Annotated[Corruption, _method("corruption")] | None = Field(
        default=None, description="a corruption that the images have been through before: a shift, then an attack"
    )

    def settings(self) -> dict[str, Any]:
        """As every entry's, with the corruption that comes first."""
        return super().settings() | ({} if self.after is None else {"after": self.after.settings()})


class CalibratorEntry(_Named):
    """A calibrator of the study; `on` limits those that need logits under noise, which cost hundreds of passes."""

    selective = ("networks", "samples")
    method: Annotated[Calibrator | SetPredictor | SmoothedSetPredictor, _method("calibrator")]


class DetectorEntry(_Named):
    """A detection score of the study."""

    method: Annotated[Detector | ImageDetector, _method("detector")]


class CertificateEntry(_Named):
    """A certificate of the study."""

    method: Annotated[Certificate, _method("certificate")]


class OodEntry(_Named):
    """A dataset that the detectors are to tell from the study's own."""

    method: Annotated[DatasetSpec, _method("dataset")]


class DefenceEntry(_Named):
    """A test-time defence of the study: each network that it is for is judged with and without it."""

    selective = ("networks",)
    method: Annotated[Defence, _method("defence")]


class DiagnosticEntry(_Named):
    """A measurement of the study's networks."""

    selective = ("networks",)
    method: Annotated[Diagnostic, _method("diagnostic")]


class ClaimEntry(_Named):
    """A claim that the study puts to the test."""

    method: Annotated[Claim, _method("claim")]


class Network(NamedTuple):
    """One classifier of a study: a trained network, alone or behind a defence."""

    id: str  # model.objective.seed, or model.objective+defence.seed
    model: ModelEntry
    objective: ObjectiveEntry
    seed: int
    defence: DefenceEntry | None = None

    @property
    def group(self) -> str:
        """What its seeds have in common."""
        return self.id.rpartition(".")[0]

    @property
    def base(self) -> str:
        """The id of the trained network."""
        return f"{self.model.label}.{self.objective.label}.{self.seed}"


class ReportSettings(BaseModel):
    """What the report shows beyond the tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(default="", max_length=200)
    examples: int = Field(default=8, ge=0, le=64, description="attacked images shown for each attack")
    pdf: bool = False
    base: str = Field(default="", max_length=120, description="group that mCE is relative to; the first when empty")
    paper_figures: tuple[str, ...] = Field(default=(), description="ids of the published figures that are drawn again")
    published: tuple[dict[str, Any], ...] = Field(
        default=(), description="published numbers: table, row, column, published, group, evaluation, strong, source"
    )
    not_run: tuple[dict[str, str], ...] = Field(default=(), description="figure or series, and the reason it is absent")


class Study(BaseModel):
    """One experiment: models x objectives x seeds, each judged by every evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=LABEL, max_length=60)
    size: Size = "cpu"
    dataset: Annotated[DatasetSpec, _method("dataset")]
    models: tuple[ModelEntry, ...] = Field(min_length=1)
    objectives: tuple[ObjectiveEntry, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = Field(default=(0,), min_length=1)
    evaluations: tuple[EvaluationEntry, ...] = Field(min_length=1)
    calibrators: tuple[CalibratorEntry, ...] = ()
    detectors: tuple[DetectorEntry, ...] = ()
    ood: tuple[OodEntry, ...] = ()
    score_attack: ScoreAttack | None = Field(
        default=None, description="also judge each detector on out-of-distribution images that raise its score"
    )
    certificates: tuple[CertificateEntry, ...] = ()
    defences: tuple[DefenceEntry, ...] = ()
    diagnostics: tuple[DiagnosticEntry, ...] = ()
    claims: tuple[ClaimEntry, ...] = ()
    report: ReportSettings = ReportSettings()
    shard: int = Field(default=500, ge=1, description="samples a cached evaluation task holds")
    batch: int = Field(default=250, ge=1, description="samples an attack works on at once")
    validity: int = Field(default=128, ge=0, description="samples the validity checks look at; 0 leaves them out")
    certify_first: bool = Field(
        default=True, description="spend no attack on samples that the interval bound proves at its eps"
    )
    evaluation_seed: int = Field(default=0, ge=0, le=MAX_SEED, description="keys the random draws of the evaluations")

    @model_validator(mode="before")
    @classmethod
    def _suites_are_their_corruptions(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("evaluations"), (list, tuple)):
            return data
        entries: list[Any] = []
        for entry in data["evaluations"]:
            entries += _suite(entry) if isinstance(entry, dict) and "suite" in entry else [entry]
        return {**data, "evaluations": entries}

    @model_validator(mode="after")
    def _labels_are_unique(self) -> Study:
        for field in _SLOTS:
            counts = Counter(entry.label for entry in getattr(self, field))
            doubled = [label for label, count in counts.items() if count > 1]
            if doubled:
                raise PydanticCustomError(
                    "label", f"{field}: {doubled[0]!r} stands twice; give each a 'label' of its own"
                )
        shared = {entry.label for entry in self.evaluations} & {entry.label for entry in self.certificates}
        if shared:  # both are evaluations in the ledger
            raise PydanticCustomError(
                "label", f"certificates: {min(shared)!r} is an evaluation's label too; give it a 'label' of its own"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise PydanticCustomError("seeds", "seeds: a seed stands twice")
        return self

    @model_validator(mode="after")
    def _classes_serve_the_losses(self) -> Study:
        classes = getattr(self.dataset, "num_classes", None)
        if classes is None:
            return self
        for entry in (*self.evaluations, *self.objectives):
            least = getattr(entry.method, "min_classes", 2)
            if classes < least:
                raise PydanticCustomError(
                    "classes",
                    f"{entry.label} needs at least {least} classes, {self.dataset.name} has {classes}; "
                    "choose the loss 'margin' or another method",
                )
        return self

    @model_validator(mode="after")
    def _every_objective_trains_something(self) -> Study:
        groups = [f"{model.label}.{objective.label}" for model in self.models for objective in self.objectives]
        for objective in self.objectives:
            if not any(objective.on.covers(group) for group in groups if group.endswith(f".{objective.label}")):
                raise PydanticCustomError("on", f"{objective.label}: on.networks fits none of {', '.join(groups)}")
        known = {network.group for network in self.judged()}
        for entry in (*self.defences, *self.evaluations, *self.diagnostics):
            if not any(entry.on.covers(group) for group in known):
                raise PydanticCustomError("on", f"{entry.label}: on.networks fits none of {', '.join(sorted(known))}")
        return self

    @model_validator(mode="after")
    def _claims_name_what_there_is(self) -> Study:
        groups, labels = {network.group for network in self.judged()}, {entry.label for entry in self.evaluations}
        for entry in self.claims:
            named, under = references(entry.method)
            # at the smallest size evaluations may be left out: what stands on them is untested there
            missing = [*(set(named) - groups), *(set(under) - labels if self.size != "smoke" else ())]
            if missing:
                known = ", ".join(sorted(groups | labels))
                raise PydanticCustomError("claim", f"{entry.label}: there is no {min(missing)!r}; there are {known}")
        return self

    @model_validator(mode="after")
    def _surrogates_exist(self) -> Study:
        judged = list(self.judged())
        names = {network.group for network in judged} | {network.id for network in judged}
        for entry in self.evaluations:
            if "models" in getattr(entry.method, "needs", ()) and getattr(entry.method, "surrogate", "") not in names:
                groups = ", ".join(sorted({network.group for network in judged}))
                raise PydanticCustomError(
                    "surrogate", f"{entry.label}: set 'surrogate' to a network of the study: {groups}"
                )
        return self

    @model_validator(mode="after")
    def _ood_and_detectors_come_together(self) -> Study:
        if self.ood and not self.detectors:
            raise PydanticCustomError("ood", "ood: there are out-of-distribution sets but no detectors to judge them")
        if self.dataset.name in {entry.label for entry in self.ood}:
            raise PydanticCustomError("ood", f"ood: {self.dataset.name!r} is the study's own data; give it a 'label'")
        return self

    @property
    def title(self) -> str:
        """The name that folders and runs carry: the study's, plus its size unless that is cpu."""
        return self.name if self.size == "cpu" else f"{self.name}-{self.size}"

    def networks(self) -> Iterator[Network]:
        """Every network that the study trains."""
        for model in self.models:
            for objective in self.objectives:
                group = f"{model.label}.{objective.label}"
                if objective.on.covers(group):
                    for seed in self.seeds:
                        yield Network(f"{group}.{seed}", model, objective, seed)

    def judged(self) -> Iterator[Network]:
        """Every classifier that the study judges: each network, then it behind each of its defences."""
        for network in self.networks():
            yield network
            for defence in self.defences:
                if defence.on.covers(network.group):
                    yield network._replace(id=f"{network.group}+{defence.label}.{network.seed}", defence=defence)

    def settings(self) -> dict[str, Any]:
        """The study as plain data with every default spelled out: what a manifest records."""
        plain = json.loads(self.model_dump_json(exclude={"dataset", *_SLOTS}))
        plain["dataset"] = self.dataset.settings()
        for field in _SLOTS:
            plain[field] = [entry.settings() for entry in getattr(self, field)]
        return dict(sorted(plain.items()))


_SLOTS = (
    "models", "objectives", "evaluations", "calibrators", "detectors", "ood", "certificates", "defences",
    "diagnostics", "claims",
)  # fmt: skip


def _suite(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The corruptions that `{suite: common, severities: [1, 3, 5], on: {...}}` stands for."""
    unknown = set(entry) - {"suite", "severities", "on"}
    if unknown:
        raise PydanticCustomError("suite", f"evaluations: a suite has no field {min(unknown)!r}; it has severities, on")
    try:
        found = suite(entry["suite"], entry.get("severities"))
    except (ValueError, TypeError) as error:
        raise PydanticCustomError("suite", f"evaluations: {error}") from None
    return [{**each, **({"on": entry["on"]} if "on" in entry else {})} for each in found]


def load(
    path: str | Path, size: Size = "cpu", changes: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> Study:
    """Read, resolve and validate a study file.

    Args:
        path: the YAML file.
        size: which preset of `sizes` to lay over it.
        changes: assignments such as `dataset.train=500` or `objectives.pgd-at.training.epochs=2`; a list entry is
            named by its label or position.
        seeds: replaces the study's seeds.

    Raises:
        StudyError: naming file, line, field and remedy for everything that is wrong.
    """
    path = Path(path)
    tree = read(path)
    presets = tree.value.pop("sizes", None) if isinstance(tree.value, dict) else None
    if presets is not None:
        unknown = set(presets.value) - set(get_args(Size)) if isinstance(presets.value, dict) else {"not a mapping"}
        if unknown:
            names = ", ".join(sorted(map(str, unknown)))
            raise StudyError([f"{path}:{presets.line}: sizes: {names} is no size; use smoke, cpu, full"])
        if size in presets.value:
            preset = presets.value[size]
            if not isinstance(preset.value, dict):
                raise StudyError(
                    [f"{path}:{preset.line}: sizes.{size}: expected a mapping of what differs in this size"]
                )
            tree = deep_merge(tree, preset, str(path))
    for change in changes:
        tree = set_value(tree, change)
    if seeds is not None:
        tree = set_value(tree, f"seeds={list(seeds)}")
    tree = set_value(tree, f"size={size}")
    data, lines = tree.plain()
    return validate(data, str(path), lines)


def loads(text: str, size: Size = "cpu") -> Study:
    """A study from YAML text, without presets."""
    data, lines = parse(text, "<text>").plain()
    return validate({**data, "size": size} if isinstance(data, dict) else data, "<text>", lines)


def validate(data: Any, source: str, lines: Lines | None = None) -> Study:
    """A `Study` from plain data; errors are collected and located.

    Raises:
        StudyError: one message for each thing that is wrong.
    """
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # a list whose entries are wrong is reported as too short as well: once is enough
        wrong = {e["loc"][:1] for e in found if e["type"] != "too_short"}
        told = [e for e in found if e["type"] != "too_short" or e["loc"] not in wrong]
        raise StudyError([_message(e, source, lines or {}, data) for e in told]) from None


def _message(error: Any, source: str, lines: Lines, data: Any) -> str:
    loc = [part for part in error["loc"] if part not in ("method",)]
    line = next((lines[tuple(loc[:n])] for n in range(len(loc), -1, -1) if tuple(loc[:n]) in lines), 1)
    field = ".".join(str(part) for part in loc) or "study"
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        near = meant(loc, data, list(Study.model_fields))
        text = f"there is no field {loc[-1]!r} here; {near or 'robust show KIND NAME prints the fields of a method'}"
    elif error["type"] == "missing":
        text = f"the field {loc[-1]!r} is missing; add it"
    else:
        text = f"{text} (got {_short(error.get('input'))})" if not isinstance(error.get("input"), dict) else text
    return f"{source}:{line}: {field}: {text}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def schema() -> dict[str, Any]:
    """The JSON schema of a study file, with one alternative for each registered method."""
    from robust.registry import entries, find

    base = Study.model_json_schema()
    kinds = {
        "ModelEntry": ("model",), "ObjectiveEntry": ("objective",), "EvaluationEntry": ("attack", "corruption"),
        "CalibratorEntry": ("calibrator",), "DetectorEntry": ("detector",), "CertificateEntry": ("certificate",),
        "OodEntry": ("dataset",), "DefenceEntry": ("defence",), "DiagnosticEntry": ("diagnostic",),
        "ClaimEntry": ("claim",),
    }  # fmt: skip
    for definition, slots in kinds.items():
        base["$defs"][definition] = {"oneOf": [_method_schema(find(e.kind, e.name)) for k in slots for e in entries(k)]}
    base["properties"]["dataset"] = {"oneOf": [_method_schema(find("dataset", e.name)) for e in entries("dataset")]}
    base["properties"]["sizes"] = {"type": "object", "propertyNames": {"enum": list(get_args(Size))}}
    base["properties"].pop("size")
    return base


def _method_schema(method: type[Method]) -> dict[str, Any]:
    found = method.model_json_schema()
    found["properties"] = {
        "name": {"const": method.name},
        "label": {"type": "string", "pattern": LABEL},
        "on": On.model_json_schema(),
        **found.get("properties", {}),
    }
    found["required"] = ["name"]
    found["title"] = method.name
    found["description"] = (method.__doc__ or "").strip().split("\n")[0]
    return found
