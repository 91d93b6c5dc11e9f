"""What Prefect, MLflow and the report cost: a study through its flow, against its bare tasks in the same thread pool.

    python benchmarks/orchestration.py [STUDY] [--size cpu]

Both start from an empty home in this process, after all imports and after the server's start. The bare run trains and
evaluates the same shards by `CachedTask.run`, which is the work without scheduler, tracking or report.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.home import Home, activate


def bare(spec, home: Home) -> float:
    """Seconds of the study's tasks alone."""

    from robust.corruptions.clean import Clean
    from robust.study_entries import EvaluationEntry
    from tasks.calibrate import calibrate, calibrate_work
    from tasks.detect import detect, detect_work
    from tasks.diagnose import diagnose, diagnose_work
    from tasks.evaluate import evaluate, evaluate_works
    from tasks.networks import Built
    from tasks.prepare import prepare, prepare_work
    from tasks.train import train, train_works

    started = time.perf_counter()
    data = prepare.run(prepare_work(spec.dataset, home))
    trainings = train_works(spec, data, home)
    trained = {network: train.run(work) for network, work in trainings.items()}
    networks = {n.id: Built(n, trainings[n.base], trained[n.base]) for n in spec.judged()}
    clean = EvaluationEntry(label="clean", method=Clean())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, built in networks.items():
            judged = evaluate_works(spec, built, spec.evaluations, data, "test", others=networks)
            futures = {place: pool.submit(evaluate.run, work) for place, work in judged.items()}
            rest = []
            if spec.calibrators:
                fitting = evaluate_works(spec, built, [clean], data, "calibrate")
                rest = [pool.submit(evaluate.run, work) for work in fitting.values()]
            if built.network.defence is None and built.weights("last") != built.weights("best"):
                last = evaluate_works(spec, built, spec.evaluations, data, "test", "last", networks)
                for extra in [pool.submit(evaluate.run, work) for work in last.values()]:
                    extra.result()
            results = {place: future.result() for place, future in futures.items()}
            fitted = [future.result() for future in rest]
            if spec.calibrators:
                calibrate.run(calibrate_work(spec, name, fitted, results, home))
            if spec.ood and built.network.defence is None:
                detect.run(detect_work(spec, built, data))
        checks = [diagnose_work(spec, built, networks, data) for built in networks.values()]
        for future in [pool.submit(diagnose.run, work) for work in checks if work is not None]:
            future.result()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?", default="studies/demo.yaml")
    parser.add_argument("--size", default="cpu")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = activate(Home(Path(folder) / "flow"))
        started = time.perf_counter()
        from tasks.server import embedded_server

        with embedded_server(home):
            from flows.study import study
            from robust.study_file import load

            spec = load(given.study, given.size)
            print(f"imports and server's start   {time.perf_counter() - started:7.1f} s (not counted)")
            started = time.perf_counter()
            study([given.study], given.size)
            through_flow = time.perf_counter() - started
        plain = bare(spec, Home(Path(folder) / "bare").create())
        share = 1 - plain / through_flow
        print(f"through the flow {through_flow:.1f} s   bare tasks {plain:.1f} s   orchestration {100 * share:.1f} %")


if __name__ == "__main__":
    main()
