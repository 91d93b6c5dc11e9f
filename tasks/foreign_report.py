"""The report on one foreign model: ledger, verdict, what the probe found, and the one answer that `--json` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from robust import ledger
from robust.attacks.attack import Attack
from robust.diagnostics.masking import Diagnosis, contradictions
from robust.diagnostics.verdict import Check, attached, decide, ledger_checks
from robust.foreign.findings import MISTAKES
from tasks.assemble import described
from tasks.manifest import Manifest
from tasks.store import Store

if TYPE_CHECKING:
    from robust.foreign.probe import Examination
    from robust.judging import Evaluation
    from tasks.foreign import Subject

SEVERITY = ("trusted", "suspect", "broken")
STOPPED = "stopped early"
FOUND = "mistake found"


@dataclass
class Findings:
    """What the tasks of one evaluation returned."""

    subject: Subject
    examination: Examination
    evaluations: dict[str, Evaluation]
    judged: dict[tuple[str, int], Manifest] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None
    pictures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def model(self) -> str:
        """The id of the model in ledger and report."""
        return self.subject.request.model


def ledger_of(found: Findings, store: Store) -> pa.Table:
    """All rows.

    Raises:
        Contradiction: if an attack succeeded where a bound proved that none can.
    """
    from robust.certificates.contradiction import refuse
    from robust.evaluation import threats_of

    parts = []
    for (label, _), manifest in found.judged.items():
        rows = ledger.read(store.get(manifest.files["rows"])).to_pandas()
        parts.append(ledger.table(rows.assign(model=found.model, seed=found.subject.request.seed, evaluation=label)))
    whole = ledger.merge(parts)
    refuse(ledger.frame_of(whole, "distance", "certificate", "radius"), threats_of(found.evaluations))
    return whole


def costs_of(found: Findings) -> pa.Table:
    """Seconds and memory of each shard, measured when it was computed."""
    seed = found.subject.request.seed
    rows = [
        (found.model, seed, label, shard, m.metrics["samples"], m.timings["seconds"], int(m.timings["peak_bytes"]))
        for (label, shard), m in found.judged.items()
    ]
    columns: list[Any] = list(zip(*rows)) if rows else [[] for _ in ledger.COSTS]
    return pa.table([pa.array(c, type=f.type) for c, f in zip(columns, ledger.COSTS)], schema=ledger.COSTS)


def report_of(found: Findings, rows: pa.Table, command: str, volatile: Mapping[str, Any]) -> dict[str, Any]:
    """report.json."""
    from robust.report import build
    from tasks.assemble import versions

    verdicts, evidence = _verdicts(found, rows)
    request, examination = found.subject.request, found.examination
    report = build(
        description(found),
        rows,
        costs=costs_of(found),
        verdicts=verdicts,
        evidence=[*_probed(found), *_stopped(found, rows), *evidence],
        curves=found.diagnosis.curves if found.diagnosis else (),
        examples=found.pictures,
        environment=versions(),
        manifest=[{"path": found.model, "sha256": found.subject.identity, "size": 0}],
        commands=[command],
        volatile=volatile,
    )
    plain = {**request.model_dump(mode="json", exclude={"folder", "trust"}), "found": examination.to_json()}
    return {**report, "settings": plain}


def description(found: Findings) -> dict[str, Any]:
    """What was asked, as the report wants it."""
    from robust.datasets.adapt import adapt

    subject = found.subject
    data = adapt(subject.data, found.examination.preparation.shape)
    return {
        "name": subject.request.title,
        "title": f"{subject.request.model} on {data.name}",
        "dataset": {
            "name": data.name,
            "digest": data.digest,
            "split": data.split,
            "classes": list(data.classes),
            "samples": len(data),
        },
        "models": [
            {"id": found.model, "model": found.model, "objective": "", "seed": subject.request.seed,
             "sha256": subject.identity, "form": subject.form, "input": found.examination.preparation.described()}
        ],
        "evaluations": [described(label, method) for label, method in found.evaluations.items()],
    }  # fmt: skip


def answer(report: Mapping[str, Any], ledger_path: Path) -> dict[str, Any]:
    """The one object of `robust evaluate --json`: the lowest number, its interval and verdict, and the cost of all.

    Asked with `until`, it also says whether that stopped the evaluation early; `n` is then how far it came.
    """
    rows = report["evaluations"]
    clean = next(row for row in rows if row["name"] == "clean")
    attacks = [row for row in rows if row["norm"]]
    worst = min(report["worst_case"] or attacks, key=lambda row: (row["accuracy"], -SEVERITY.index(row["verdict"])))
    worst = min([worst, *attacks], key=lambda row: row["accuracy"])  # an attack without a size may leave less
    stopped = any(row.get("check") == STOPPED for row in report["evidence"])
    return {
        "clean_accuracy": clean["accuracy"],
        "robust_accuracy": worst["accuracy"],
        "interval": [worst["low"], worst["high"]],
        "n": worst["n"],
        "verdict": worst["verdict"],
        "reasons": worst["reasons"],
        "forward": sum(row["forward"] for row in rows),
        "backward": sum(row["backward"] for row in rows),
        "queries": sum(row["queries"] for row in rows),
        "seconds": round(sum(row["seconds"] for row in report["volatile"].get("seconds", [])), 3),
        "ledger": str(ledger_path),
        **({"stopped_early": stopped} if report["settings"].get("until") else {}),
    }


def _verdicts(found: Findings, rows: pa.Table) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Verdict rows and the evidence behind them."""
    frame = rows.select(["model", "evaluation", "sample", "correct"]).to_pandas()
    methods = found.evaluations
    checks = [*ledger_checks(frame, methods), *_access(found)]
    if found.diagnosis:
        measured = attached(found.diagnosis.checks, methods)
        checks = [*checks, *measured, *contradictions(frame, methods, found.diagnosis)]
    evidence = [
        {"model": found.model, "evaluation": c.evaluation, "check": c.check, "value": c.value, "passed": c.passed,
         "detail": "" if c.passed else c.reason}
        for c in checks
    ]  # fmt: skip
    verdicts = []
    for label, method in methods.items():
        if isinstance(method, Attack):
            verdict, reasons = decide([c for c in checks if c.evaluation == label])
            verdicts.append({"model": found.model, "evaluation": label, "verdict": verdict, "reasons": reasons})
    return verdicts, evidence


def _access(found: Findings) -> list[Check]:
    """Attacks without gradients say little about adversaries who have them; so does leaving out the checks."""
    access = found.examination.access
    reason = ""
    if access != "gradient":
        reason = f"the model gives {access} alone: an adversary with its weights and gradients may leave far less"
    elif found.diagnosis is None:
        reason = f"no validity checks were made: {_unchecked(found)}"
    if not reason:
        return []
    labels = [label for label, method in found.evaluations.items() if isinstance(method, Attack)]
    return [Check(found.model, label, "white-box checks", False, 0.0, 1.0, reason) for label in labels]


def _unchecked(found: Findings) -> str:
    """Why attacks with gradients were not checked."""
    from robust.evaluation import threats_of

    sizes = [threat.eps for threat in threats_of(found.evaluations).values()]
    if not found.subject.request.validity:
        return "none were asked for (validity 0)"
    if any(sizes):
        return "they have not been run"
    if 0 in sizes:
        return "at eps 0 no perturbation is allowed, so there is nothing that attacks could search"
    return "these attacks have no eps at which they could be made"


def _probed(found: Findings) -> Sequence[dict[str, Any]]:
    """What the probe found, as evidence: the clean accuracy first, then each mistake."""
    seen = found.examination
    if not seen.n:
        return []
    clean = f"{100 * seen.low:.1f} to {100 * seen.high:.1f} % of images that chose nothing are right with these inputs"
    looked = f"{seen.looked} images looked at, {seen.n} of them chose nothing"
    rows: list[tuple[str, float | None, bool | None, str]] = [
        ("inputs confirmed", seen.accuracy, True, f"{seen.preparation.described()}: {clean} ({looked})")
    ]
    # a mistake that was found and made good is neither a check that passed nor one that failed
    rows += [(f"{FOUND}: {f.mistake}", f.accuracy, None, f.told) for f in seen.findings]
    unmade = [mistake for mistake in MISTAKES if mistake not in {f.mistake for f in seen.findings}]
    rows += [("mistakes looked for, not found", None, None, ", ".join(unmade))]
    return [
        {"model": found.model, "evaluation": "", "check": check, "value": value, "passed": passed, "detail": detail}
        for check, value, passed, detail in rows
    ]


def _stopped(found: Findings, rows: pa.Table) -> Sequence[dict[str, Any]]:
    """That `until` was reached before the last image, as evidence: how many were judged, and how many asked for."""
    until, asked = found.subject.request.until, len(found.subject.data)
    judged = rows.num_rows // max(1, len(found.evaluations))
    if until is None or judged >= asked:
        return []
    detail = f"{STOPPED}: {judged:,} of {asked:,} images settle every 95 % interval to ±{100 * until:g} %"
    row = {"model": found.model, "evaluation": "", "check": STOPPED, "value": judged, "passed": True, "detail": detail}
    return [row]


def write(found: Findings, report: dict[str, Any], rows: pa.Table) -> Path:
    """Ledger, costs, report and answer under the home; returns the path of report.html."""
    from robust.report import render

    home, name = found.subject.home, found.subject.request.title
    ledger.write(rows, home.ledger / f"{name}.parquet")
    ledger.write(costs_of(found), home.ledger / f"{name}.costs.parquet")
    return render(report, home.reports / name)


def diagnosis_of(manifest: Manifest, store: Store) -> Diagnosis:
    """What the validity checks stored."""
    return Diagnosis.from_json(json.loads(store.read(manifest.files["diagnosis"])))
