"""Request: everything that `robust evaluate` was asked, validated, as one plain value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field

from robust.attacks.attack import Attack
from robust.corruptions.clean import Clean
from robust.datasets.dataset import DatasetSpec, Split
from robust.evaluation import label_all
from robust.foreign.hypotheses import Declared
from robust.foreign.loaded import ForeignError
from robust.foreign.probe import Access
from robust.gate import Gate
from robust.judging import Evaluation
from robust.method import Exact, fraction_text
from robust.registry import UnknownMethod, create, entries, nearest

# the sizes at which numbers are usually given
USUAL = {"linf": Fraction(8, 255), "l2": Fraction(1, 2), "l1": Fraction(12)}
# the strongest attack that the adversary's access allows
STRONGEST: Mapping[Access, str] = {"gradient": "autoattack", "scores": "square", "labels": "hopskipjump"}
Threat = tuple[str, Fraction]


class Request(BaseModel):
    """What is asked about one model.

    Attributes:
        model: a MODEL string; folder: where it is looked for; trust: files whose pickles may run code.
        dataset: a name or a folder of images; split and samples of it.
        attacks: names or settings; empty for the strongest that the access allows.
        norm, eps: the threat; None for linf at 8/255 (l2 at 1/2, l1 at 12), or what the gates name.
        gates: conditions on the numbers.
        until: stop when every 95 % interval is at most this wide to either side.
        search_dtype: bf16 searches in bfloat16; every success and failure is settled in full precision.
        probe: find out what the network expects; without, it is taken as declared.
        name: what report and ledger are called; from model and data set when empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    folder: str = "."
    trust: tuple[str, ...] = ()
    dataset: str
    split: Split = "test"
    samples: int | None = Field(default=None, ge=1)
    attacks: tuple[str, ...] = ()
    norm: Literal["linf", "l2", "l1"] | None = None
    eps: Exact | None = None
    seed: int = Field(default=0, ge=0, le=2**53 - 1)
    name: str = Field(default="", max_length=60, pattern=r"^([a-z0-9][a-z0-9-]*)?$")
    gates: tuple[str, ...] = ()
    until: float | None = Field(default=None, gt=0, lt=0.5)
    search_dtype: Literal["fp32", "bf16"] = "fp32"
    certify_first: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    probe: bool = True
    shard: int = Field(default=500, ge=1)
    batch: int = Field(default=250, ge=1)
    validity: int = Field(default=128, ge=0)
    examples: int = Field(default=8, ge=0)

    @property
    def declared(self) -> Declared:
        """What the user says about the network."""
        if len(self.mean) != len(self.std) or any(s <= 0 for s in self.std):
            raise ForeignError("--mean and --std belong together: one value a channel, std above 0")
        return Declared(self.mean, self.std, self.classes)

    @property
    def title(self) -> str:
        """What report and ledger are called: a later evaluation of that name takes its place."""
        return self.name or f"evaluate-{slug(Path(self.model).name)}-{slug(Path(self.dataset).name)}"[:60].rstrip("-")

    def check(self) -> None:
        """Build what the texts name, without touching model or data.

        Raises:
            ValueError: of the method, number or name that is wrong.
        """
        _, _ = self.declared, self.data()
        if self.attacks:
            evaluations_of(self.attacks, self.threats(), self.search_dtype == "bf16")

    def data(self) -> DatasetSpec:
        """The data set, cut to the samples asked for."""
        return dataset_of(self.dataset, self.split, self.samples)

    def threats(self) -> list[Threat]:
        """The threat asked for, then those of the gates."""
        named = [(g.norm, g.eps) for text in self.gates for g in Gate.parse(text) if g.eps is not None]
        given = self.norm or self.eps is not None
        norm = self.norm or "linf"
        own = [(norm, self.eps if self.eps is not None else USUAL[norm])] if given or not named else []
        return list(dict.fromkeys([*own, *named]))

    def evaluations(self, access: Access) -> dict[str, Evaluation]:
        """Clean accuracy and the attacks, by label.

        Raises:
            ForeignError: if an attack needs more than the model gives.
        """
        found = evaluations_of(self.attacks or (STRONGEST[access],), self.threats(), self.search_dtype == "bf16")
        for label, method in found.items():
            needs = needs_of(method)
            if (needs == "gradient" and access != "gradient") or (needs == "scores" and access == "labels"):
                raise ForeignError(
                    f"--attack {label} needs {needs}, this model gives {access} alone; use {STRONGEST[access]}"
                )
        return found


def evaluations_of(
    attacks: Iterable[str | Mapping[str, Any]], threats: Sequence[Threat], low_precision: bool = False
) -> dict[str, Evaluation]:
    """Clean accuracy and every attack at every threat, by unique labels.

    Raises:
        ForeignError: if a text is no attack.
    """
    methods = [
        _attack(settings, norm, eps, low_precision) for norm, eps in threats for settings in map(_settings, attacks)
    ]
    return label_all([Clean(), *methods])


def needs_of(method: Evaluation) -> Literal["nothing", "labels", "scores", "gradient"]:
    """What an attack must have of a model."""
    if not isinstance(method, Attack) or method.name == "random-noise":
        return "nothing"
    if method.name in ("hopskipjump", "boundary"):
        return "labels"
    forward, backward = method.passes(10)
    return "scores" if method.family == "black box" or (forward and not backward) else "gradient"


def dataset_of(text: str, split: Split, samples: int | None = None) -> DatasetSpec:
    """A registered data set by its name, or a folder of images by its path.

    Raises:
        UnknownMethod: if it is neither.
    """
    size = {} if samples is None else {split: samples}
    names = [entry.name for entry in entries("dataset")]
    if text in names:
        return cast("DatasetSpec", create("dataset", {"name": text, **size}))
    if Path(text).is_dir() or "/" in text:
        return cast("DatasetSpec", create("dataset", {"name": "folder", "path": text, **size}))
    raise UnknownMethod(f"--dataset {text}: no folder and no data set is called so; {nearest(text, names)}")


def slug(text: str) -> str:
    """A text in the letters that names of files and studies have."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "model"


def _settings(attack: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    if not isinstance(attack, str) or not attack.startswith("{"):
        return attack
    try:
        found: Mapping[str, Any] = yaml.safe_load(attack)
    except yaml.YAMLError as error:
        raise ForeignError(f"--attack {attack}: write for example '{{name: pgd, steps: 40}}'") from error
    return found


def _attack(settings: str | Mapping[str, Any], norm: str, eps: Fraction, low_precision: bool) -> Attack:
    plain = {"name": settings} if isinstance(settings, str) else dict(settings)
    method = cast("Attack", create("attack", {"norm": norm, "eps": fraction_text(eps), **plain}))
    if not low_precision:
        return method
    return cast("Attack", create("attack", {"name": "low-precision", "attack": method}))
