"""What a study lists: each entry is a method by name, a label for the tables, and the part of the study it is for."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from robust.attacks.attack import Attack
from robust.calibration.calibrator import Calibrator, SetPredictor, SmoothedSetPredictor
from robust.certificates.certificate import Certificate
from robust.claims.claim import Claim
from robust.corruptions.corruption import Corruption
from robust.datasets.dataset import DatasetSpec
from robust.defences.defence import Defence
from robust.detection.detector import Detector, ImageDetector
from robust.diagnostics.diagnostic import Diagnostic
from robust.method import LABEL, Method
from robust.models.model import Model
from robust.objectives.objective import Objective
from robust.registry import create


def method_of(*kinds: str) -> BeforeValidator:
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

    method: Annotated[Model, method_of("model")]


class ObjectiveEntry(_Named):
    """A training objective of the study; `on.networks` limits the architectures that it trains."""

    selective = ("networks",)
    method: Annotated[Objective, method_of("objective")]


class EvaluationEntry(_Named):
    """An evaluation of the study: an attack, or a corruption (`clean` is one)."""

    selective = ("networks", "samples")
    method: Annotated[Attack | Corruption, method_of("attack", "corruption")]
    after: Annotated[Corruption, method_of("corruption")] | None = Field(
        default=None, description="a corruption that the images have been through before: a shift, then an attack"
    )

    def settings(self) -> dict[str, Any]:
        """As every entry's, with the corruption that comes first."""
        return super().settings() | ({} if self.after is None else {"after": self.after.settings()})


class CalibratorEntry(_Named):
    """A calibrator of the study; `on` limits those that need logits under noise, which cost hundreds of passes."""

    selective = ("networks", "samples")
    method: Annotated[Calibrator | SetPredictor | SmoothedSetPredictor, method_of("calibrator")]


class DetectorEntry(_Named):
    """A detection score of the study."""

    method: Annotated[Detector | ImageDetector, method_of("detector")]


class CertificateEntry(_Named):
    """A certificate of the study."""

    method: Annotated[Certificate, method_of("certificate")]


class OodEntry(_Named):
    """A dataset that the detectors are to tell from the study's own."""

    method: Annotated[DatasetSpec, method_of("dataset")]


class DefenceEntry(_Named):
    """A test-time defence of the study: each network that it is for is judged with and without it."""

    selective = ("networks",)
    method: Annotated[Defence, method_of("defence")]


class DiagnosticEntry(_Named):
    """A measurement of the study's networks."""

    selective = ("networks",)
    method: Annotated[Diagnostic, method_of("diagnostic")]


class ClaimEntry(_Named):
    """A claim that the study puts to the test."""

    method: Annotated[Claim, method_of("claim")]


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
