"""The flow `evaluate`: one model that somebody made, probed, attacked, checked and reported."""

from __future__ import annotations

import logging
import shlex
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from robust.foreign.request import Request
from tasks.assemble import moment
from tasks.diagnose import diagnose
from tasks.evaluate import evaluate as judge
from tasks.examples import examples, pictures
from tasks.foreign import (
    Subject,
    diagnose_work,
    evaluate_works,
    examination_of,
    examples_work,
    probe,
    probe_work,
    subject_of,
)
from tasks.foreign_report import Findings, description, diagnosis_of, ledger_of, report_of, write
from tasks.home import Home
from tasks.store import Store
from tasks.track_evaluation import log_evaluation, tracked_evaluation

log = logging.getLogger("robust.progress")


@flow(name="evaluate", validate_parameters=True)
def evaluate(request: Request) -> str:
    """Evaluate one model; returns the path of its report."""
    home = Home.current().create()
    store = Store.of(home)
    subject = subject_of(request, home)
    with tracked_evaluation(subject, flow_run.get_id() or "direct") as run:
        found = _examined(subject, store)
        shards = _judged(found, store)
        checks = diagnose_work(subject, found.examination, found.evaluations)
        diagnosed = diagnose.submit(checks) if checks else None
        found.judged.update(shards)
        rows = ledger_of(found, store)
        if diagnosed is not None:
            log.info("%s  validity checks", request.model)
            found.diagnosis = diagnosis_of(diagnosed.result(), store)
        found.pictures.extend(_pictures(found, rows, store))
        report = report_of(found, rows, command(request), moment())
        path = write(found, report, rows)
        log_evaluation(run, report, path, home.ledger / f"{request.title}.parquet")
    return str(path)


def _examined(subject: Subject, store: Store) -> Findings:
    """What the network expects, shown."""
    request = subject.request
    log.info("%s  %s: what it expects", request.model, subject.form)
    examination = examination_of(probe.submit(probe_work(subject)).result(), store)
    log.info("%s  takes %s", request.model, examination.preparation.described())
    for finding in examination.findings:
        log.info("%s  mistake found: %s", request.model, finding)
    return Findings(subject, examination, request.evaluations(examination.access))


def _judged(found: Findings, store: Store) -> dict[tuple[str, int], Any]:
    """All shards at once; with `until`, shard by shard, as long as an interval is too wide."""
    until = found.subject.request.until
    works = list(evaluate_works(found.subject, found.examination, found.evaluations))
    last = max(shard for shard, _, _ in works)
    done: dict[tuple[str, int], Any] = {}
    waiting = {} if until else {(label, shard): judge.submit(work) for shard, label, work in works}
    for number in range(last + 1):
        mine = {(label, shard): work for shard, label, work in works if shard == number}
        futures = {key: waiting.get(key) or judge.submit(work) for key, work in mine.items()}
        done.update({key: future.result() for key, future in futures.items()})
        widest = _told(found, done, number, last, store)
        if until and widest <= until:
            break
    return done


def _told(found: Findings, done: dict[tuple[str, int], Any], number: int, last: int, store: Store) -> float:
    """Show how far it is, with accuracy so far; returns the largest half-width of the 95 % intervals."""
    from robust import ledger
    from robust.statistics import wilson

    widest = 0.0
    for label in found.evaluations:
        shards = [m for (name, _), m in done.items() if name == label]
        rows = [ledger.read(store.get(m.files["rows"])).column("correct").to_pylist() for m in shards]
        right, n = sum(map(sum, rows)), sum(map(len, rows))
        low, high = (float(limit) for limit in wilson(right, n))
        widest = max(widest, (high - low) / 2)
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        log.info("%s  %s  shard %d of %d  %.1f %% right (%s) of %d",
                 found.model, label, number + 1, last + 1, 100 * right / n, interval, n)  # fmt: skip
    return widest


def _pictures(found: Findings, rows: Any, store: Store) -> list[dict[str, Any]]:
    """The most fragile and the most robust samples as attacked images."""
    from robust.report import worth_showing

    count = found.subject.request.examples
    wanted: dict[str, list[int]] = {}
    for row in worth_showing(description(found), rows, count) if count else ():
        wanted.setdefault(row["evaluation"], []).append(row["sample"])
    futures = {
        label: examples.submit(examples_work(found.subject, found.examination, label, found.evaluations[label], chosen))
        for label, chosen in wanted.items()
    }
    return [p for label, future in futures.items() for p in pictures(future.result(), found.model, label, store)]


def command(request: Request) -> str:
    """What a stranger types to get this report again."""
    parts = [f"robust evaluate {shlex.quote(request.model)} --dataset {shlex.quote(request.dataset)}"]
    parts += [f"--trust {shlex.quote(file)}" for file in request.trust]
    parts += [f"--split {request.split}"] if request.split != "test" else []
    parts += [f"--samples {request.samples}"] if request.samples else []
    parts += [f"--attack {shlex.quote(attack)}" for attack in request.attacks]
    parts += [f"--norm {request.norm}"] if request.norm else []
    parts += [f"--eps {request.model_dump(mode='json')['eps']}"] if request.eps is not None else []
    parts += [f"--seed {request.seed}"] if request.seed else []
    parts += [f"--gate {shlex.quote(gate)}" for gate in request.gates]
    for name in ("mean", "std", "classes"):
        values = getattr(request, name)
        parts += [f"--{name} {shlex.quote(','.join(map(str, values)))}"] if values else []
    parts += [f"--name {request.name}"] if request.name else []
    parts += [f"--until {request.until}"] if request.until else []
    parts += ["--search-dtype bf16"] if request.search_dtype == "bf16" else []
    parts += [] if request.certify_first else ["--no-certify-first"]
    parts += [] if request.probe else ["--no-probe"]
    return " ".join(parts)
