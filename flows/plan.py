"""`robust plan`: for every step of a study, whether the cache holds it, which field or module caused each miss, and
how many passes a missing evaluation costs at most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flows.run import study_files
from tasks.home import Home, activate

if TYPE_CHECKING:
    from robust.study import Network, Size, Study
    from tasks.manifest import Manifest
    from tasks.networks import Built

Step = dict[str, Any]
UNCOUNTED: Step = {"forward": None, "backward": None}


def plan_study(
    study: str, size: str, changes: Sequence[str], home: Path, seeds: Sequence[int] | None = None
) -> list[Step]:
    """Steps {step, key, hit, because[], forward, backward} in the order of the flow; nothing is computed.

    A step behind a miss has no key yet: it depends on bytes that do not exist. `forward` and `backward` are the passes
    of a missing evaluation at most, all its samples together; None for other steps, and where an attack declares none.
    """
    files = study_files([study])
    place = activate(Home(home))
    from robust.study_file import load

    specs = [load(file, cast("Size", size), changes, seeds) for file in files]
    return [step for spec in specs for step in _steps(spec, place)]


def plan_table(steps: Sequence[Step]) -> str:
    """The plan for a terminal of 80 columns, with the count of hits and misses last."""
    lines = []
    for step in steps:
        lines.append(f"{'hit ' if step['hit'] else 'MISS'}  {step['step']}")
        lines += [f"        {reason}" for reason in step["because"]]
        if step["forward"] is not None:
            lines.append(f"        at most {step['forward']:,} forward and {step['backward']:,} backward passes")
    hits = sum(step["hit"] for step in steps)
    return "\n".join([*lines, f"{hits} of {len(steps)} steps are in the cache", *_bound(steps)])


def _bound(steps: Sequence[Step]) -> list[str]:
    """The sum over the missing evaluations whose attacks declare their passes."""
    known = [step for step in steps if step["forward"] is not None]
    if not known:
        return []
    forward, backward = (sum(step[kind] for step in known) for kind in ("forward", "backward"))
    return [f"missing evaluations: at most {forward:,} forward and {backward:,} backward passes"]


def _steps(study: Study, home: Home) -> Iterator[Step]:
    from tasks.networks import Built
    from tasks.prepare import prepare, prepare_work
    from tasks.train import train, train_works

    work = prepare_work(study.dataset, home)
    yield _explained("prepare", prepare, work)
    data = prepare.run(work)  # fingerprints only: the keys of all later steps stand on them
    trainings = train_works(study, data, home)
    done = {name: manifest for name, training in trainings.items() if (manifest := train.find(training)) is not None}
    networks = {n.id: Built(n, trainings[n.base], done[n.base]) for n in study.judged() if n.base in done}
    for network in study.judged():
        if network.defence is None:
            yield _explained("train", train, trainings[network.id])
        if network.id in networks and _have_surrogates(study, networks):
            yield from _judging(study, networks[network.id], networks, data, home)
        else:
            yield from _waiting(study, network, trainings[network.base].key, data.facts)


def _judging(study: Study, built: Built, networks: Mapping[str, Built], data: Manifest, home: Home) -> Iterator[Step]:
    """All steps behind one finished training, in the order of the flow."""
    from robust.corruptions.clean import Clean
    from robust.study_entries import EvaluationEntry
    from tasks.calibrate import calibrate, calibrate_work
    from tasks.certify import certify, certify_works
    from tasks.conformal import conformal, conformal_works
    from tasks.detect import detect, detect_work
    from tasks.diagnose import diagnose, diagnose_work
    from tasks.evaluate import evaluate, evaluate_works
    from tasks.measure import measure, measure_works

    judged = evaluate_works(study, built, study.evaluations, data, "test", others=networks)
    clean = EvaluationEntry(label="clean", method=Clean())
    fitting = evaluate_works(study, built, [clean], data, "calibrate") if study.calibrators else {}
    alone = built.network.defence is None
    if alone and built.weights("last") != built.weights("best"):
        for each in evaluate_works(study, built, study.evaluations, data, "test", "last", networks).values():
            yield _explained("evaluate", evaluate, each)
    for each in (*judged.values(), *fitting.values()):
        yield _explained("evaluate", evaluate, each)
    if study.calibrators:
        shards = {place: done for place, each in judged.items() if (done := evaluate.find(each)) is not None}
        fitted = [done for each in fitting.values() if (done := evaluate.find(each)) is not None]
        if len(shards) == len(judged) and len(fitted) == len(fitting):
            yield _explained("calibrate", calibrate, calibrate_work(study, built.id, fitted, shards, home))
        else:
            yield _miss(f"calibrate {built.id}", "evaluations of this network are missing")
    for each in conformal_works(study, built, data).values():
        yield _explained("conformal", conformal, each)
    for each in measure_works(study, built, data).values():
        yield _explained("measure", measure, each)
    if alone:
        for each in certify_works(study, built, data).values():
            yield _explained("certify", certify, each)
        if study.ood:
            yield _explained("detect", detect, detect_work(study, built, data))
    complete = len(networks) == sum(1 for _ in study.judged())
    checks = diagnose_work(study, built, networks, data) if complete else None
    if checks is not None:
        yield _explained("diagnose", diagnose, checks)


def _have_surrogates(study: Study, networks: Mapping[str, Built]) -> bool:
    """Attacks through a surrogate wait for its training too; without such attacks there is nothing to wait for."""
    needed = any("models" in getattr(entry.method, "needs", ()) for entry in study.evaluations)
    return not needed or len(networks) == sum(1 for _ in study.judged())


def _explained(task: str, cached: Any, work: Any) -> Step:
    from robust.registry import create

    found, settings = cached.explain(work), work.settings
    step = {"step": f"{task} {work.label}", "key": found.key, "hit": found.hit, "because": list(found.because)}
    if task != "evaluate" or found.hit:
        return step | UNCOUNTED
    method = create(("attack", "corruption"), settings["evaluation"])
    return step | _passes(method, settings["stop"] - settings["start"], settings["inputs"]["num_classes"])


def _passes(method: Any, samples: int, num_classes: int) -> Step:
    """Passes of an evaluation of so many samples at most."""
    from robust.planner import passes_of

    each = passes_of(method, num_classes)
    return UNCOUNTED if each is None else {"forward": samples * each[0], "backward": samples * each[1]}


def _waiting(study: Study, network: Network, key: str, facts: Mapping[str, Any]) -> Iterator[Step]:
    reason = f"waits for {key}"
    samples, num_classes = facts["sizes"]["test"], facts["inputs"]["num_classes"]
    for entry in study.evaluations:
        if entry.on.covers(network.group):
            step = _miss(f"evaluate {network.id}/test/{entry.label}", reason)
            yield step | _passes(entry.method, min(samples, entry.on.samples or samples), num_classes)
    if study.calibrators:
        yield _miss(f"calibrate {network.id}", reason)
    for diagnostic in study.diagnostics:
        if diagnostic.on.covers(network.group):
            yield _miss(f"measure {network.id}/{diagnostic.label}", reason)
    if network.defence is None:
        for certificate in study.certificates:
            yield _miss(f"certify {network.id}/{certificate.label}", reason)
        if study.ood:
            yield _miss(f"detect {network.id}", reason)


def _miss(step: str, reason: str) -> Step:
    return {"step": step, "key": None, "hit": False, "because": [reason]} | UNCOUNTED
