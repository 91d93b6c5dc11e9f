"""A quantity that never falls, or never rises, along a training, once a condition is met."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from robust.claims.claim import Evidence, Frame, Judgement, Verdict
from robust.claims.evidence import Absent, Groups
from robust.claims.quantity import Quantity
from robust.claims.weighed import Weighed
from robust.claims.words import counted, listed, number


class Monotone(Weighed):
    """A quantity rises (or falls) along the epochs, or along `at`, within a relative tolerance, in every network.

    Judged from the first epoch at which the quantity `once` lies below `below`, if one is named. A step from v to w
    breaks the claim if (v - w) / |v| > `tolerance`. The claim holds if no step of any network breaks it; it fails if a
    network ends beyond where it began; else it is partly true, and the reason names the epochs.
    """

    name = "monotone"
    family = "course"
    source = "Lyu & Li 2020, arXiv 1906.05890, theorem 4.1"

    groups: Groups = Field(min_length=1, description="the groups whose networks were followed")
    quantity: Quantity = Field(description="the quantity that is claimed to be monotone")
    direction: Literal["rising", "falling"] = Field(default="rising", description="which way it is claimed to go")
    tolerance: float = Field(default=1e-6, ge=0, description="largest relative step the other way")
    once: Quantity | None = Field(default=None, description="the claim is made once this quantity is below `below`")
    below: float | None = Field(default=None, description="the bound of `once`")

    @model_validator(mode="after")
    def _condition_is_whole(self) -> Monotone:
        if (self.once is None) != (self.below is None):
            raise ValueError("'once' and 'below' come together: the quantity and its bound")
        return self

    def weigh(self, evidence: Evidence) -> Judgement:
        """The largest relative step the wrong way, and where there were such steps."""
        rows = [row for group in self.groups for row in self._of(evidence, group)]
        steps, breaks = sum(row["steps"] for row in rows), sum(row["breaks"] for row in rows)
        if steps == 0:
            raise Absent(f"fewer than two values of {self.quantity} after the condition was met")
        worst = max(row["largest_step_back"] for row in rows if row["largest_step_back"] is not None)
        return Judgement(
            verdict=self._verdict(rows, breaks),
            reason=self._reason(rows, steps, breaks, worst),
            effect=worst,
            unit="relative step back",
            seeds=len({row["seed"] for row in rows}),
            rows=rows,
        )

    def _of(self, evidence: Evidence, group: str) -> list[dict[str, Any]]:
        course = self.quantity.series(evidence, group)
        starts = self._starts(evidence, group)
        rows = []
        for model, own in course.groupby("model", observed=True, sort=True):
            own = own[own["x"] >= starts[str(model)]] if starts is not None else own
            x, v = own["x"].to_numpy(float), own["value"].to_numpy(float)
            v = v if self.direction == "rising" else -v
            with np.errstate(divide="ignore", invalid="ignore"):
                back = np.where(v[1:] < v[:-1], (v[:-1] - v[1:]) / np.abs(v[:-1]), 0.0)
            broken = x[1:][back > self.tolerance]
            rows.append(
                {"network": str(model), "seed": int(own["seed"].iloc[0]) if len(own) else -1, "from": _first(x),
                 "steps": len(back), "breaks": len(broken), "at": listed([f"{e:g}" for e in broken], 8),
                 "largest_step_back": float(back.max()) if len(back) else None,
                 "ends_beyond_start": bool(len(v) > 1 and v[-1] < v[0] - self.tolerance * abs(v[0]))}
            )  # fmt: skip
        return rows

    def _starts(self, evidence: Evidence, group: str) -> dict[str, float] | None:
        """The first epoch of each network at which the condition is met; infinity where it never is."""
        if self.once is None:
            return None
        course = self.once.series(evidence, group)
        return {str(model): _met(own, self.below) for model, own in course.groupby("model", observed=True)}

    def _verdict(self, rows: list[dict[str, Any]], breaks: int) -> Verdict:
        if any(row["ends_beyond_start"] for row in rows):
            return "fails"
        return "partly" if breaks or any(row["steps"] == 0 for row in rows) else "holds"

    def _reason(self, rows: list[dict[str, Any]], steps: int, breaks: int, worst: float) -> str:
        when = f" once {self.once} is below {self.below:g}" if self.once else ""
        what = f"{self.quantity} is claimed to be {self.direction}{when}"
        if not breaks:
            taken = f"{counted(steps, 'step')} of {counted(len(rows), 'network')}"
            return f"{what}: none of {taken} goes back by more than {self.tolerance:g} of the value."
        where = "; ".join(f"{row['network']} at {row['at']}" for row in rows if row["breaks"])
        return (
            f"{what}: {breaks} of {counted(steps, 'step')} go back, by at most {number(worst)} of the value ({where})."
        )


def _met(own: Frame, below: float | None) -> float:
    met = own.loc[own["value"].astype(float) < (below or 0.0), "x"]
    return float(met.min()) if len(met) else float("inf")


def _first(x: np.ndarray) -> float | None:
    return float(x[0]) if len(x) else None
