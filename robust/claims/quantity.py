"""A quantity that a study measured of its networks: a diagnostic's row, a column of the history, a ledger's mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from robust.claims.claim import Evidence, Frame
from robust.claims.distance_ratio import medians
from robust.claims.evidence import Absent, SomeEvaluations, distances, passes, right, rows_of
from robust.claims.words import listed

COLUMNS = ["model", "seed", "epoch", "at", "of", "value"]


class Measure(BaseModel):
    """Which number of a network is meant.

    Sought among the diagnostics' rows first, then among the columns of the training's history. With `under` it is read
    from the ledger: `accuracy` or `error` (with `at`: at that size, from the distances of a smallest-distance attack),
    `median-distance` or `passes` (forward and backward passes per sample).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="the quantity of a diagnostic, or a column of the history")
    diagnostic: str = Field(default="", description="the diagnostic; empty: any")
    of: str = Field(default="", description="the series of the diagnostic; empty: the only one")
    at: float | None = Field(default=None, description="the size or step count that the value depends on")
    epoch: int | Literal["first", "last"] = Field(default="last", description="which of several epochs")
    under: SomeEvaluations = Field(default=(), description="evaluations: the ledger's mean under their worst case")

    def points(self, evidence: Evidence, group: str) -> Frame:
        """Every value of a group's networks: model, seed, epoch, at, of, value; NaN where a row has none.

        Raises:
            Absent: if the study measured none.
        """
        found = self._judged(evidence, group) if self.under else self._measured(evidence, group)
        if len(found) == 0:
            found = self._trained(evidence, group)
        found = found[np.isfinite(found["value"].astype(float))]
        if len(found) == 0:
            raise Absent(f"the study measured no {self} of {group}")
        return found.reset_index(drop=True)

    def values(self, evidence: Evidence, group: str, epoch: int | None = None) -> pd.Series:
        """One value a network, indexed by its seed; `epoch` overrides the field.

        Raises:
            Absent: if there is none, or more than one that fits.
        """
        found = _at_epoch(self.points(evidence, group), self.epoch if epoch is None else epoch)
        if len(found) == 0:
            raise Absent(f"{self} of {group} was not measured at epoch {self.epoch if epoch is None else epoch}")
        if found["model"].duplicated().any():
            choices = {key: sorted(set(found[key].dropna())) for key in ("of", "at")}
            wide = "; ".join(f"{key} is one of {listed(values)}" for key, values in choices.items() if len(values) > 1)
            raise Absent(f"{self} of {group} has several values a network, and the claim must say which: {wide}")
        return found.set_index("seed")["value"].astype(float).sort_index()

    def series(self, evidence: Evidence, group: str) -> Frame:
        """Every value over epochs (or over `at` where no epoch is given): model, seed, x, value, in order of x."""
        found = self.points(evidence, group)
        axis = "epoch" if found["epoch"].notna().any() else "at"
        found = found.assign(x=found[axis].astype(float)).dropna(subset=["x"])
        if found.duplicated(["model", "x"]).any():
            raise Absent(f"{self} of {group} has several values at one {axis}; the claim must say which 'of'")
        return found.sort_values(["model", "x"])[["model", "seed", "x", "value"]]

    def _measured(self, evidence: Evidence, group: str) -> Frame:
        frame = evidence.measured
        if len(frame) == 0:
            return pd.DataFrame(columns=COLUMNS)
        frame = frame[(frame["group"] == group) & (frame["quantity"] == self.name)].reindex(
            columns=list(dict.fromkeys([*COLUMNS, "diagnostic"]))
        )
        if self.diagnostic:
            frame = frame[frame["diagnostic"] == self.diagnostic]
        if self.of:
            frame = frame[frame["of"] == self.of]
        if self.at is not None:
            frame = frame[np.isclose(frame["at"].astype(float), self.at)]
        return frame[COLUMNS]

    def _trained(self, evidence: Evidence, group: str) -> Frame:
        frame = evidence.history
        if len(frame) == 0 or self.name not in frame or self.diagnostic:
            return pd.DataFrame(columns=COLUMNS)
        own = frame[frame["group"] == group]
        return own.assign(value=pd.to_numeric(own[self.name], errors="coerce")).reindex(columns=COLUMNS)

    def _judged(self, evidence: Evidence, group: str) -> Frame:
        frame = rows_of(evidence.ledger, group, "outcomes").astype({"model": str})
        values = _LEDGER_MEANS[self.name](self, evidence, group) if self.name in _LEDGER_MEANS else None
        if values is None:
            raise Absent(f"of an evaluation one can ask {listed(list(_LEDGER_MEANS))}, not {self.name}")
        seeds = frame.groupby("model")["seed"].first()[values.index].to_numpy()
        found = pd.DataFrame({"model": values.index, "seed": seeds, "value": values.to_numpy()})
        return found.reindex(columns=COLUMNS)

    def _accuracy(self, evidence: Evidence, group: str) -> pd.Series:
        """Share right; at a size, share whose smallest known distance is beyond it."""
        if self.at is None:
            return right(evidence, group, self.under).mean(axis=1)
        return (distances(evidence, group, self.under) > self.at * (1 + 1e-5)).mean(axis=1)

    def _error(self, evidence: Evidence, group: str) -> pd.Series:
        return 1 - self._accuracy(evidence, group)

    def _median_distance(self, evidence: Evidence, group: str) -> pd.Series:
        table = distances(evidence, group, self.under)
        return pd.Series(medians(table.to_numpy(float)), table.index)

    def _passes(self, evidence: Evidence, group: str) -> pd.Series:
        models = right(evidence, group, self.under).index
        return pd.Series({model: passes(evidence, [group], self.under, model) for model in models})

    def __str__(self) -> str:
        where = [f"under {listed(self.under)}" if self.under else "", self.of and f"of {self.of}"]
        where += [f"at {self.at:g}" if self.at is not None else ""]
        where += [f"at epoch {self.epoch}" if isinstance(self.epoch, int) else ""]
        return " ".join([self.name.replace("_", " "), *(part for part in where if part)])


_LEDGER_MEANS: dict[str, Callable[[Measure, Evidence, str], pd.Series]] = {
    "accuracy": Measure._accuracy,
    "error": Measure._error,
    "median-distance": Measure._median_distance,
    "passes": Measure._passes,
}


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Quantity = Annotated[Measure, BeforeValidator(_named)]


def _at_epoch(found: Frame, epoch: int | str) -> Frame:
    """The rows of one epoch of each network; all rows where the quantity has no epochs."""
    if found["epoch"].isna().all():
        return found
    epochs = found["epoch"].astype(float)
    if isinstance(epoch, int):
        return found[epochs == epoch]
    ends = epochs.groupby(found["model"].astype(str)).transform("max" if epoch == "last" else "min")
    return found[epochs == ends]
