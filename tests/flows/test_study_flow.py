"""One study end to end, through the command line, as a person runs it."""

import hashlib
import json
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pandas as pd
import pytest

from robust import ledger

HEAVY = ("prepare", "train", "evaluate", "calibrate", "detect", "diagnose", "examples")


def report_of(home: Path) -> dict:
    return json.loads((home / "reports/tiny/report.json").read_text())


def identity(home: Path) -> dict[str, str]:
    """What byte-identical means, the ledger and report.json without `volatile`: a digest of each part of them."""
    parts = {f"report.json: {key}": json.dumps(value, sort_keys=True) for key, value in report_of(home).items()}
    del parts["report.json: volatile"]
    frame = ledger.read(home / "ledger/tiny.parquet").to_pandas()
    parts |= {f"ledger: {column}": str(frame[column].tolist()) for column in frame}
    digests = {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in parts.items()}
    return {**digests, "ledger": hashlib.sha256((home / "ledger/tiny.parquet").read_bytes()).hexdigest()[:12]}


def task_states(home: Path, expected: set[str]) -> list[tuple[str, str]]:
    """Task and state of the latest flow run; the server writes the last of them shortly after the run has ended."""
    for _ in range(60):
        states = read_states(home)
        if {name for name, _ in states} >= expected:
            break
        time.sleep(0.5)
    return states


def read_states(home: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(f"file:{home}/prefect/prefect.db?mode=ro", uri=True) as database:
        rows = database.execute("select task_key, state_name, flow_run_id from task_run order by created").fetchall()
    latest = rows[-1][2]
    return [(key.partition("-")[0], state) for key, state, run in rows if run == latest]


def test_the_last_line_is_the_report_and_the_table_fits(finished):
    lines = (finished.folder / "out.txt").read_text().splitlines()
    assert lines[-1] == str(finished.home / "reports/tiny/report.html")
    assert Path(lines[-1]).exists()
    assert max(map(len, lines[:-1])) <= 80
    assert "Traceback" not in (finished.folder / "err.txt").read_text()


def test_the_ledger_has_one_row_a_network_evaluation_and_sample(finished):
    frame = ledger.read(finished.home / "ledger/tiny.parquet").to_pandas()
    judged = frame[~frame["evaluation"].str.contains("@")]
    assert len(judged) == 2 * 4 * 90
    assert not judged.duplicated(ledger.KEY).any()
    attacked = judged[judged["evaluation"] == "pgd"]
    assert (attacked["correct"].astype(bool) == ~attacked["success"].astype(bool)).all()
    assert set(frame["evaluation"]) >= {"max-softmax@digits", "energy@uniform-noise"}
    costs = pd.read_parquet(finished.home / "ledger/tiny.costs.parquet")
    assert (costs["seconds"] > 0).all()
    assert costs.groupby("evaluation")["samples"].sum().eq(180).all()


def test_report_json_has_the_pinned_keys_and_agrees_with_the_ledger(finished):
    report = report_of(finished.home)
    frame = ledger.read(finished.home / "ledger/tiny.parquet").to_pandas()
    assert report["schema"] == 1
    assert {m["id"] for m in report["models"]} == {"mlp.standard.0", "mlp.pgd-at.0"}
    for row in report["evaluations"]:
        rows = frame[(frame["model"] == row["model"]) & (frame["evaluation"] == row["label"])]
        assert row["n"] == len(rows) == 90
        assert row["correct"] == rows["correct"].sum()
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert row["verdict"] in ("trusted", "suspect", "broken")
        assert row["eps"] in (None, "1/10")
    assert {(row["model"], row["under"], row["calibrator"]) for row in report["calibration"]} >= {
        ("mlp.standard.0", "clean", "none"),
        ("mlp.pgd-at.0", "pgd", "temperature"),
    }
    assert all(0 <= row["auroc"] <= 1 for row in report["detection"])
    assert len(report["detection"]) == 4
    assert report["settings"]["seeds"] == [0]
    assert len(report["checkpoints"]) == 8


def test_a_second_run_takes_everything_from_the_cache_and_gives_the_same_bytes(finished, tmp_path):
    copy = type(finished)(tmp_path)
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    before = identity(copy.home)
    steps = json.loads(copy.run("plan", "tiny.yaml", "--json", PYTHONHASHSEED="5")[0])
    assert all(step["hit"] for step in steps), [step for step in steps if not step["hit"]]
    copy.run("run", "tiny.yaml", PYTHONHASHSEED="2")
    states = task_states(copy.home, set(HEAVY))
    assert {name for name, _ in states} == set(HEAVY)
    assert {state for _, state in states} == {"Cached"}, states
    assert identity(copy.home) == before


def test_a_change_recomputes_what_depends_on_it_and_nothing_else(finished, tmp_path):
    copy = type(finished)(tmp_path)
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    steps = json.loads(copy.run("plan", "tiny.yaml", "--json", "--set", "evaluations.pgd.steps=6")[0])
    missed = {step["step"].rpartition("/")[0] for step in steps if not step["hit"]}
    assert {m for m in missed if m} == {
        f"evaluate mlp.{objective}.0{kind}/test/pgd"
        for objective in ("standard", "pgd-at")
        for kind in ("", "@last")
        if any(step["step"].startswith(f"evaluate mlp.{objective}.0{kind}/") for step in steps)
    }
    reasons = [reason for step in steps for reason in step["because"] if step["step"].startswith("evaluate")]
    assert any("steps" in reason for reason in reasons)


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_damaged_store_entry_is_recomputed_never_served(finished, tmp_path, damage):
    copy = type(finished)(tmp_path)
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    before = identity(copy.home)
    files = [p for p in sorted((copy.home / "store").rglob("*")) if p.is_file()]
    weights = next(p for p in files if p.read_bytes()[8:10] == b'{"')  # how a safetensors file begins
    if damage == "delete":
        weights.unlink()
    else:
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.chmod(0o644)
        weights.write_bytes(bytes(content) if damage == "flip" else bytes(content[:-7]))
    copy.run("run", "tiny.yaml")
    assert identity(copy.home) == before


def test_killed_at_any_moment_the_next_run_finishes_with_the_same_bytes(finished, robust):
    moments = random.Random(0)
    for _ in range(2):
        process = robust.start("run", "tiny.yaml")
        time.sleep(moments.uniform(6, 14))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    robust.run("run", "tiny.yaml")
    assert identity(robust.home) == identity(finished.home)


def test_an_interrupted_run_ends_within_seconds_and_goes_on(robust, finished):
    process = robust.start("run", "tiny.yaml", "--set", "objectives.standard.training.epochs=4000")
    while "mlp.standard.0" not in process.stderr.readline():
        assert process.poll() is None
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert time.monotonic() - asked < 10
    assert "Traceback" not in err
    robust.run("run", "tiny.yaml")
    assert identity(robust.home) == identity(finished.home)


def test_two_runs_at_once_on_one_home_neither_collide_nor_compute_twice(robust, finished):
    processes = [robust.start("run", "tiny.yaml") for _ in range(2)]
    outcomes = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outcomes
    assert identity(robust.home) == identity(finished.home)
    with sqlite3.connect(f"file:{robust.home}/prefect/prefect.db?mode=ro", uri=True) as database:
        done = database.execute("select task_key, state_name from task_run").fetchall()
    computed = [key for key, state in done if state == "Completed" and key.startswith("train")]
    assert len(computed) == 2, done


def test_the_report_is_rebuilt_without_a_model(finished, tmp_path):
    copy = type(finished)(tmp_path)
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(copy.home / "store")
    html = copy.home / "reports/tiny/report.html"
    before = html.read_bytes()
    html.unlink()
    out, _ = copy.run("report", "tiny.yaml")
    assert out.strip() == str(html)
    assert html.read_bytes() == before
