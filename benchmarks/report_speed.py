"""How long a report takes: a ledger of ten models and ten thousand samples, built, drawn and drawn again.

    python benchmarks/report_speed.py [--models 10] [--samples 10000]

The ledger is drawn at random, each model of its own group, which makes the most paired comparisons. `build` reads the
parquet file and makes report.json from it, `render` writes page, figures, tables and cards, and `robust report` is the
command as typed, from its start to its end, against the 15 s that it may take. Seconds are the wall clock's; `CPU` is
what the processes used, which is what counts on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from robust import ledger

CLASSES = 10
LIMIT = 15.0  # seconds that `robust report` may take
EVALUATIONS: tuple[tuple[str, str, str | None, str | None, float], ...] = (  # label, name, norm, eps, share right
    ("clean", "clean", None, None, 0.95),
    ("gaussian-noise", "gaussian-noise", None, None, 0.9),
    ("fgsm", "fgsm", "linf", "8/255", 0.6),
    ("pgd", "pgd", "linf", "8/255", 0.5),
    ("square", "square", "linf", "8/255", 0.55),
    ("pgd-l2", "pgd", "l2", "1/2", 0.6),
    ("deepfool", "deepfool", "l2", None, 0.0),
)


def study_of(models: int) -> dict[str, Any]:
    """Names of the study, its networks and evaluations."""
    columns = ("label", "name", "norm", "eps")
    return {
        "name": "report-speed",
        "dataset": {"name": "random", "digest": "0" * 64, "classes": [str(k) for k in range(CLASSES)]},
        "models": [
            {"id": f"net.objective-{i}.0", "model": "net", "objective": f"objective-{i}", "seed": 0, "sha256": "0" * 64}
            for i in range(models)
        ],
        "evaluations": [dict(zip(columns, entry)) for entry in EVALUATIONS],
    }


def ledger_of(study: dict[str, Any], samples: int) -> pa.Table:
    """Rows of every network under every evaluation: confident logits, right as often as the evaluation says."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, CLASSES, samples)
    parts = []
    for model in study["models"]:
        for label, _, norm, _, share in EVALUATIONS:
            right = draw.random(samples) < share
            prediction = np.where(right, labels, (labels + 1) % CLASSES)
            logits = draw.normal(size=(samples, CLASSES)).astype(np.float32)
            logits[np.arange(samples), prediction] += 4
            frame = pd.DataFrame({"sample": np.arange(samples), "label": labels, "prediction": prediction})
            frame = frame.assign(correct=right, logits=list(logits), forward=20, backward=20, queries=0)
            if norm:
                distance = np.where(right, np.inf, draw.random(samples) * 0.03)
                frame = frame.assign(success=~right, quantised=~right, distance=distance)
            parts.append(ledger.table(frame.assign(model=model["id"], seed=0, evaluation=label)))
    return ledger.merge(parts)


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, its seconds, and the CPU seconds of this process and its children."""
    before, started = _cpu(), time.perf_counter()
    found = call()
    return found, time.perf_counter() - started, _cpu() - before


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--samples", type=int, default=10_000)
    args = parser.parse_args()
    from robust.report import build, render

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        rows, study = home / "ledger" / "report-speed.parquet", study_of(args.models)
        rows.parent.mkdir(parents=True)
        ledger.write(ledger_of(study, args.samples), rows)
        report, *built = timed(lambda: build(study, ledger.read(rows)))
        place = home / "reports" / "report-speed"
        _, *drawn = timed(lambda: render(report, place))
        command = [sys.executable, "-c", "from flows.cli import main; main()", "report", "report-speed"]
        run = {"env": os.environ | {"ROBUST_HOME": str(home)}, "check": True, "stdout": subprocess.DEVNULL}
        _, *again = timed(lambda: subprocess.run(command, **run))
        print(f"{args.models} models, {args.samples:,} samples, {len(EVALUATIONS)} evaluations")
        for name, (wall, cpu) in (("build from the ledger", built), ("render", drawn), ("robust report", again)):
            print(f"{name:22} {wall:7.1f} s {cpu:7.1f} s CPU")
        size = (place / "report.html").stat().st_size
        figures = len(json.loads((place / "report.json").read_text(encoding="utf-8"))["figures"])
        print(f"{figures} figures, page of {size / 1e6:.2f} MB, {again[0] / LIMIT:.2f} of the {LIMIT:.0f} s allowed")


if __name__ == "__main__":
    main()
