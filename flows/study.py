"""The flow `study`: prepare, train, evaluate, calibrate, detect, report; every heavy step a cached task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.runtime import flow_run

from robust.corruptions.clean import Clean
from robust.study import Study
from robust.study_entries import EvaluationEntry
from robust.study_file import load
from tasks.announce import publish
from tasks.assemble import (
    Outcome,
    built_of,
    last_ledger_of,
    ledger_of,
    moment,
    refuse_contradictions,
    report_of,
    write_outcome,
)
from tasks.calibrate import calibrate, calibrate_work
from tasks.certify import certify, certify_works
from tasks.conformal import conformal, conformal_works
from tasks.deploy import study_file
from tasks.detect import detect, detect_work
from tasks.diagnose import diagnose, diagnose_work
from tasks.evaluate import evaluate, evaluate_works
from tasks.examples import examples, examples_work, pictures
from tasks.home import Home
from tasks.measure import measure, measure_works
from tasks.networks import Built, split_of
from tasks.prepare import prepare, prepare_work
from tasks.progress import counter
from tasks.store import Store
from tasks.track import Tracking
from tasks.train import train, train_works
from tasks.work import Work


@flow(name="study", validate_parameters=True)
def study(
    studies: list[str],
    size: Literal["smoke", "cpu", "full"] = "cpu",
    changes: list[str] | None = None,
    seeds: list[int] | None = None,
) -> list[str]:
    """Run study files one after the other; returns the paths of their reports."""
    home = Home.current().create()
    return [str(run_study(load(path, size, changes or (), seeds), path, home)) for path in map(study_file, studies)]


def run_study(spec: Study, source: str, home: Home) -> Path:
    """One study inside the running flow; returns the path of report.html."""
    store = Store.of(home)
    for entry in spec.ood:  # a set that is not there is found out now, not after the training
        split_of(entry.method.settings(), "test")
    outcome = Outcome(spec, prepare(prepare_work(spec.dataset, home)))
    trainings = train_works(spec, outcome.data, home)
    with Tracking(home, spec, outcome.data, flow_run.get_id() or "direct") as tracking:
        _train(outcome, trainings, tracking, store)
        networks = built_of(outcome, trainings)
        _judge(outcome, networks)
        _measure(outcome, networks, home)
        rows, last = ledger_of(outcome, store), last_ledger_of(outcome, store)
        refuse_contradictions(outcome, rows, home)
        shown = _pictures(outcome, networks, rows, store)
        report = report_of(outcome, rows, last, shown, commands(spec, source), moment(), store)
        path = write_outcome(outcome, report, rows, last, home)
        tracking.reported(report, path, home)
    publish(f"report-{spec.title}", markdown(report, path.relative_to(home.root)))
    return path


def _train(outcome: Outcome, trainings: Mapping[str, Work], tracking: Tracking, store: Store) -> None:
    """Every network: one after the other within a process and on each GPU, side by side where the runner has more."""
    hits = {network: train.explain(work).hit for network, work in trainings.items()}
    futures = {}
    for network, work in trainings.items():
        futures[network] = train.submit(work)
    for network, future in futures.items():
        outcome.trained[network] = future.result()
        tracking.trained(network, trainings[network], outcome.trained[network], hits[network], store)


def _judge(outcome: Outcome, networks: Mapping[str, Built]) -> None:
    """Every evaluation of every network, shard by shard over the runner; the last weights too where they differ."""
    spec, data = outcome.study, outcome.data
    clean = EvaluationEntry(label="clean", method=Clean())
    futures: dict[tuple[str, str, str, int], Any] = {}
    for name, built in networks.items():
        jobs = {"best": evaluate_works(spec, built, spec.evaluations, data, "test", others=networks)}
        if built.network.defence is None and built.weights("last") != built.weights("best"):
            jobs["last"] = evaluate_works(spec, built, spec.evaluations, data, "test", "last", networks)
        if spec.calibrators:
            jobs["calibrate"] = evaluate_works(spec, built, [clean], data, "calibrate")
        for kind, works in jobs.items():
            for (label, shard), work in works.items():
                futures[kind, name, label, shard] = evaluate.submit(work)
    told = counter("evaluated", len(futures))
    for (kind, name, label, shard), future in futures.items():
        place = {"best": outcome.judged, "last": outcome.last, "calibrate": outcome.fitting}[kind]
        place.setdefault(name, {})[label, shard] = future.result()
        told(f"{name}  {label}")


def _measure(outcome: Outcome, networks: Mapping[str, Built], home: Home) -> None:
    """Certificates, calibration from ledger rows, detection from one pass over each set, diagnostics, validity."""
    spec, data = outcome.study, outcome.data
    certificates, calibrations, sets, detections, diagnoses, measurements = {}, {}, {}, {}, {}, {}
    for name, built in networks.items():
        if spec.calibrators:
            fitting = list(outcome.fitting[name].values())
            calibrations[name] = calibrate.submit(calibrate_work(spec, name, fitting, outcome.judged[name], home))
        for label, work in conformal_works(spec, built, data).items():
            sets[name, label] = conformal.submit(work)
        checks = diagnose_work(spec, built, networks, data)
        if checks is not None:
            diagnoses[name] = diagnose.submit(checks)
        for label, work in measure_works(spec, built, data).items():
            measurements[name, label] = measure.submit(work)
        if built.network.defence is None:  # proofs and feature scores are of the network itself
            for place, proof in certify_works(spec, built, data).items():
                certificates[name, place] = certify.submit(proof)
            if spec.ood:
                detections[name] = detect.submit(detect_work(spec, built, data))
    of_networks = ((outcome.diagnosed, diagnoses), (outcome.calibrated, calibrations), (outcome.detected, detections))
    of_parts: Sequence[tuple[dict[str, Any], dict[Any, Any]]] = (
        (outcome.certified, certificates), (outcome.conformal, sets), (outcome.measured, measurements),
    )  # fmt: skip
    told = counter("measured", sum(len(futures) for _, futures in (*of_networks, *of_parts)))
    for parts, waiting in of_parts:
        for (name, part), future in waiting.items():
            parts.setdefault(name, {})[part] = future.result()
            told(name)
    for found, waiting in of_networks:
        for name, future in waiting.items():
            found[name] = future.result()
            told(name)


def _pictures(outcome: Outcome, networks: Mapping[str, Built], rows: Any, store: Store) -> list[dict[str, Any]]:
    """The most fragile and the most robust samples as attacked images, made again from their seeds."""
    from robust.report import worth_showing
    from tasks.assemble import description

    wanted: dict[tuple[str, str], list[int]] = {}
    if outcome.study.report.examples:
        for row in worth_showing(description(outcome), rows, outcome.study.report.examples):
            wanted.setdefault((row["model"], row["evaluation"]), []).append(row["sample"])
    futures = {}
    for (network, label), samples in wanted.items():
        work = examples_work(outcome.study, networks[network], label, samples, outcome.data)
        futures[network, label] = examples.submit(work)
    return [picture for (n, label), future in futures.items() for picture in pictures(future.result(), n, label, store)]


def markdown(report: Mapping[str, Any], path: Path) -> str:
    """What the report found, as Prefect's page of the flow run shows it; labels hold no letter that Markdown reads."""
    rows = [
        f"| {row['model']} | {row['label']} | {row['norm'] or ''} {row['eps'] or ''} | {100 * row['accuracy']:.1f} "
        f"| {100 * row['low']:.1f} to {100 * row['high']:.1f} | {row['verdict'] if row['norm'] else ''} |"
        for row in [*report["evaluations"], *report["worst_case"]]
    ]
    head = "| network | evaluation | threat | accuracy, % | 95 % interval | verdict |"
    return "\n".join([f"The report: `{path}` in the home", "", head, "|---|---|---|---:|---:|---|", *rows])


def commands(spec: Study, source: str) -> list[str]:
    """What a stranger types to get this report again."""
    size = "" if spec.size == "cpu" else f" --size {spec.size}"
    return [f"robust run {source}{size}", f"robust report {source}{size}"]
