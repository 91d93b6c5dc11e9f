"""Cells: the ledger cut by (model, evaluation), and the simplest queries on them.

Logits are read straight from the parquet column into one array a cell, because ten models times ten thousand samples
are too many to pass through Python objects.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from robust import ledger
from robust.method import exact

Key = tuple[str, str]


class ReportError(ValueError):
    """The ledger and the description of the study do not fit together."""


class Cells:
    """Read-only view of a ledger: `cells[model, evaluation]` is a frame of its samples, in order of sample."""

    def __init__(self, rows: pa.Table) -> None:
        """Cut the ledger.

        Args:
            rows: a table with the ledger's schema, in any order.
        """
        if rows.schema.names != ledger.SCHEMA.names:
            raise ReportError(f"rows have columns {rows.schema.names}, a ledger has {ledger.SCHEMA.names}")
        self._rows = rows.sort_by([(column, "ascending") for column in ledger.KEY]).combine_chunks()
        frame = self._rows.drop_columns(["logits"]).to_pandas(strings_to_categorical=True)
        self._frames: dict[Key, pd.DataFrame] = {}
        for (model, evaluation), cell in frame.groupby(["model", "evaluation"], observed=True, sort=True):
            judged = cell[cell["correct"].notna()]
            if len(judged):
                if judged["sample"].duplicated().any():
                    raise ReportError(f"the ledger judges a sample of {model} under {evaluation} twice, with two seeds")
                self._frames[str(model), str(evaluation)] = judged.sort_values("sample")

    def __getitem__(self, key: Key) -> pd.DataFrame:
        return self._frames[key]

    def __contains__(self, key: Key) -> bool:
        return key in self._frames

    def __iter__(self) -> Iterator[Key]:
        return iter(self._frames)

    def correct(self, key: Key) -> npt.NDArray[np.bool_]:
        """Right on every image known of the ball, [N]."""
        return self[key]["correct"].to_numpy(bool)

    def samples(self, key: Key) -> npt.NDArray[np.int64]:
        """Sample ids [N], ascending."""
        return self[key]["sample"].to_numpy(np.int64)

    def logits(self, key: Key) -> npt.NDArray[np.float32]:
        """Logits [N,K] of the judged images; [N,0] where the ledger holds none."""
        frame = self[key]
        column = self._rows.column("logits").combine_chunks()
        taken = column.take(pa.array(frame.index.to_numpy()))
        if taken.null_count or len(taken) == 0:
            return np.zeros((len(frame), 0), np.float32)
        values = taken.flatten().to_numpy(zero_copy_only=False)
        if len(values) % len(frame):
            raise ReportError(f"the logits of {key[0]} under {key[1]} have different numbers of classes")
        found: npt.NDArray[np.float32] = values.reshape(len(frame), -1)
        return found


class Plan:
    """The study's description, checked: models in order, evaluations in order, which of them are attacks."""

    def __init__(self, study: Mapping[str, Any], cells: Cells) -> None:
        """Check that the ledger holds no model or evaluation that the study does not name."""
        self.models = [dict(row) for row in _rows(study, "models", ("id", "model"))]
        self.evaluations = [_evaluation(row) for row in _rows(study, "evaluations", ("label", "name"))]
        for row in self.models:
            row["group"] = ".".join(str(row[part]) for part in ("model", "objective") if row.get(part))
        self.group_of = {row["id"]: row["group"] for row in self.models}
        self.by_label = {row["label"]: row for row in self.evaluations}
        strangers = {m for m, _ in cells} - set(self.group_of)
        if strangers:
            raise ReportError(f"the ledger judges {_listed(strangers)}, which study.models does not name")
        unnamed = {e for _, e in cells} - set(self.by_label)
        if unnamed:
            raise ReportError(f"the ledger holds {_listed(unnamed)}, which study.evaluations does not name")

    @property
    def groups(self) -> dict[str, list[str]]:
        """Model ids of each group (model.objective), in the study's order."""
        found: dict[str, list[str]] = defaultdict(list)
        for row in self.models:
            found[row["group"]].append(row["id"])
        return dict(found)

    @property
    def attacks(self) -> list[dict[str, Any]]:
        """The evaluations that have a norm."""
        return [row for row in self.evaluations if row["norm"]]

    @property
    def frames(self) -> set[str]:
        """Labels of single frames of perturbation sequences: they are told by their flips, not one by one."""
        return {row["label"] for row in self.evaluations if row["name"] == "sequence-frame" and row.get("sequence")}

    @property
    def clean(self) -> str | None:
        """The label of the evaluation on unchanged images, if there is one."""
        return next((row["label"] for row in self.evaluations if row["name"] == "clean"), None)

    def threats(self) -> dict[tuple[str, str], list[str]]:
        """Labels of the attacks of each (norm, eps), sizes ascending; unbounded attacks stand under eps ""."""
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for row in self.attacks:
            found[row["norm"], row["eps"] or ""].append(row["label"])
        return dict(sorted(found.items(), key=lambda item: (item[0][0], size(item[0][1]))))


def size(eps: str | None) -> float:
    """eps as a number; infinity for none."""
    return float(Fraction(exact(eps))) if eps else math.inf


def _evaluation(row: Mapping[str, Any]) -> dict[str, Any]:
    norm, eps = row.get("norm"), row.get("eps")
    try:
        if eps is not None:
            exact(eps)
    except ValueError as error:
        raise ReportError(f"study.evaluations {row['label']!r}: eps: {error}") from None
    return {**row, "norm": norm or None, "eps": None if eps is None else str(eps)}


def _rows(study: Mapping[str, Any], field: str, keys: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    rows = study.get(field)
    if rows is None:
        raise ReportError(f"study.{field} is missing")
    for position, row in enumerate(rows):
        lacking = [key for key in keys if key not in row]
        if lacking:
            raise ReportError(f"study.{field}[{position}] lacks {', '.join(lacking)}")
    names = [row[keys[0]] for row in rows]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ReportError(f"study.{field}: {_listed(doubled)} stands twice")
    return list(rows)


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in sorted(names))
