"""Promote, watch, replay and compare on one small study: what moves, what is raised, what is put back."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

STUDY = """\
name: ops
dataset: {name: digits, train: 900, select: 100, calibrate: 100, test: 80}
models: [{name: mlp, hidden: [32]}]
objectives:
  - {name: standard, training: {epochs: 6, lr: 0.005}}
  - {name: pgd-at, eps: 1/10, steps: 2, training: {epochs: 6, lr: 0.005}}
evaluations: [clean, {name: gaussian-noise, sigma: 1/5}, {name: pgd, eps: 1/20, steps: 5}]
calibrators: [temperature]
report: {examples: 1}
validity: 32
shard: 40
"""

# one process for all, so that imports and servers are paid once
SCRIPT = """
import json, logging, os, sqlite3, sys, time
from pathlib import Path
from flows import operations, run
from flows.session import session
from tasks import home as homes, registered
from tasks.spool import TrackingAway
from tasks.reported import find_report

home, found, NAME = Path("home").absolute(), {}, "robust-digits-mlp"
place = homes.Home(home)

def attempt(call, *arguments):
    try:
        return str(call(*arguments))
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def aliases():
    return registered.Registry(place).aliases(NAME)

with session(home):
    run.run_studies(["ops.yaml"], "cpu", [], home, "threads", None, True, False)
    open_gates = ["worst_case=0", "gain=none", "clean_drop=none", "ece=none", "trusted=false"]
    found["no champion"] = attempt(operations.watch_model, NAME, 0.01, home, False)
    found["gates not met"] = attempt(operations.promote_run, "ops", ["worst_case=1"], home, False)
    found["nothing moved"] = aliases()
    found["first"] = attempt(operations.promote_run, "ops/mlp.standard.0", open_gates, home, False)
    found["after first"] = aliases()

    point, calls = registered.Registry.point, []
    def fails_after_one(self, name, alias, version):
        calls.append((alias, version))
        if len(calls) == 2:
            raise TrackingAway("injected")
        point(self, name, alias, version)
    registered.Registry.point = fails_after_one
    found["injected"] = attempt(operations.promote_run, "ops/mlp.pgd-at.0", open_gates, home, False)
    found["calls"], found["after failure"] = list(calls), aliases()
    calls.clear()
    def fails_for_good(self, name, alias, version):
        calls.append((alias, version))
        if len(calls) >= 2:
            raise TrackingAway("injected for good")
        point(self, name, alias, version)
    registered.Registry.point = fails_for_good
    found["for good"] = attempt(operations.promote_run, "ops/mlp.pgd-at.0", open_gates, home, False)
    found["half moved"] = aliases()
    registered.Registry.point = point

    client = registered.Registry(place).client
    child = client.get_model_version(NAME, "2").run_id
    found["second"] = attempt(operations.promote_run, child, open_gates, home, False)
    found["after second"] = aliases()
    found["record"] = json.loads((home / f"reports/promote-{NAME}/promote.json").read_text())
    found["quiet"] = attempt(operations.watch_model, NAME, 0.01, home, False)
    found["quiet look"] = json.loads((home / f"reports/watch-{NAME}/watch.json").read_text())

    from robust import ledger
    path = home / "ledger/ops.parquet"
    kept = path.read_bytes()
    rows = ledger.read(path).to_pandas()
    rows.loc[rows["evaluation"] == "pgd", "correct"] = True  # the last ledger was better than what is true now
    ledger.write(ledger.table(rows), path)
    found["alarm"] = attempt(operations.watch_model, NAME, 0.01, home, False)
    found["alarm look"] = json.loads((home / f"reports/watch-{NAME}/watch.json").read_text())
    path.write_bytes(kept)
    for _ in range(60):
        with sqlite3.connect(f"file:{home}/prefect/prefect.db?mode=ro", uri=True) as database:
            events = [e for (e,) in database.execute("select event from events where event like 'robust.%'")]
            keys = [k for (k,) in database.execute("select key from artifact")]
        if "robust.accuracy-dropped" in events:
            break
        time.sleep(0.5)
    found["events"], found["artifacts"] = events, keys

found["replay"] = operations.replay_report("ops", home, Path("again").absolute())
original = find_report(place, "ops")
original.report["settings"]["evaluations"][2]["steps"] = 6
again = Path("again/reports/ops/report.html").absolute()
found["other settings"] = operations.verdict(original, again)
original = find_report(place, "ops")
original.report["evaluations"][0]["accuracy"] = 0.123
found["other number"] = operations.verdict(original, again)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def operated(tmp_path_factory):
    """A folder with two homes, the second a replay of the first, and what the script saw."""
    folder = tmp_path_factory.mktemp("operations")
    (folder / "ops.yaml").write_text(STUDY)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "ROBUST_HOME"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=folder, env={**kept, "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    return folder, json.loads(lines[-1]), lines[:-1]


def test_nothing_moves_where_a_gate_is_not_met(operated):
    _, found, _ = operated
    assert found["no champion"].startswith("UnknownName: robust-digits-mlp has no champion")
    assert "worst_case >= 1" in found["gates not met"]
    assert found["nothing moved"] == {}


def test_a_promotion_moves_both_aliases(operated):
    _, found, _ = operated
    assert found["first"].endswith("promote.json")
    assert found["after first"] == {"champion": "1"}
    assert found["after second"] == {"champion": "2", "challenger": "1"}
    record = found["record"]
    assert record["network"] == "mlp.pgd-at.0"
    assert record["before"] == {"champion": "1", "challenger": None}
    assert [ruling["gate"] for ruling in record["rulings"]] == ["worst_case"]


def test_a_failure_after_the_first_alias_puts_it_back(operated):
    _, found, _ = operated
    assert found["injected"] == "TrackingAway: injected"
    assert found["calls"][0] == ["challenger", "1"]
    assert len(found["calls"]) == 3  # moved, failed, put back
    assert found["after failure"] == {"champion": "1"}


def test_what_could_not_be_put_back_is_put_back_by_the_next_promotion(operated):
    folder, found, _ = operated
    assert found["for good"].startswith("NotPutBack")
    assert found["half moved"] == {"champion": "1", "challenger": "1"}
    assert found["record"]["before"]["challenger"] is None
    assert list((folder / "home/promotions").iterdir()) == []


def test_watch_is_quiet_on_fresh_seeds(operated):
    folder, found, lines = operated
    look = found["quiet look"]
    assert found["quiet"].endswith("watch-robust-digits-mlp/watch.json")
    assert (look["look"], look["evaluation_seed"], look["version"], look["raised"]) == (1, 1, "2", False)
    assert not look["new_data"]
    rows = {row["label"]: row for row in look["evaluations"]}
    assert set(rows) == {"clean", "gaussian-noise", "pgd"}
    assert rows["clean"]["drop"] == 0
    fresh = pd.read_parquet(folder / "home" / look["ledger"])
    assert len(fresh) == 3 * 80
    assert max(map(len, (line for line in lines if not line.startswith("{")))) <= 80


def test_watch_raises_a_drop_larger_than_chance(operated):
    _, found, _ = operated
    assert found["alarm"].startswith("AccuracyDropped: robust-digits-mlp version 2: accuracy under pgd fell from 100.0")
    look = found["alarm look"]
    assert look["raised"]
    assert [entry["raised"] for entry in look["history"]] == [False, True]
    assert look["evaluation_seed"] == 2
    assert "robust.accuracy-dropped" in found["events"]
    assert "robust.promoted" in found["events"]
    assert {"watch-robust-digits-mlp", "promote-robust-digits-mlp"} <= set(found["artifacts"])


def test_a_replay_is_identical_and_a_change_is_located(operated):
    folder, found, _ = operated
    assert found["replay"] == "identical"
    assert (folder / "home/ledger/ops.parquet").read_bytes() == (folder / "again/ledger/ops.parquet").read_bytes()
    assert found["other settings"] == "differs at settings.evaluations.pgd.steps: 6 -> 5"
    assert found["other number"].startswith("differs at evaluations[0].accuracy: 0.123 -> ")


def test_compare_of_a_study_with_its_replay_finds_nothing(operated, robust):
    folder, _, _ = operated
    command = type(robust)(folder)
    out, _ = command.run("compare", "ops", "again/reports/ops/report.json", "--home", "home")
    assert max(map(len, out.splitlines()[:-1])) <= 80
    page = folder / "home/reports/ops-vs-ops/compare.html"
    assert out.splitlines()[-1] == str(page)
    document = json.loads(page.with_name("compare.json").read_text())
    parts = ("settings", "code", "data", "environment", "weights")
    assert not any(document[part] for part in parts)
    assert all(row["p"] == 1 and not row["lost"] for row in document["flips"])
    assert len(document["flips"]) == 2 * 3
    assert "No difference in accuracy is larger than chance" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "ops", "nothing"), "has ops"),
        (("compare", "ops", "mlflow.db"), "has ops"),
        (("replay", "../ops"), "has ops"),
        (("replay", "ops", "--into", "again"), "empty folder"),
        (("promote", "ops", "--gate", "speed=1"), "worst_case, gain, clean_drop, ece, trusted"),
        (("promote", "ops/mlp"), "mlp.standard.0, mlp.pgd-at.0"),
        (("promote", "0" * 32), "STUDY/NETWORK"),
        (("watch", "robust-mnist-mlp"), "there are robust-digits-mlp"),
        (("watch", "robust-digits-mlp", "--alpha", "2"), "false alarm"),
    ],
)
def test_what_is_unknown_is_answered_by_what_there_is(operated, robust, arguments, words):
    command = type(robust)(operated[0])
    _, err = command.run(*arguments, "--home", "home", code=2)
    assert words in err
    assert "Traceback" not in err
