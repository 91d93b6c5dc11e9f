"""Study: the whole specification of an experiment, checked as a whole before anything runs.

What it lists is in `robust.study_entries`, how a YAML file becomes one in `robust.study_file`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from robust.claims.evidence import references
from robust.corruptions.suites import suite
from robust.datasets.dataset import DatasetSpec
from robust.detection.attacked import ScoreAttack
from robust.method import LABEL
from robust.study_entries import (
    CalibratorEntry,
    CertificateEntry,
    ClaimEntry,
    DefenceEntry,
    DetectorEntry,
    DiagnosticEntry,
    EvaluationEntry,
    ModelEntry,
    ObjectiveEntry,
    OodEntry,
    ReportSettings,
    method_of,
)

Size = Literal["smoke", "cpu", "full"]
MAX_SEED = 2**53 - 1  # the largest integer that JSON readers and the servers' databases keep exact


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


class Study(BaseModel):
    """One experiment: models x objectives x seeds, each judged by every evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=LABEL, max_length=60)
    size: Size = "cpu"
    dataset: Annotated[DatasetSpec, method_of("dataset")]
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
