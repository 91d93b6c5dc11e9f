"""`robust plan`: for every step of a study, whether the cache holds it, which field or module caused each miss, and
how many passes a missing evaluation costs at most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.home import Home, activate

Step = dict[str, Any]
UNCOUNTED: Step = {"forward": None, "backward": None}


def plan_study(
    study: str, size: str, changes: Sequence[str], home: Path, seeds: Sequence[int] | None = None
) -> list[Step]:
    """Steps {step, key, hit, because[], forward, backward} in the order of the flow; nothing is computed.

    A step behind a miss has no key yet: it depends on bytes that do not exist. `forward` and `backward` are the passes
    of a missing evaluation at most, all its samples together; None for other steps, and where an attack declares none.
    """
    place = activate(Home(home))
    from robust.study import load

    return list(_steps(load(study, size, changes, seeds), place))  # type: ignore[arg-type]


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


def _steps(study: Any, home: Home) -> Iterator[Step]:
    from robust.corruptions.clean import Clean
    from tasks.calibrate import calibrate, calibrate_work
    from tasks.certify import certify, certify_works
    from tasks.detect import detect, detect_work
    from tasks.diagnose import diagnose, diagnose_work
    from tasks.evaluate import evaluate, evaluate_works
    from tasks.prepare import prepare, prepare_work
    from tasks.train import train, train_works

    work = prepare_work(study.dataset, home)
    yield _explained("prepare", prepare, work)
    data = prepare.run(work)  # fingerprints only: the keys of all later steps stand on them
    methods = {entry.label: entry.method for entry in study.evaluations}
    trainings = train_works(study, data, home)
    found = {network: (training, train.find(training)) for network, training in trainings.items()}
    others = {network: (training, done) for network, (training, done) in found.items() if done is not None}
    for network, training in trainings.items():
        step = _explained("train", train, training)
        yield step
        trained = found[network][1]
        if trained is None or not _have_surrogates(study, others):
            yield from _waiting(study, network, step["key"], data.facts)
            continue
        judged = evaluate_works(study, network, trained, training, methods, data, "test", others=others)
        if trained.files["last"].sha256 != trained.files["best"].sha256:
            last = evaluate_works(study, network, trained, training, methods, data, "test", "last", others)
            for each in last.values():
                yield _explained("evaluate", evaluate, each)
        fitting = (
            evaluate_works(study, network, trained, training, {"clean": Clean()}, data, "calibrate")
            if study.calibrators
            else {}
        )
        for each in (*judged.values(), *fitting.values()):
            yield _explained("evaluate", evaluate, each)
        if study.calibrators:
            done = {place: evaluate.find(each) for place, each in judged.items()}
            fitted = [evaluate.find(each) for each in fitting.values()]
            if all(done.values()) and all(fitted):
                yield _explained("calibrate", calibrate, calibrate_work(study, network, fitted, done, home))  # type: ignore[arg-type]
            else:
                yield _miss(f"calibrate {network}", "evaluations of this network are missing")
        for each in certify_works(study, network, trained, training, data).values():
            yield _explained("certify", certify, each)
        if study.ood:
            yield _explained("detect", detect, detect_work(study, network, trained, training, data))
        checks = diagnose_work(study, network, others, data) if len(others) == len(trainings) else None
        if checks is not None:
            yield _explained("diagnose", diagnose, checks)


def _have_surrogates(study: Any, others: Mapping[str, Any]) -> bool:
    """Attacks through a surrogate wait for its training too; without such attacks there is nothing to wait for."""
    needed = any("models" in getattr(entry.method, "needs", ()) for entry in study.evaluations)
    return not needed or len(others) == sum(1 for _ in study.networks())


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


def _waiting(study: Any, network: str, key: str, facts: Mapping[str, Any]) -> Iterator[Step]:
    reason = f"waits for {key}"
    samples, num_classes = facts["sizes"]["test"], facts["inputs"]["num_classes"]
    for entry in study.evaluations:
        step = _miss(f"evaluate {network}/test/{entry.label}", reason)
        yield step | _passes(entry.method, samples, num_classes)
    if study.calibrators:
        yield _miss(f"calibrate {network}", reason)
    for entry in study.certificates:
        yield _miss(f"certify {network}/{entry.label}", reason)
    if study.ood:
        yield _miss(f"detect {network}", reason)


def _miss(step: str, reason: str) -> Step:
    return {"step": step, "key": None, "hit": False, "because": [reason]} | UNCOUNTED
