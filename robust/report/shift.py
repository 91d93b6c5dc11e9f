"""Shift tables: what the corruptions of a study cost each group, relative to a declared base."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from robust.report.accuracy import Outcomes
from robust.report.cells import ReportError
from robust.report.document import ShiftRow
from robust.shift import corruption_error, relative_corruption_error

Errors = dict[str, list[float]]


def shift_rows(outcomes: Outcomes, base: str = "") -> list[ShiftRow]:
    """One row a group that was judged under corruptions with a severity: mean accuracy, mCE, relative mCE, the worst.

    Args:
        outcomes: of the study.
        base: the group whose errors are the unit of mCE (ImageNet-C takes AlexNet); the study's first when empty.

    Raises:
        ReportError: if there is no such group.
    """
    groups = outcomes.plan.groups
    if base and base not in groups:
        raise ReportError(f"report.base: no group is called {base!r}; there are {', '.join(groups)}")
    errors = {group: found for group, models in groups.items() if (found := _errors(outcomes, models))}
    if not errors:
        return []
    unit = base or next(iter(errors))
    rows = []
    for group, own in errors.items():
        shared = sorted(set(own) & set(errors.get(unit, {})))
        flat = {name: sum(values) / len(values) for name, values in own.items()}
        worst = max(flat, key=lambda name: (flat[name], name))
        row: dict[str, Any] = {
            "group": group,
            "corruptions": len(own),
            "accuracy": 1 - sum(flat.values()) / len(flat),
            "worst": worst,
            "worst_accuracy": 1 - flat[worst],
            "base": unit,
        }
        rows.append(ShiftRow.model_validate(row | _relative(outcomes, group, unit, errors, shared)))
    return rows


def _errors(outcomes: Outcomes, models: list[str]) -> Errors:
    """Error of each corruption at each of its severities, mean over seeds."""
    found: Errors = defaultdict(list)
    for entry in sorted(outcomes.plan.evaluations, key=lambda row: (row["name"], row.get("severity") or 0)):
        judged = [model for model in models if outcomes.present(model, entry["label"])]
        if entry.get("severity") and entry["name"] != "sequence-frame" and not entry.get("after") and judged:
            rights = [outcomes.correct(model, entry["label"])[1].mean() for model in judged]
            found[entry["name"]].append(1 - float(sum(rights)) / len(rights))
    return dict(found)


def _clean(outcomes: Outcomes, group: str) -> float | None:
    """Clean error of a group, mean over seeds."""
    label = outcomes.plan.clean
    models = [m for m in outcomes.plan.groups[group] if label and outcomes.present(m, label)]
    if label is None or not models:
        return None
    return 1 - float(sum(outcomes.correct(model, label)[1].mean() for model in models)) / len(models)


def _relative(
    outcomes: Outcomes, group: str, unit: str, errors: Mapping[str, Errors], shared: list[str]
) -> dict[str, float | None]:
    """mCE and relative mCE over the corruptions that group and base share; None where the base has no error there."""
    own, base = ({name: errors[each][name] for name in shared} for each in (group, unit))
    clean, base_clean = _clean(outcomes, group), _clean(outcomes, unit)
    try:
        mce: float | None = corruption_error(own, base).mean
    except ValueError:
        mce = None
    if clean is None or base_clean is None:
        return {"mce": mce, "relative_mce": None}
    try:
        return {"mce": mce, "relative_mce": relative_corruption_error(own, clean, base, base_clean).mean}
    except ValueError:
        return {"mce": mce, "relative_mce": None}
