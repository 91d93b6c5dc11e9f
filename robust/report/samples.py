"""Which classes and which samples fall first: the tables that say where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from robust.report.accuracy import Outcomes, matrix
from robust.report.document import Row
from robust.statistics import wilson

SHOWN = 12


def headline(outcomes: Outcomes) -> str | None:
    """The threat that the summary speaks of: most attacks, and of those the one that the study names first."""
    order = [row["label"] for row in outcomes.plan.attacks]
    counts = {label: len(members) for label, members in outcomes.members.items()}
    return max(counts, key=lambda label: (counts[label], -order.index(outcomes.members[label][0])), default=None)


def class_rows(outcomes: Outcomes, classes: Sequence[str]) -> list[Row]:
    """Accuracy of each class under the headline threat and on clean images, by group, most fragile class first."""
    label = headline(outcomes)
    if label is None:
        return []
    rows: list[dict[str, Any]] = []
    for group, models in outcomes.plan.groups.items():
        ids, right = matrix(outcomes, models, label)
        if not len(ids):
            continue
        truth = _labels_of(outcomes, models, ids)
        clean = _clean_by_class(outcomes, models)
        for k in np.unique(truth):
            own = right[:, truth == k].mean(0)
            low, high = wilson(own.sum(), len(own))
            row = {"group": group, "class": int(k), "name": _name(classes, int(k)), "n": len(own)}
            row |= {"clean": clean.get(int(k)), "robust": float(own.mean()), "low": float(low), "high": float(high)}
            rows.append(row)
    groups = list(outcomes.plan.groups)
    rows.sort(key=lambda row: (groups.index(row["group"]), row["robust"], row["class"]))
    return [Row.model_validate(row) for row in rows]


def sample_rows(outcomes: Outcomes) -> tuple[list[Row], list[Row]]:
    """The most fragile and the most robust samples over all models and attacks with a size.

    Only samples that every model gets right unattacked count. Fragile: broken by the most (model, attack) pairs,
    then at the smallest distance; robust: the other end of that order.
    """
    frames = [
        outcomes.cells[model["id"], entry["label"]][["sample", "label", "success", "distance"]]
        for model in outcomes.plan.models
        for entry in outcomes.plan.attacks
        if (model["id"], entry["label"]) in outcomes.cells and entry["eps"]
    ]
    if not frames:
        return [], []
    whole = pd.concat(frames, ignore_index=True)
    whole = whole.assign(success=whole["success"].fillna(False).astype(float), cells=1)
    table = whole.groupby("sample", sort=True).agg(
        label=("label", "first"), broken=("success", "sum"), of=("cells", "sum"), distance=("distance", "min")
    )
    table = table[table["distance"].fillna(np.inf) > 0].reset_index()
    table["share"] = table["broken"] / table["of"]
    fragile = table.sort_values(["share", "distance", "sample"], ascending=[False, True, True]).head(SHOWN)
    sturdy = table.sort_values(["share", "distance", "sample"], ascending=[True, False, True]).head(SHOWN)
    return [_sample(r) for r in fragile.to_dict("records")], [_sample(r) for r in sturdy.to_dict("records")]


def _sample(row: Mapping[Any, Any]) -> Row:
    distance = float(row["distance"])
    return Row.model_validate(
        {
            "sample": int(row["sample"]),
            "label": int(row["label"]),
            "broken": int(row["broken"]),
            "of": int(row["of"]),
            "distance": distance if np.isfinite(distance) else None,
        }
    )


def _labels_of(outcomes: Outcomes, models: Sequence[str], ids: Any) -> Any:
    key = next(key for model in models for label in outcomes.labels for key in outcomes.present(model, label))
    frame = outcomes.cells[key].set_index("sample")["label"]
    return frame.reindex(ids).fillna(-1).to_numpy(np.int64)


def _clean_by_class(outcomes: Outcomes, models: Sequence[str]) -> dict[int, float]:
    if outcomes.plan.clean is None:
        return {}
    ids, right = matrix(outcomes, models, outcomes.plan.clean)
    if not len(ids):
        return {}
    truth = _labels_of(outcomes, models, ids)
    return {int(k): float(right[:, truth == k].mean()) for k in np.unique(truth)}


def _name(classes: Sequence[str], k: int) -> str:
    return str(classes[k]) if 0 <= k < len(classes) else str(k)
