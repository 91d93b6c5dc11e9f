"""Build report.json: ledgers, costs, verdicts and measurements in, one frozen document out, without a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from robust.report import curves as lines
from robust.report import distributions
from robust.report.accuracy import Outcomes, collect, evaluation_rows, group_rows, worst_case_rows
from robust.report.bars import accuracy_bars
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
from robust.report.evidence import evidence_figures
from robust.report.examples import example_rows
from robust.report.flips import flip_rows
from robust.report.measured import diagnostic_figures, measured_rows, picture_rows
from robust.report.pairs import difference_rows
from robust.report.paper import not_run_rows, paper_figure_rows, tagged
from robust.report.published import published_rows
from robust.report.samples import class_rows, sample_rows
from robust.report.shift import shift_rows
from robust.report.summary import question, summary, threat_sentences

AnyRow = TypeVar("AnyRow", bound=Row)
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
    measured: Rows = (),
    figures: Rows = (),
    pictures: Rows = (),
    published: Rows = (),
    not_run: Rows = (),
    paper_figures: Iterable[str] = (),
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
        claims: `{id, question, verdict, reason, effect, low, high, unit, attack, seeds, cost, section, rows[]}`.
        history: `{model, epoch, loss, accuracy, ...}`, one row an epoch.
        evidence: `{model, evaluation, check, value, passed, detail}`, the checks behind the verdicts.
        curves: further line figures: `{id, title, x_label, y_label, series[{label, x[], y[]}], model?}`; those of
            several networks are joined.
        examples: `{evaluation, model, sample, label, prediction_clean, prediction_adv, clean, adversarial}` with
            uint8 images [C,H,W].
        environment: versions and device kind; nothing that differs between two equal machines.
        manifest: `{path, sha256, size}` of what the report was made from.
        commands: what reproduces it.
        volatile: seconds, dates, hosts, run ids: nothing else in the document may hold these.
        measured: the diagnostics' rows: `{model, diagnostic, quantity, value}`, optionally `epoch, at, of, n, low,
            high`.
        figures: the diagnostics' figures: `{model, diagnostic, id, title, series[]}` and optional keys of `FigureRow`;
            `paper` names the published figure that one draws again.
        pictures: the diagnostics' grids: `{model, diagnostic, id, title, caption, images, columns, paper?}`.
        published: published numbers: `{table, row, column, published, source, group, evaluation, strong, quantity}`;
            ours are filled in (see `published_rows`).
        not_run: `{figure, reason}`: published figures and series that are absent.
        paper_figures: ids of the published figures that the report lists with links.

    Raises:
        ReportError: if ledger and study do not fit.
        pydantic.ValidationError: if a row does not fit the schema; names row and field.
    """
    cells = Cells(rows)
    plan = Plan(study, cells)
    outcomes = collect(cells, plan, verdicts)
    dataset = _dataset(study, outcomes)
    groups = group_rows(outcomes)
    calibrated = _valid(CalibrationRow, calibration)
    detected = _valid(DetectionRow, detection)
    trained = list(history)
    findings = measured_rows(measured, plan)
    grids, grids_left_out = picture_rows(pictures)
    absent = not_run_rows(not_run)
    beside = published_rows(published, outcomes, findings, trained)
    fragile, sturdy = sample_rows(outcomes)
    attacked, left_out = example_rows(examples, plan)
    wanted = list(paper_figures)
    own = [
        *lines.accuracy_curves(outcomes),
        *lines.trade_off(outcomes),
        *accuracy_bars(outcomes, groups),
        *distributions.reliability(outcomes, calibrated),
        *distributions.detection(scores),
        *lines.training(trained, [row["id"] for row in plan.models]),
        *evidence_figures(curves, plan.groups),
    ]
    drawn = _distinct([*tagged(own, wanted), *diagnostic_figures(figures)])
    tables: dict[str, Sequence[Any]] = {"detection": detected, "measured": findings}
    tables |= {"published": beside, "groups": groups}
    report = Report(
        study=str(study["name"]),
        size=str(study.get("size", "cpu")),
        title=str(study.get("title") or study["name"]),
        question=question(study, dataset, outcomes),
        summary=summary(outcomes, groups, dataset),
        threat=threat_sentences(study, outcomes),
        dataset=dataset,
        models=_valid(ModelRow, plan.models),
        evaluations=evaluation_rows(outcomes),
        worst_case=worst_case_rows(outcomes),
        groups=groups,
        differences=difference_rows(outcomes),
        calibration=calibrated,
        detection=detected,
        certificates=_valid(CertificateRow, certificates),
        claims=_valid(ClaimRow, claims),
        evidence=_valid(Row, evidence),
        classes=class_rows(outcomes, dataset.classes),
        fragile=fragile,
        sturdy=sturdy,
        examples=attacked,
        examples_left_out=left_out,
        figures=drawn,
        measured=findings,
        pictures=grids,
        pictures_left_out=grids_left_out,
        published=beside,
        paper_figures=paper_figure_rows(wanted, drawn, grids, tables, absent),
        not_run=absent,
        shift=shift_rows(outcomes, str(study.get("base") or "")),
        flips=flip_rows(outcomes, str(study.get("base") or "")),
        environment={str(key): str(value) for key, value in sorted((environment or {}).items())},
        manifest=_valid(Row, manifest),
        commands=[str(command) for command in commands],
        volatile=tidy({**(volatile or {}), **_seconds(costs)}),
    )
    return plain(report)


def _valid(kind: type[AnyRow], rows: Rows) -> list[AnyRow]:
    """Rows of the schema; pydantic names the row's field that does not fit."""
    return [kind.model_validate(tidy(dict(row))) for row in rows]


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
