"""How the cost of the engine grows with the number of cached shards: scheduler, cache look-ups, ledger, report.

    python benchmarks/scale.py [--shards 2000 20000]

A study on digits is prepared so that every shard is in the cache already: one small network is trained, and the rows
of its evaluations are written by this script instead of being computed. Then `study`, the real flow, plays it in a
process of its own on the embedded default, and so does `robust plan`. What is left to measure is the engine: `ms a
shard` is the whole flow over its shards, from its first line to its last, report included; `CPU` is what the flow's
process used of it (the rest is the server, and on a busy machine everybody else); `plan` is in ms a shard; memory is
that of the flow's process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLES = 200  # of the test split, one shard each
STUDY = """\
name: scale
dataset: {{name: digits, train: 400, select: 100, calibrate: 100, test: {samples}}}
models: [{{name: mlp, hidden: [8]}}]
objectives: [{{name: standard, training: {{epochs: 1}}}}]
evaluations:
{evaluations}
validity: 0
report: {{examples: 0}}
shard: 1
"""


def study_of(shards: int) -> str:
    """A study of so many shards: one sample a shard, as many noise levels as it takes."""
    samples = min(SAMPLES, shards)
    levels = math.ceil(shards / samples)
    entry = "  - {{name: gaussian-noise, label: noise-{0}, sigma: {1}/1000}}"
    return STUDY.format(samples=samples, evaluations="\n".join(entry.format(i, i + 1) for i in range(levels)))


def fill(path: Path, home: Path) -> int:
    """Put every shard of a study into the cache; returns how many there are."""
    from tasks.home import Home, activate

    place = activate(Home.at(home))
    from robust.study_file import load
    from tasks.evaluate import evaluate_works
    from tasks.networks import Built
    from tasks.prepare import prepare, prepare_work
    from tasks.store import Store
    from tasks.train import train, train_works

    study, store, filled = load(path), Store.of(place), 0
    data = prepare.run(prepare_work(study.dataset, place))
    trainings = train_works(study, data, place)
    networks = {n.id: Built(n, trainings[n.id], train.run(trainings[n.id])) for n in study.networks()}
    for built in networks.values():
        for checkpoint in ("best", "last"):
            if checkpoint == "last" and built.weights("last") == built.weights("best"):
                continue
            works = evaluate_works(study, built, study.evaluations, data, "test", checkpoint, networks)
            for (_, shard), work in works.items():
                record(work, shard, store)
            filled += len(works)
    return filled


def record(work, shard: int, store) -> None:
    """Make one shard's result as if it had been computed: one row with ten logits."""
    import pandas as pd

    from robust import ledger
    from tasks.records import write_record

    row = {"sample": shard, "label": 0, "prediction": shard % 10, "correct": shard % 10 == 0, "forward": 1,
           "backward": 0, "queries": 0, "logits": [float(i == shard % 10) for i in range(10)]}  # fmt: skip
    with tempfile.TemporaryDirectory(dir=work.folder.cache) as folder:
        rows = Path(folder) / "rows.parquet"
        ledger.write(ledger.table(pd.DataFrame([row])), rows)
        kept = store.put(rows, "rows.parquet")
    manifest = work.manifest({"rows": kept}, {"samples": 1}, timings={"seconds": 0.001, "peak_bytes": 0.0})
    write_record(store, work, manifest)


def play(path: Path, home: Path) -> dict[str, float]:
    """Run the flow on a full cache; seconds and memory of this process."""
    from tasks.home import Home, activate
    from tasks.server import embedded_server

    place = activate(Home.at(home))
    with embedded_server(place):
        from flows.runners import task_runner
        from flows.study import study

        imported = peak()
        started, busy = time.perf_counter(), time.process_time()
        study.with_options(task_runner=task_runner("threads"))([str(path)])
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
    return {"flow_s": seconds, "cpu_s": busy, "peak_mb": peak(), "imports_mb": imported}


def plan(path: Path, home: Path) -> dict[str, float]:
    """Seconds of `robust plan`, and whether it found everything in the cache."""
    import flows.study  # noqa: F401 - imports are not counted
    from flows.plan import plan_study

    started = time.perf_counter()
    steps = plan_study(str(path), "cpu", [], home)
    missed = [step["step"] for step in steps if not step["hit"]]
    if missed:
        raise SystemExit(f"not in the cache: {missed[:5]}")
    return {"plan_s": time.perf_counter() - started}


def peak() -> float:
    """Largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(part: str, path: Path, home: Path) -> dict[str, float]:
    """One part in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--part", part, str(path), str(home)]
    variables = {**os.environ, "ROBUST_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(shards: int, folder: Path) -> dict[str, float]:
    """Everything about one size, in a fresh home."""
    path, home = folder / f"scale-{shards}.yaml", folder / f"home-{shards}"
    path.write_text(study_of(shards))
    filled = apart("fill", path, home)["shards"]
    found = {"shards": filled, **apart("play", path, home), **apart("plan", path, home)}
    rates = {name: 1000 * found[f"{name}_s"] / filled for name in ("flow", "cpu", "plan")}
    return {**found, **{f"{name}_ms": rate for name, rate in rates.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--part", nargs=3, metavar=("PART", "STUDY", "HOME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        name, path, home = given.part[0], Path(given.part[1]), Path(given.part[2])
        parts = {"fill": lambda: {"shards": fill(path, home)}, "play": lambda: play(path, home),
                 "plan": lambda: plan(path, home)}  # fmt: skip
        print(json.dumps(parts[name]()))
        return
    print(
        f"{'shards':>7} {'flow s':>8} {'ms a shard':>10} {'of them CPU':>11} {'plan':>6} {'peak MB':>8} {'imports':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for shards in given.shards:
            row = measure(shards, Path(folder))
            print(
                f"{row['shards']:>7} {row['flow_s']:>8.1f} {row['flow_ms']:>10.1f} {row['cpu_ms']:>6.1f} "
                f"{row['plan_ms']:>6.1f} {row['peak_mb']:>8.0f} {row['imports_mb']:>8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
