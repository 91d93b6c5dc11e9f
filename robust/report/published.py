"""Published tables beside ours: each cell under the published protocol and under a strong one, with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from pydantic import ValidationError

from robust.claims.bounds import limit, mean_of
from robust.claims.claim import Evidence
from robust.claims.evidence import Absent
from robust.claims.quantity import Measure
from robust.claims.words import listed
from robust.report.accuracy import Outcomes, worst_of
from robust.report.cells import ReportError
from robust.report.document import MeasuredRow, PublishedRow, Verdict, tidy

NAMED = {"ours_group": "group", "ours_evaluation": "evaluation", "tag": "source"}  # other names of the same keys


def published_rows(
    rows: Iterable[Mapping[str, Any]],
    outcomes: Outcomes,
    measured: Sequence[MeasuredRow],
    history: Sequence[Mapping[str, Any]],
) -> list[PublishedRow]:
    """Each published number with ours filled in.

    Args:
        rows: `{table, row, column, published, source, group, evaluation, strong}`: the last two are one label or a
            list, whose worst case counts. `quantity` says which number of ours is meant: `accuracy` (default), `error`,
            `median-distance`, or a measured one, by name or as `{name, diagnostic, of, at, epoch}`.
        outcomes: the ledger.
        measured: the diagnostics' rows, with groups.
        history: the trainings' rows.

    Raises:
        ReportError: if a row lacks its table, row or column, or its quantity is none.
    """
    frame = pd.DataFrame([row.model_dump() for row in measured])
    trained = pd.DataFrame(list(history))
    if len(trained):
        seeds = {row["id"]: row.get("seed", 0) for row in outcomes.plan.models}
        trained = trained.assign(group=trained["model"].map(outcomes.plan.group_of), seed=trained["model"].map(seeds))
    return [_row({NAMED.get(k, k): v for k, v in row.items()}, outcomes, frame, trained) for row in rows]


def _row(row: dict[str, Any], outcomes: Outcomes, measured: pd.DataFrame, history: pd.DataFrame) -> PublishedRow:
    lacking = [key for key in ("table", "row", "column") if key not in row]
    if lacking:
        raise ReportError(f"report.published: a row lacks {', '.join(lacking)}: {row}")
    found: dict[str, Any] = {"published": None, **row, "quantity": "", "strong": None}
    found |= {"evaluation": listed(_labels(row.get("evaluation"))) if row.get("evaluation") else ""}
    found |= {"strong_evaluation": listed(_labels(row["strong"])) if row.get("strong") else ""}
    if not row.get("group"):
        return PublishedRow.model_validate(tidy({"reason": "not run", **found}))
    asked = [("", _labels(row.get("evaluation")))] + (
        [("strong_", _labels(row["strong"]))] if row.get("strong") else []
    )
    for prefix, under in asked:
        measure = _measure(row.get("quantity", "accuracy"), under)
        found["quantity"] = measure.name
        try:
            values = measure.values(_evidence(outcomes, str(row["group"]), under, measured, history), str(row["group"]))
        except Absent as absence:
            found.setdefault("reason", str(absence))
            continue
        mean = mean_of(values.tolist())
        found |= {prefix.rstrip("_") or "ours": mean.estimate, f"{prefix}low": limit(mean.low)}
        found |= {f"{prefix}high": limit(mean.high), "seeds": len(values)}
        found |= {f"{prefix}verdict": _verdict(outcomes, str(row["group"]), under)}
    return PublishedRow.model_validate(tidy(found))


def _measure(quantity: Any, under: list[str]) -> Measure:
    given = {"name": quantity} if isinstance(quantity, str) else dict(quantity)
    try:
        return Measure.model_validate({**given, **({"under": under} if under else {})})
    except ValidationError as error:
        raise ReportError(f"report.published: quantity {quantity!r}: {error.errors()[0]['msg']}") from None


def _evidence(
    outcomes: Outcomes, group: str, under: Sequence[str], measured: pd.DataFrame, history: pd.DataFrame
) -> Evidence:
    """The cells that one number needs, in the form that claims read."""
    seeds = {row["id"]: row.get("seed", 0) for row in outcomes.plan.models}
    cells = [
        outcomes.cells[key].assign(model=model, group=group, seed=seeds[model], evaluation=label)
        for model in outcomes.plan.groups.get(group, [])
        for label in under
        for key in [(model, label)]
        if key in outcomes.cells
    ]
    if under and not cells:
        raise Absent(f"{group} was not judged under {listed(under)}")
    empty = pd.DataFrame()
    ledger = pd.concat(cells, ignore_index=True) if cells else empty
    return Evidence(ledger, measured, history, calibration=empty, detection=empty, costs=empty)


def _verdict(outcomes: Outcomes, group: str, under: Sequence[str]) -> Verdict | None:
    models = outcomes.plan.groups.get(group, [])
    return (
        worst_of(
            outcomes.verdict(model, label)[0] for model in models for label in under if (model, label) in outcomes.cells
        )
        if under
        else None
    )


def _labels(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else [str(label) for label in value]
