"""What a second worker is worth: the evaluation part of a study by one and by two workers of one thread each.

    python benchmarks/runners.py [--runners dask processes] [--samples 300] [--steps 1500] [--json FILE]

A network on digits is trained once; then each runner judges the same shards by PGD in a home of its own. The clock runs
from when every worker is up, with everything imported, to the last shard's result. A shard takes a second or two, as
those of real studies do: with much less, the scheduler would be measured. The ledgers of all runs must be the same
bytes. The target is 0.6 of one worker's time, on a machine that has two cores to spare.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from prefect import flow, task

from robust.study_file import loads
from tasks.assemble import Outcome, ledger_of
from tasks.evaluate import evaluate, evaluate_works
from tasks.home import Home
from tasks.networks import Built
from tasks.prepare import prepare, prepare_work
from tasks.store import Store
from tasks.train import train, train_works

STUDY = """\
name: runners
dataset: {{name: digits, train: 400, select: 100, calibrate: 100, test: {samples}}}
models: [{{name: mlp, hidden: [64, 64]}}]
objectives: [{{name: standard, training: {{epochs: 1}}}}]
evaluations: [{{name: pgd, eps: 1/10, steps: {steps}, restarts: 3}}]
certify_first: false
shard: {shard}
"""


@task
def warmed_up(seconds: float) -> int:
    """Import what a shard needs; the pause makes sure that each worker gets one."""
    from tasks.networks import one_thread

    one_thread()
    time.sleep(seconds)
    return os.getpid()


def judged(kind: str, workers: int, works):
    """Seconds from workers that are up to the last shard, and the manifests by place."""
    from flows.runners import task_runner

    @flow(name="judged", task_runner=task_runner(kind, workers))
    def run():
        pids: set[int] = set()
        while len(pids) < workers and pids != {os.getpid()}:  # threads share one process
            pids |= {future.result() for future in [warmed_up.submit(0.5) for _ in range(2 * workers)]}
        started = time.perf_counter()
        futures = {place: evaluate.submit(work) for place, work in works.items()}
        manifests = {place: future.result() for place, future in futures.items()}
        return time.perf_counter() - started, manifests

    return run()


def trained_in(study, home: Home) -> tuple[Built, object]:
    """The study's one network in a home; trained once, then copied with the home."""
    data = prepare.run(prepare_work(study.dataset, home))
    (training,) = train_works(study, data, home).values()
    (network,) = study.networks()
    return Built(network, training, train.run(training)), data


def timed(study, kind: str, workers: int, first: Home, folder: Path) -> tuple[float, str]:
    """Seconds of one runner, and the digest of its ledger."""
    home = Home(folder / f"{kind}-{workers}")
    shutil.copytree(first.root / "store", home.root / "store")
    built, data = trained_in(study, home.create())
    works = evaluate_works(study, built, study.evaluations, data, "test")
    seconds, manifests = judged(kind, workers, works)
    outcome = Outcome(study, data, {built.id: built.trained}, {built.id: manifests})
    rows = ledger_of(outcome, Store.of(home)).to_pandas().to_json()
    return seconds, hashlib.sha256(rows.encode()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runners", nargs="+", default=["dask", "processes"])
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--shard", type=int, default=15)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.disable(logging.INFO)  # of Prefect and Dask, about each start and end
    from tasks.server import embedded_server

    study = loads(STUDY.format(samples=given.samples, steps=given.steps, shard=given.shard))
    rows, digests = [], set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = Home(folder / "first")
        with embedded_server(first):
            trained_in(study, first)
            for kind in given.runners:
                seconds = []
                for workers in (1, 2):
                    taken, digest = timed(study, kind, workers, first, folder)
                    seconds.append(taken)
                    digests.add(digest)
                rows.append(
                    {"runner": kind, "one_s": seconds[0], "two_s": seconds[1], "ratio": seconds[1] / seconds[0]}
                )
                print(f"{kind:10} one {seconds[0]:6.1f} s   two {seconds[1]:6.1f} s   ratio {rows[-1]['ratio']:.2f}",
                      flush=True)  # fmt: skip
    same = len(digests) == 1
    print(f"the same ledger from each: {same}   (target: a ratio of 0.60 at most, on two idle cores)")
    if given.json:
        given.json.write_text(json.dumps({"command": " ".join(sys.argv), "rows": rows, "same": same}, indent=1) + "\n")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
