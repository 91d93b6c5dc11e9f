"""What Prefect, MLflow and the report cost: a study through its flow, against its bare tasks in the same thread pool.

    python benchmarks/orchestration.py [STUDY] [--size cpu]

Both start from an empty home in this process, after all imports and after the server's start. The bare run trains and
evaluates the same shards by `CachedTask.run`, which is the work without scheduler, tracking or report.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.home import Home, activate


def bare(spec, home: Home) -> float:
    """Seconds of the study's tasks alone."""
    import os

    from robust.corruptions.clean import Clean
    from tasks.calibrate import calibrate, calibrate_work
    from tasks.detect import detect, detect_work
    from tasks.diagnose import diagnose, diagnose_work
    from tasks.evaluate import evaluate, evaluate_works
    from tasks.prepare import prepare, prepare_work
    from tasks.train import train, train_works

    started = time.perf_counter()
    data = prepare.run(prepare_work(spec.dataset, home))
    trainings = train_works(spec, data, home)
    trained = {network: train.run(work) for network, work in trainings.items()}
    methods = {entry.label: entry.method for entry in spec.evaluations}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for network, done in trained.items():
            training = trainings[network]
            judged = evaluate_works(spec, network, done, training, methods, data, "test")
            fitting = evaluate_works(spec, network, done, training, {"clean": Clean()}, data, "calibrate")
            last = evaluate_works(spec, network, done, training, methods, data, "test", "last")
            futures = {place: pool.submit(evaluate.run, work) for place, work in judged.items()}
            rest = [pool.submit(evaluate.run, work) for work in fitting.values()]
            if done.files["last"].sha256 != done.files["best"].sha256:
                for extra in [pool.submit(evaluate.run, work) for work in last.values()]:
                    extra.result()
            results = {place: future.result() for place, future in futures.items()}
            fitted = [future.result() for future in rest]
            if spec.calibrators:
                calibrate.run(calibrate_work(spec, network, fitted, results, home))
            if spec.ood:
                detect.run(detect_work(spec, network, done, training, data))
        networks = {network: (trainings[network], done) for network, done in trained.items()}
        checks = [diagnose_work(spec, network, networks, data) for network in trained]
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
            from robust.study import load

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
