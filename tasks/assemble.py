"""Assemble: from the shards of a study to its ledger, and from the ledger to report.json and the report."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import pyarrow as pa

from robust import ledger
from robust.attacks.attack import Attack
from robust.corruptions.corruption import Corruption
from robust.corruptions.sequence_frame import SequenceFrame
from robust.diagnostics.masking import Diagnosis
from robust.diagnostics.verdict import strength
from robust.method import fraction_text
from tasks.calibrate import draws_of
from tasks.certify import certificate_rows
from tasks.claims import claim_rows, evidence_of
from tasks.home import Home
from tasks.manifest import Manifest
from tasks.measure import measured
from tasks.networks import Built
from tasks.store import Store
from tasks.work import Work

if TYPE_CHECKING:
    from robust.study import Study
    from robust.study_entries import EvaluationEntry


@dataclass
class Outcome:
    """What the tasks of one study returned, by network id (and evaluation label and shard)."""

    study: Study
    data: Manifest
    trained: dict[str, Manifest] = field(default_factory=dict)
    judged: dict[str, dict[tuple[str, int], Manifest]] = field(default_factory=dict)
    last: dict[str, dict[tuple[str, int], Manifest]] = field(default_factory=dict)
    fitting: dict[str, dict[tuple[str, int], Manifest]] = field(default_factory=dict)
    calibrated: dict[str, Manifest] = field(default_factory=dict)
    conformal: dict[str, dict[str, Manifest]] = field(default_factory=dict)
    detected: dict[str, Manifest] = field(default_factory=dict)
    diagnosed: dict[str, Manifest] = field(default_factory=dict)
    measured: dict[str, dict[str, Manifest]] = field(default_factory=dict)
    certified: dict[str, dict[tuple[str, int], Manifest]] = field(default_factory=dict)


def built_of(outcome: Outcome, trainings: Mapping[str, Work]) -> dict[str, Built]:
    """Every classifier that the study judges, by id, from its finished trainings."""
    return {
        network.id: Built(network, trainings[network.base], outcome.trained[network.base])
        for network in outcome.study.judged()
    }


def ledger_of(outcome: Outcome, store: Store) -> pa.Table:
    """All rows of a study: every evaluation and certificate of every best network, and its detection scores."""
    parts = [part for kind in (outcome.judged, outcome.certified) for part in _parts(outcome.study, kind, store)]
    seeds = {network.id: network.seed for network in outcome.study.judged()}
    for network, manifest in outcome.detected.items():
        rows = ledger.read(store.get(manifest.files["rows"]))
        parts.append(labelled(rows, model=network, seed=seeds[network]))
    return ledger.merge(parts)


def last_ledger_of(outcome: Outcome, store: Store) -> pa.Table:
    """The same for the weights after the last epoch, where they differ from the best."""
    return ledger.merge(_parts(outcome.study, outcome.last, store))


def _parts(study: Study, judged: Mapping[str, Mapping[tuple[str, int], Manifest]], store: Store) -> list[pa.Table]:
    seeds = {network.id: network.seed for network in study.judged()}
    parts = []
    for network, shards in judged.items():
        for (label, _), manifest in shards.items():
            rows = ledger.read(store.get(manifest.files["rows"]))
            parts.append(labelled(rows, model=network, seed=seeds[network], evaluation=label))
    return parts


def labelled(rows: pa.Table, **labels: str | int) -> pa.Table:
    """The rows with some columns set to one value each: what a shard does not know of itself."""
    for column, value in labels.items():
        field = ledger.SCHEMA.field(column)
        constant = pa.repeat(pa.scalar(value, type=field.type), rows.num_rows)
        rows = rows.set_column(ledger.SCHEMA.get_field_index(column), field, constant)
    return rows


def costs_of(outcome: Outcome) -> pa.Table:
    """Seconds and memory of each shard: measured when it was computed, whether now or in an earlier run."""
    seeds = {network.id: network.seed for network in outcome.study.judged()}
    rows = [
        (network, seeds[network], label, shard, int(cast("int", m.metrics["samples"])), m.timings["seconds"],
         int(m.timings["peak_bytes"]))
        for network, shards in outcome.judged.items()
        for (label, shard), m in shards.items()
    ]  # fmt: skip
    columns: list[Any] = list(zip(*rows)) if rows else [[] for _ in ledger.COSTS]
    return pa.table([pa.array(c, type=f.type) for c, f in zip(columns, ledger.COSTS)], schema=ledger.COSTS)


def description(outcome: Outcome) -> dict[str, Any]:
    """The study as the report wants it: names, threat models, digests."""
    study, data = outcome.study, outcome.data
    digests, sizes = cast("dict[str, str]", data.facts["digests"]), cast("dict[str, int]", data.facts["sizes"])
    return {
        "name": study.title,
        "size": study.size,
        "title": study.report.title,
        "dataset": {
            "name": study.dataset.name,
            "digest": digests["test"],
            "split": "test",
            "classes": data.facts["classes"],
            "samples": sizes["test"],
        },
        "models": [
            {
                "id": network.id,
                "model": network.model.label,
                "objective": network.group.partition(".")[2],
                "seed": network.seed,
                "sha256": outcome.trained[network.base].files["best"].sha256,
            }
            for network in study.judged()
            if network.base in outcome.trained
        ],
        "evaluations": [_evaluation(entry) for entry in study.evaluations],
        "base": study.report.base,
    }


def described(label: str, method: Attack | Corruption) -> dict[str, Any]:
    """What the report needs to know of an evaluation, whatever it is."""
    threat = method.threat if isinstance(method, Attack) else None
    return {
        "label": label,
        "name": method.name,
        "norm": threat.norm if threat else None,
        "eps": fraction_text(threat.eps) if threat and threat.eps is not None else None,
        "strength": strength(method) if isinstance(method, Attack) else None,
    }


def _evaluation(entry: EvaluationEntry) -> dict[str, Any]:
    label, method, after = entry.label, entry.method, entry.after
    plain = {k: v for k, v in method.settings().items() if k not in ("name", "threat")}
    return {
        **described(label, method),
        "severity": method.severity if isinstance(method, Corruption) and method.name != "clean" else None,
        **({"sequence": method.sequence, "frame": method.frame} if isinstance(method, SequenceFrame) else {}),
        "after": None if after is None else f"{after.name} {after.severity}",
        "protocol": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in plain.items() if value is not None),
    }


def verdicts_of(
    study: Study, rows: pa.Table, diagnoses: Mapping[str, Diagnosis]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Verdict rows {model, evaluation, verdict, reasons} and the evidence behind them, from ledger and diagnoses."""
    from robust.diagnostics.masking import contradictions
    from robust.diagnostics.verdict import attached, decide, ledger_checks

    methods = {entry.label: entry.method for entry in study.evaluations}
    columns = ["model", "evaluation", "sample", "correct"]
    frame = rows.select(columns).to_pandas()
    frame = frame[frame["evaluation"].isin(methods)]
    verdicts, evidence = [], []
    for model, of_model in frame.groupby("model", sort=True):
        checks = ledger_checks(of_model, methods)
        if model in diagnoses:
            found = diagnoses[str(model)]
            checks = [*checks, *attached(found.checks, methods), *contradictions(of_model, methods, found)]
        evidence += [
            {"model": model, "evaluation": c.evaluation, "check": c.check, "value": c.value, "passed": c.passed,
             "detail": "" if c.passed else c.reason}
            for c in checks
        ]  # fmt: skip
        for label, method in methods.items():
            if isinstance(method, Attack):
                verdict, reasons = decide([c for c in checks if c.evaluation == label])
                verdicts.append({"model": model, "evaluation": label, "verdict": verdict, "reasons": reasons})
    return verdicts, evidence


def checkpoint_rows(outcome: Outcome, best: pa.Table, last: pa.Table) -> list[dict[str, Any]]:
    """Accuracy of the chosen and of the last weights, side by side, so that nobody has to trust the choice."""

    def accuracy(rows: pa.Table) -> pd.Series:
        frame = rows.select(["model", "evaluation", "correct"]).to_pandas().dropna()
        return frame.groupby(["model", "evaluation"])["correct"].mean()

    chosen, final = accuracy(best), accuracy(last)
    return [
        {
            "model": network,
            "evaluation": entry.label,
            "best_epoch": outcome.trained[network].metrics["best_epoch"],
            "best": float(chosen[network, entry.label]),
            "last": float(final.get((network, entry.label), chosen[network, entry.label])),
        }
        for network in outcome.trained
        for entry in outcome.study.evaluations
        if (network, entry.label) in chosen.index
    ]


def report_of(
    outcome: Outcome,
    rows: pa.Table,
    last: pa.Table,
    examples: Sequence[dict[str, Any]],
    commands: Sequence[str],
    volatile: dict[str, Any],
    store: Store,
) -> dict[str, Any]:
    """report.json of one study."""
    from robust.report import build

    diagnoses = {
        network: Diagnosis.from_json(json.loads(store.read(manifest.files["diagnosis"])))
        for network, manifest in outcome.diagnosed.items()
    }
    verdicts, evidence = verdicts_of(outcome.study, rows, diagnoses)
    tables, found = tables_of(outcome, store), measurements_of(outcome, store)
    shown, costs = outcome.study.report, costs_of(outcome)
    all_tables = {**tables, "measured": found["rows"], "resampled": resamples_of(outcome, store)}
    evidence_rows = evidence_of(outcome.study, rows, costs, all_tables, verdicts)
    report = build(
        description(outcome),
        rows,
        costs=costs,
        measured=found["rows"],
        figures=found["figures"],
        pictures=found["pictures"],
        claims=claim_rows(outcome.study, evidence_rows),
        published=shown.published,
        not_run=shown.not_run,
        paper_figures=shown.paper_figures,
        verdicts=verdicts,
        evidence=evidence,
        curves=[{**curve, "model": model} for model, each in diagnoses.items() for curve in each.curves],
        examples=examples,
        environment=versions(),
        manifest=_inputs(outcome),
        commands=commands,
        certificates=certificate_rows(outcome.study, rows),
        volatile=volatile,
        **tables,
    )
    return {**report, "checkpoints": checkpoint_rows(outcome, rows, last), "settings": outcome.study.settings()}


def tables_of(outcome: Outcome, store: Store) -> dict[str, list[dict[str, Any]]]:
    """The rows of calibrations, detections and trainings, each with its network."""
    tables: dict[str, list[dict[str, Any]]] = {"calibration": [], "detection": [], "scores": [], "history": []}
    parts = [
        *(("calibration", network, each.files["rows"]) for network, each in outcome.calibrated.items()),
        *(
            ("calibration", network, each.files["rows"])
            for network, by_label in outcome.conformal.items()
            for each in by_label.values()
        ),
        *(("detection", network, each.files["metrics"]) for network, each in outcome.detected.items()),
        *(("scores", network, each.files["kept"]) for network, each in outcome.detected.items()),
        *(("history", network, each.files["history"]) for network, each in outcome.trained.items()),
    ]
    for name, network, file in parts:
        tables[name] += [{"model": network, **row} for row in json.loads(store.read(file))]
    return tables


def resamples_of(outcome: Outcome, store: Store) -> list[dict[str, Any]]:
    """The calibration metrics in bootstrap resamples, which claims compare."""
    calibrated = outcome.calibrated.items()
    return [{"model": network, **row} for network, manifest in calibrated for row in draws_of(manifest, store)]


def measurements_of(outcome: Outcome, store: Store) -> dict[str, list[dict[str, Any]]]:
    """Rows, figures and pictures of all diagnostics, in the study's order."""
    found: dict[str, list[dict[str, Any]]] = {"rows": [], "figures": [], "pictures": []}
    for network, by_label in outcome.measured.items():
        for label, manifest in by_label.items():
            for kind, rows in measured(manifest, network, label, store).items():
                found[kind] += rows
    return found


def _inputs(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {"path": f"{network}/{file.name}", "sha256": file.sha256, "size": file.bytes}
        for network, manifest in outcome.trained.items()
        for role, file in sorted(manifest.files.items())
    ]


def versions() -> dict[str, str]:
    """What a rerun must have to give the same bytes."""
    import importlib.metadata

    names = ("torch", "torchvision", "numpy", "pandas", "prefect", "mlflow", "robust-flows")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}


def refuse_contradictions(outcome: Outcome, rows: pa.Table, home: Home) -> None:
    """Stop where an attack succeeded inside a certificate; the ledger is kept as the evidence.

    Raises:
        Contradiction: naming the first pair and the ledger.
    """
    from robust.certificates.contradiction import Contradiction, refuse
    from robust.evaluation import threats_of

    study = outcome.study
    threats = threats_of({entry.label: entry.method for entry in study.evaluations})
    threats |= {entry.label: entry.method.threat for entry in study.certificates}
    try:
        refuse(ledger.frame_of(rows, "distance", "certificate", "radius"), threats)
    except Contradiction as found:
        path = home.ledger / f"{study.title}.parquet"
        ledger.write(rows, path)
        raise Contradiction(f"{found}; all rows are in {path}") from None


def write_outcome(outcome: Outcome, report: dict[str, Any], rows: pa.Table, last: pa.Table, home: Home) -> Path:
    """The ledger, its costs and the report under the home; returns the path of report.html."""
    from robust.report import render

    title = outcome.study.title
    ledger.write(rows, home.ledger / f"{title}.parquet")
    ledger.write(last, home.ledger / f"{title}.last.parquet")
    ledger.write(costs_of(outcome), home.ledger / f"{title}.costs.parquet")
    return render(report, home.reports / title, pdf=outcome.study.report.pdf)


def moment() -> dict[str, Any]:
    """When and where: what differs between two equal runs."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": platform.node(),
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
