"""Tracking that is away never stops the run: everything is spooled, replayed in order, and nothing comes twice."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest
from mlflow import MlflowClient

import tasks.tracking as tracking
from tasks.spool import Event, RunAddress, Spool, TrackingAway, TrackingRefused
from tasks.tracking import Tracker


def one_run(home):
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    found = client.get_experiment_by_name("study")
    (run,) = client.search_runs([found.experiment_id], filter_string="tags.`robust.key` = 'mlp-s0'")
    return client, run


def a_whole_run(tracker, folder):
    table = folder / "table.csv"
    table.write_text("first")
    with tracker.flow_run("study", "flow-1", params={"size": "cpu"}) as parent:
        with parent.child("mlp-s0", params={"seed": 0}) as child:
            child.log_history([{"train/loss": 1.0}, {"train/loss": 0.5}])
            child.log_dataset("digits", "abc", samples=3)
            child.log_files([table])
        assert child.run_id is None
    table.unlink()


def assert_complete(home):
    client, run = one_run(home)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "0"}
    assert [metric.value for metric in client.get_metric_history(run.info.run_id, "train/loss")] == [1.0, 0.5]
    assert len(run.inputs.dataset_inputs) == 1
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["table.csv"]
    assert client.get_run(run.data.tags["mlflow.parentRunId"]).info.status == "FINISHED"


def test_with_the_server_away_everything_is_replayed_later_and_only_one_warning_is_given(home, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "robust.tracking"):
        a_whole_run(Tracker(home, uri="http://127.0.0.1:9"), tmp_path)
    assert sum("tracking is away" in record.message for record in caplog.records) == 1
    assert Tracker(home).start() == 0
    assert_complete(home)
    assert not list((home / "spool").glob("*.jsonl")) + list((home / "spool" / "files").glob("*/*"))


def test_replaying_the_same_spool_again_changes_nothing(home, tmp_path):
    a_whole_run(Tracker(home, uri="http://127.0.0.1:9"), tmp_path)
    (spooled,) = (home / "spool").glob("*.jsonl")
    lines = spooled.read_text()
    Tracker(home).start()
    # as if the process had been killed after delivery and before the spool was cleared
    again = "".join(line + "\n" for line in lines.splitlines() if '"files"' not in line)
    (home / "spool" / "again.jsonl").write_text(again)
    assert Tracker(home).start() == 0
    assert_complete(home)


def test_a_locked_database_is_an_outage(home, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 600.0)
    with sqlite3.connect(home / "mlflow.db", isolation_level=None) as held:
        held.execute("BEGIN EXCLUSIVE")
        a_whole_run(Tracker(home), tmp_path)
        held.execute("ROLLBACK")
    held.close()
    assert Tracker(home).start() == 0
    assert_complete(home)


def test_an_outage_in_the_middle_keeps_the_order(home, monkeypatch):
    tracker = Tracker(home)
    parent = tracker.flow_run("study", "flow-1")
    child = parent.child("mlp-s0")
    database = home / "mlflow.db"
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 600.0)
    tracker._went_away(TrackingAway("in the middle"))
    child.log_metrics({"clean/acc": 0.1}, step=0)
    monkeypatch.setattr(tracker, "_away_until", 0.0)
    child.log_metrics({"clean/acc": 0.2}, step=1)
    child.finish()
    assert database.exists()
    client, run = one_run(home)
    assert [metric.value for metric in client.get_metric_history(run.info.run_id, "clean/acc")] == [0.1, 0.2]
    assert Spool(home / "spool").waiting() == 0


def test_a_disk_that_takes_no_spool_either_is_survived_and_made_good(home, monkeypatch):
    tracker = Tracker(home)
    (home / "spool").write_text("a file where the folder should be")
    parent = tracker.flow_run("study", "flow-1")
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.0)
    tracker._went_away(TrackingAway("full"))
    tracker._away_until = float("inf")
    child = parent.child("mlp-s0")
    child.log_metrics({"clean/acc": 0.3})
    tracker._away_until = 0.0
    child.finish()
    assert one_run(home)[1].data.metrics == {"clean/acc": 0.3}


def test_a_torn_line_and_a_refused_event_hold_up_nothing(tmp_path):
    spool = Spool(tmp_path / "spool")
    address = RunAddress(experiment="study", key="a")
    events = [Event(what="tags", address=address, data={"n": n}) for n in range(3)]
    for event in events:
        spool.append(event)
    (path,) = spool.folder.glob("*.jsonl")
    path.write_text(path.read_text() + '{"what": "ta')
    taken = []

    def deliver(event):
        if event.data["n"] == 1:
            raise TrackingRefused("never")
        taken.append(event.id)

    assert spool.drain(deliver) == 0
    assert taken == [events[0].id, events[2].id]
    (refused,) = (spool.folder / "refused.log").read_text().splitlines()
    assert json.loads(refused)["id"] == events[1].id


def test_a_drain_that_is_cut_off_goes_on_behind_what_was_delivered(tmp_path):
    spool = Spool(tmp_path / "spool")
    for n in range(4):
        spool.append(Event(what="tags", address=RunAddress(experiment="s", key="a"), data={"n": n}))
    taken = []

    def until_two(event):
        if len(taken) == 2:
            raise TrackingAway("gone")
        taken.append(event.data["n"])

    assert spool.drain(until_two) == 2
    assert Spool(tmp_path / "spool").drain(lambda event: taken.append(event.data["n"])) == 0
    assert taken == [0, 1, 2, 3]


def test_an_mlflow_run_of_another_program_is_not_resumed(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert Tracker(home).flow_run("study", "flow-1").run_id not in (None, "0" * 32)


def test_promotion_learns_that_tracking_is_away(home):
    with pytest.raises(TrackingAway):
        Tracker(home, uri="http://127.0.0.1:9").set_alias("robust-digits-mlp", "champion", "1")


def test_importing_tracking_imports_no_mlflow():
    script = textwrap.dedent("""
        import sys
        import tasks.tracking
        assert not {"mlflow", "prefect", "torch"} & set(sys.modules), "slow imports"
    """)
    subprocess.run([sys.executable, "-c", script], check=True, env=dict(os.environ))


def test_a_kill_while_the_database_is_made_leaves_no_database_that_nobody_can_use(tmp_path):
    """MLflow's first migrations are seconds of statements that SQLite cannot undo together."""
    home = tmp_path / "new"
    maker = f"from tasks.tracking import Tracker; from pathlib import Path; Tracker(Path({str(home)!r})).start()"
    process = subprocess.Popen([sys.executable, "-c", maker])
    new = home / "mlflow.db.new"
    deadline = time.monotonic() + 60
    while not (new.exists() and new.stat().st_size >= 200_000):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
    process.kill()
    process.wait()
    assert not (home / "mlflow.db").exists()
    assert Tracker(home).start() == 0
    with Tracker(home).flow_run("study", "flow-1") as run:
        assert run.run_id, "tracked, not spooled"
    assert not list(home.glob("mlflow.db.new*"))
