"""Gates: what a model must reach before it becomes the champion, written down, and judged from its report alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class GateError(ValueError):
    """A gate is written wrongly; the message names it and those that there are."""


class Gates(BaseModel):
    """The gates of a promotion. None leaves a gate out; fractions are of 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    worst_case: float | None = Field(default=0.3, ge=0, le=1, description="least accuracy under the hardest threat")
    gain: float | None = Field(
        default=0.0, ge=-1, le=1, description="least rise of the worst-case accuracy over the champion's"
    )
    clean_drop: float | None = Field(
        default=0.02, ge=-1, le=1, description="largest fall of the clean accuracy from the champion's"
    )
    ece: float | None = Field(
        default=0.1, ge=0, le=1, description="largest calibration error on clean images, after the best calibrator"
    )
    trusted: bool = Field(default=True, description="every worst-case number must carry the verdict trusted")

    @classmethod
    def parse(cls, assignments: Sequence[str]) -> Gates:
        """Gates from `name=value` texts; `none` switches one off.

        Raises:
            GateError: naming what is wrong and which gates there are.
        """
        values: dict[str, Any] = {}
        for text in assignments:
            name, equals, value = text.partition("=")
            name = name.strip().replace("-", "_")
            if not equals or name not in cls.model_fields:
                raise GateError(f"--gate {text}: write name=value with one of {', '.join(cls.model_fields)}")
            values[name] = None if value.strip().lower() == "none" else value.strip()
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            raise GateError(f"--gate {found['loc'][0]}={found['input']}: {found['msg'].lower()}") from None


@dataclass(frozen=True)
class Standing:
    """What a report says of one model.

    `worst` is the accuracy under each threat (`linf 8/255`), `verdicts` what those numbers are worth, `ece` the least
    of its calibrators on clean images; None for what was not measured.
    """

    model: str
    data: str
    clean: float | None
    worst: dict[str, float]
    verdicts: dict[str, str]
    ece: float | None

    @classmethod
    def of(cls, report: Mapping[str, Any], model: str) -> Standing:
        """The standing of a model in a report.json."""
        clean = [r["accuracy"] for r in report["evaluations"] if r["model"] == model and r["name"] == "clean"]
        worst = [row for row in report["worst_case"] if row["model"] == model]
        eces = [
            row["ece"]
            for row in report["calibration"]
            if row["model"] == model and row["under"] == "clean" and row.get("ece") is not None
        ]
        return cls(
            model=model,
            data=report["dataset"]["digest"],
            clean=clean[0] if clean else None,
            worst={f"{row['norm']} {row['eps']}": row["accuracy"] for row in worst},
            verdicts={f"{row['norm']} {row['eps']}": row["verdict"] for row in worst},
            ece=min(eces, default=None),
        )

    @property
    def hardest(self) -> str | None:
        """The threat under which least is left; None without attacks."""
        return min(self.worst, key=lambda threat: self.worst[threat], default=None)


@dataclass(frozen=True)
class Ruling:
    """One gate's answer: what it asks, what it found, and why it is not met."""

    gate: str
    asks: str
    found: str
    met: bool
    why: str = ""


def judge(gates: Gates, candidate: Standing, champion: Standing | None) -> list[Ruling]:
    """Every gate that is switched on, in order; the candidate passes if all are met.

    Without a champion there is nothing to fall behind, so the gates that compare are met.
    """
    rulings = []
    threat = candidate.hardest
    least = None if threat is None else candidate.worst[threat]
    if gates.worst_case is not None:
        found = "no attack with a size" if least is None else f"{least:.3f} under {threat}"
        met = least is not None and least >= gates.worst_case
        rulings.append(Ruling("worst_case", f">= {gates.worst_case:g}", found, met))
    if gates.gain is not None:
        rulings.append(_gain(gates.gain, candidate, champion))
    if gates.clean_drop is not None:
        rulings.append(_clean_drop(gates.clean_drop, candidate, champion))
    if gates.ece is not None:
        found = "not measured" if candidate.ece is None else f"{candidate.ece:.3f}"
        why = "give the study calibrators, or --gate ece=none" if candidate.ece is None else ""
        met = candidate.ece is not None and candidate.ece <= gates.ece
        rulings.append(Ruling("ece", f"<= {gates.ece:g}", found, met, why))
    if gates.trusted:
        doubted = {name: verdict for name, verdict in candidate.verdicts.items() if verdict != "trusted"}
        found = ", ".join(f"{name} {verdict}" for name, verdict in doubted.items()) or "trusted"
        met = bool(candidate.verdicts) and not doubted
        rulings.append(Ruling("trusted", "every verdict", found if candidate.verdicts else "no verdict", met))
    return rulings


def _gain(least: float, candidate: Standing, champion: Standing | None) -> Ruling:
    asks = f">= {least:+g}"
    if champion is None:
        return Ruling("gain", asks, "no champion yet", met=True)
    shared = [threat for threat in candidate.worst if threat in champion.worst]
    if candidate.data != champion.data or not shared:
        why = "judge both in one study, or --gate gain=none"
        return Ruling("gain", asks, "not on the champion's data and threats", met=False, why=why)
    gains = {threat: candidate.worst[threat] - champion.worst[threat] for threat in shared}
    threat = min(gains, key=lambda name: gains[name])
    return Ruling("gain", asks, f"{gains[threat]:+.3f} under {threat}", gains[threat] >= least)


def _clean_drop(most: float, candidate: Standing, champion: Standing | None) -> Ruling:
    asks = f"<= {most:g}"
    if champion is None:
        return Ruling("clean_drop", asks, "no champion yet", met=True)
    if candidate.data != champion.data or candidate.clean is None or champion.clean is None:
        why = "judge both in one study, or --gate clean_drop=none"
        return Ruling("clean_drop", asks, "not on the champion's data", met=False, why=why)
    fall = champion.clean - candidate.clean
    return Ruling("clean_drop", asks, f"{fall:.3f}", fall <= most)
