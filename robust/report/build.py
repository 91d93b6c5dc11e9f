"""Build report.json: ledgers, costs, verdicts and measurements in, one frozen document out, without a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from robust.report import curves as lines
from robust.report import distributions
from robust.report.accuracy import Outcomes, collect, evaluation_rows, group_rows, worst_case_rows
from robust.report.cells import Cells, Plan
from robust.report.document import (
    CalibrationRow,
    CertificateRow,
    ClaimRow,
    DatasetRow,
    DetectionRow,
    ModelRow,
    Report,
    Row,
    plain,
    tidy,
)
from robust.report.examples import example_rows
from robust.report.pairs import difference_rows
from robust.report.samples import class_rows, sample_rows
from robust.report.summary import question, summary, threat_sentences

Rows = Iterable[Mapping[str, Any]]


def build(
    study: Mapping[str, Any],
    rows: pa.Table,
    *,
    costs: pa.Table | None = None,
    verdicts: Rows = (),
    calibration: Rows = (),
    detection: Rows = (),
    scores: Rows = (),
    certificates: Rows = (),
    claims: Rows = (),
    history: Rows = (),
    evidence: Rows = (),
    curves: Rows = (),
    examples: Rows = (),
    environment: Mapping[str, Any] | None = None,
    manifest: Rows = (),
    commands: Iterable[str] = (),
    volatile: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of report.json, schema 1. Same arguments, same document.

    Args:
        study: `name, size, dataset{name, digest, classes?}, models[{id, model, objective, seed, sha256}],
            evaluations[{label, name, norm, eps}]`, optionally `title, question, threat[]`. An evaluation is an attack
            if it has a norm.
        rows: the ledger.
        costs: the costs table; goes under `volatile`.
        verdicts: `{model, evaluation, verdict, reasons[]}`; an attack without one is suspect.
        calibration: rows of metrics; those with a temperature are laid over the reliability diagrams.
        detection: rows of metrics.
        scores: `{model, score, set, inside, values[]}` for the detection histograms.
        certificates: `{model, name, norm, eps, n, verified, falsified, unknown}`.
        claims: `{id, question, verdict, ...}`.
        history: `{model, epoch, loss, accuracy, ...}`, one row an epoch.
        evidence: `{model, evaluation, check, value, passed, detail}`, the checks behind the verdicts.
        curves: further line figures: `{id, title, x_label, y_label, series[{label, x[], y[]}]}`.
        examples: `{evaluation, model, sample, label, prediction_clean, prediction_adv, clean, adversarial}` with
            uint8 images [C,H,W].
        environment: versions and device kind; nothing that differs between two equal machines.
        manifest: `{path, sha256, size}` of what the report was made from.
        commands: what reproduces it.
        volatile: seconds, dates, hosts, run ids: nothing else in the document may hold these.

    Raises:
        ReportError: if ledger and study do not fit.
        pydantic.ValidationError: if a row does not fit the schema; names row and field.
    """
    cells = Cells(rows)
    plan = Plan(study, cells)
    outcomes = collect(cells, plan, verdicts)
    dataset = _dataset(study, outcomes)
    groups = group_rows(outcomes)
    calibrated = [CalibrationRow.model_validate(tidy(dict(row))) for row in calibration]
    fragile, sturdy = sample_rows(outcomes)
    pictures, left_out = example_rows(examples, plan)
    figures = [
        *lines.accuracy_curves(outcomes),
        *lines.trade_off(outcomes),
        *distributions.reliability(outcomes, calibrated),
        *distributions.detection(scores),
        *lines.training(history, [row["id"] for row in plan.models]),
        *lines.further(curves),
    ]
    report = Report(
        study=str(study["name"]),
        size=str(study.get("size", "cpu")),
        title=str(study.get("title") or study["name"]),
        question=question(study, dataset, outcomes),
        summary=summary(outcomes, groups, dataset),
        threat=threat_sentences(study, outcomes),
        dataset=dataset,
        models=[ModelRow.model_validate(tidy(row)) for row in plan.models],
        evaluations=evaluation_rows(outcomes),
        worst_case=worst_case_rows(outcomes),
        groups=groups,
        differences=difference_rows(outcomes),
        calibration=calibrated,
        detection=[DetectionRow.model_validate(tidy(dict(row))) for row in detection],
        certificates=[CertificateRow.model_validate(tidy(dict(row))) for row in certificates],
        claims=[ClaimRow.model_validate(tidy(dict(row))) for row in claims],
        evidence=[Row.model_validate(tidy(dict(row))) for row in evidence],
        classes=class_rows(outcomes, dataset.classes),
        fragile=fragile,
        sturdy=sturdy,
        examples=pictures,
        examples_left_out=left_out,
        figures=_distinct(figures),
        environment={str(key): str(value) for key, value in sorted((environment or {}).items())},
        manifest=[Row.model_validate(tidy(dict(row))) for row in manifest],
        commands=[str(command) for command in commands],
        volatile=tidy({**(volatile or {}), **_seconds(costs)}),
    )
    return plain(report)


def _dataset(study: Mapping[str, Any], outcomes: Outcomes) -> DatasetRow:
    given = dict(study.get("dataset") or {"name": "unnamed"})
    samples = max((len(outcomes.cells.samples(key)) for key in outcomes.cells), default=0)
    return DatasetRow.model_validate(tidy({"samples": samples, **given}))


def _seconds(costs: pa.Table | None) -> dict[str, Any]:
    """Time and memory of each model and evaluation, summed over shards."""
    if costs is None or costs.num_rows == 0:
        return {}
    frame = costs.to_pandas().groupby(["model", "evaluation"], sort=True)
    table = frame.agg(samples=("samples", "sum"), seconds=("seconds", "sum"), peak_bytes=("peak_bytes", "max"))
    return {"seconds": table.reset_index().to_dict("records")}


def _distinct(figures: list[Any]) -> list[Any]:
    """Figures whose names fall together as file names are numbered, so that no file overwrites another."""
    seen: dict[str, int] = {}
    named = []
    for figure in figures:
        count = seen[figure.id] = seen.get(figure.id, 0) + 1
        id = figure.id if count == 1 else f"{figure.id}-{count}"
        named.append(figure.model_copy(update={"id": id, "file": f"{id}.svg", "csv": f"{id}.csv"}))
    return named
