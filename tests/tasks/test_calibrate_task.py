"""The calibration of a network: every row with its bounds, the same however the samples came in shards."""

import json

import numpy as np
import pandas as pd
import pytest

from robust import ledger
from tasks.calibrate import calibrate, draws_of
from tasks.home import Home
from tasks.store import Store

CLASSES, SAMPLES = 4, 60


def frame_of(seed, n=SAMPLES):
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(n, CLASSES))).astype(np.float32)
    rows = pd.DataFrame({"sample": np.arange(n), "label": rng.integers(0, CLASSES - 1, n)})  # one class absent
    return rows.assign(model="m", seed=0, evaluation="e", logits=list(logits), prediction=logits.argmax(1))


def stored(store, folder, frames, shards):
    reads = {}
    for prefix, frame in frames.items():
        for place, rows in enumerate(shards(frame)):
            path = folder / "part.parquet"
            ledger.write(ledger.table(rows), path)
            reads[f"{prefix}/{place}"] = store.put(path, "rows.parquet").sha256
    return reads


@pytest.fixture
def run(tmp_path):
    home = Home(tmp_path / "home").create()
    store = Store.of(home)

    def run(shards=lambda frame: [frame], attacked=2, **settings):
        frames = {"calibrate": frame_of(0), "test/clean": frame_of(1), "test/pgd": frame_of(attacked)}
        named = [{"label": name, "method": {"name": name}} for name in ("temperature", "lac")]
        given = {
            "calibrators": named,
            "evaluations": ["clean", "pgd"],
            "seed": 0,
            "resamples": 50,
            "kept": ["ece", "nll"],
        }
        work = calibrate.work(settings={**given, **settings}, reads=stored(store, tmp_path, frames, shards), home=home)
        manifest = calibrate.run(work)
        return json.loads(store.read(manifest.files["rows"])), draws_of(manifest, store), manifest

    return run


def test_every_row_has_bounds_around_its_figures(run):
    rows, draws, _ = run()
    assert {(row["under"], row["calibrator"]) for row in rows} == {
        (under, calibrator) for under in ("clean", "pgd") for calibrator in ("none", "temperature", "lac")
    }
    for row in rows:
        figures = (
            ("coverage", "size") if row["calibrator"] == "lac" else ("ece", "ece_classwise", "mce", "brier", "nll")
        )
        for figure in figures:
            assert row[f"{figure}_low"] <= row[figure] <= row[f"{figure}_high"], (row["calibrator"], figure)
    assert {(row["calibrator"], row["metric"]) for row in draws} == {
        (calibrator, metric) for calibrator in ("none", "temperature") for metric in ("ece", "nll")
    }
    assert len({row["samples"] for row in draws}) == 1
    assert all(len(row["draws"]) == 50 for row in draws)


def test_neither_shards_nor_their_order_show(run):
    whole = run()[2].files
    parts = run(lambda frame: [frame[40:], frame[:13][::-1], frame[13:40]])[2].files
    assert {role: file.sha256 for role, file in whole.items()} == {role: file.sha256 for role, file in parts.items()}


def test_another_seed_draws_other_resamples_around_the_same_figures(run):
    (first, _, _), (second, _, _) = run(), run(seed=1)
    assert [row.get("ece") for row in first] == [row.get("ece") for row in second]
    assert first[0]["ece_low"] != second[0]["ece_low"]
