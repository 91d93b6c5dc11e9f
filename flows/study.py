"""The flow `study`: prepare, train, evaluate, calibrate, detect, report; every heavy step a cached task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.runtime import flow_run

from robust.corruptions.clean import Clean
from robust.study import Study, load
from tasks.assemble import Outcome, last_ledger_of, ledger_of, moment, refuse_contradictions, report_of, write_outcome
from tasks.calibrate import calibrate, calibrate_work
from tasks.certify import certify, certify_works
from tasks.deploy import study_file
from tasks.detect import detect, detect_work
from tasks.diagnose import diagnose, diagnose_work
from tasks.evaluate import evaluate, evaluate_works
from tasks.examples import examples, examples_work, pictures
from tasks.home import Home
from tasks.manifest import Manifest
from tasks.networks import split_of
from tasks.prepare import prepare, prepare_work
from tasks.store import Store
from tasks.track import Tracking
from tasks.train import train, train_works
from tasks.work import Work

Shards = dict[tuple[str, int], Manifest]


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
        _judge(outcome, trainings)
        _measure(outcome, trainings)
        rows, last = ledger_of(outcome, store), last_ledger_of(outcome, store)
        refuse_contradictions(outcome, rows, home)
        shown = _pictures(outcome, trainings, rows, store)
        report = report_of(outcome, rows, last, shown, commands(spec, source), moment(), store)
        path = write_outcome(outcome, report, rows, last, home)
        tracking.reported(report, path, home)
    return path


def _train(outcome: Outcome, trainings: Mapping[str, Work], tracking: Tracking, store: Store) -> None:
    """Every network: one after the other within a process and on a GPU, side by side where the runner has processes."""
    hits = {network: train.explain(work).hit for network, work in trainings.items()}
    futures = {}
    for network, work in trainings.items():
        futures[network] = train.submit(work)
        if work.context["device"] != "cpu":
            futures[network].wait()
    for network, future in futures.items():
        outcome.trained[network] = future.result()
        tracking.trained(network, trainings[network], outcome.trained[network], hits[network], store)


def _judge(outcome: Outcome, trainings: Mapping[str, Work]) -> None:
    """Every evaluation of every network, shard by shard over the runner; the last weights too where they differ."""
    spec, data = outcome.study, outcome.data
    methods = {entry.label: entry.method for entry in spec.evaluations}
    others = {network: (trainings[network], trained) for network, trained in outcome.trained.items()}
    futures: dict[tuple[str, str, str, int], Any] = {}
    for network, trained in outcome.trained.items():
        training = trainings[network]
        jobs = {"best": evaluate_works(spec, network, trained, training, methods, data, "test", others=others)}
        if trained.files["last"].sha256 != trained.files["best"].sha256:
            jobs["last"] = evaluate_works(spec, network, trained, training, methods, data, "test", "last", others)
        if spec.calibrators:
            jobs["calibrate"] = evaluate_works(spec, network, trained, training, {"clean": Clean()}, data, "calibrate")
        for kind, works in jobs.items():
            for (label, shard), work in works.items():
                futures[kind, network, label, shard] = evaluate.submit(work)
    for (kind, network, label, shard), future in futures.items():
        place = {"best": outcome.judged, "last": outcome.last, "calibrate": outcome.fitting}[kind]
        place.setdefault(network, {})[label, shard] = future.result()


def _measure(outcome: Outcome, trainings: Mapping[str, Work]) -> None:
    """Certificates, calibration from ledger rows, detection from one pass over each set, and the validity checks."""
    spec, home = outcome.study, next(iter(trainings.values())).folder
    certificates, calibrations, detections, diagnoses = {}, {}, {}, {}
    networks = {network: (trainings[network], trained) for network, trained in outcome.trained.items()}
    for network, trained in outcome.trained.items():
        for place, proof in certify_works(spec, network, trained, trainings[network], outcome.data).items():
            certificates[network, place] = certify.submit(proof)
        if spec.calibrators:
            fitting = list(outcome.fitting[network].values())
            work = calibrate_work(spec, network, fitting, outcome.judged[network], home)
            calibrations[network] = calibrate.submit(work)
        if spec.ood:
            detections[network] = detect.submit(detect_work(spec, network, trained, trainings[network], outcome.data))
        checks = diagnose_work(spec, network, networks, outcome.data)
        if checks is not None:
            diagnoses[network] = diagnose.submit(checks)
    for (network, place), future in certificates.items():
        outcome.certified.setdefault(network, {})[place] = future.result()
    outcome.diagnosed.update({network: future.result() for network, future in diagnoses.items()})
    outcome.calibrated.update({network: future.result() for network, future in calibrations.items()})
    outcome.detected.update({network: future.result() for network, future in detections.items()})


def _pictures(outcome: Outcome, trainings: Mapping[str, Work], rows: Any, store: Store) -> list[dict[str, Any]]:
    """The most fragile and the most robust samples as attacked images, made again from their seeds."""
    from robust.report import worth_showing
    from tasks.assemble import description

    wanted: dict[tuple[str, str], list[int]] = {}
    if outcome.study.report.examples:
        for row in worth_showing(description(outcome), rows, outcome.study.report.examples):
            wanted.setdefault((row["model"], row["evaluation"]), []).append(row["sample"])
    futures = {}
    for (network, label), samples in wanted.items():
        trained, training = outcome.trained[network], trainings[network]
        work = examples_work(outcome.study, network, label, samples, trained, training, outcome.data)
        futures[network, label] = examples.submit(work)
    return [picture for (n, label), future in futures.items() for picture in pictures(future.result(), n, label, store)]


def commands(spec: Study, source: str) -> list[str]:
    """What a stranger types to get this report again."""
    size = "" if spec.size == "cpu" else f" --size {spec.size}"
    return [f"robust run {source}{size}", f"robust report {source}{size}"]
