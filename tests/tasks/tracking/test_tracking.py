"""Tracking against a real database: parents, children, retries, replays, orphans, and read back through the client."""

import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlflow import MlflowClient

from tasks.environment import environment, redact
from tasks.tracking import Tracker, mlflow_status

KEY_PARAMS = {"dataset": "digits", "model": "mlp", "objective": "standard", "seed": 0}


def runs_of(home, experiment="study", **kwargs):
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], **kwargs) if found else []


def test_children_share_parameters_and_metrics_and_point_to_their_parent(home):
    with Tracker(home).flow_run("study", "flow-1", params={"size": "cpu"}, note="**hello**") as parent:
        for seed in (0, 1):
            with parent.child(f"mlp-s{seed}", params={**KEY_PARAMS, "seed": seed}) as child:
                child.log_metrics({"clean/acc": 0.9 + seed / 100, "adv/linf/pgd/acc": 0.4})
        parent_id = parent.run_id
    children = runs_of(home, filter_string=f"tags.`mlflow.parentRunId` = '{parent_id}'")
    assert len(children) == 2
    assert {frozenset(run.data.params) for run in children} == {frozenset(KEY_PARAMS)}
    assert {frozenset(run.data.metrics) for run in children} == {frozenset({"clean/acc", "adv/linf/pgd/acc"})}
    assert {run.info.status for run in runs_of(home)} == {"FINISHED"}
    top = MlflowClient(f"sqlite:///{home / 'mlflow.db'}").get_run(parent_id)
    assert top.data.tags["mlflow.note.content"] == "**hello**"
    assert top.data.params == {"size": "cpu"}
    assert top.info.artifact_uri.startswith((home / "mlartifacts").as_uri())


def test_a_retry_reopens_the_same_run_and_keeps_what_was_logged(home):
    tracker = Tracker(home)
    parent = tracker.flow_run("study", "flow-1")
    for attempt in range(3):
        child = parent.child("mlp-s0", params={**KEY_PARAMS, "lr": attempt})
        child.log_metrics({"clean/acc": attempt})
        child.finish("FAILED" if attempt < 2 else "FINISHED")
    (found,) = [run for run in runs_of(home) if run.data.tags["robust.key"] == "mlp-s0"]
    assert found.info.status == "FINISHED"
    assert found.data.params["lr"] == "0", "parameters are written once"
    assert found.data.metrics["clean/acc"] == 2


def test_a_second_run_from_cache_shows_up_completely(home, tmp_path):
    first = Tracker(home).flow_run("study", "flow-1")
    child = first.child("mlp-s0", params=KEY_PARAMS)
    child.log_metrics({"clean/acc": 0.9})
    child.finish()
    second = Tracker(home).flow_run("study", "flow-2")
    second.replay("mlp-s0", source_run_id=child.run_id, params=KEY_PARAMS, metrics={"clean/acc": 0.9})
    second.finish()
    hit = next(run for run in runs_of(home) if run.data.tags.get("robust.cache") == "hit")
    assert hit.data.params == {name: str(value) for name, value in KEY_PARAMS.items()}
    assert hit.data.metrics == {"clean/acc": 0.9}
    assert hit.data.tags["robust.source_run_id"] == child.run_id
    assert hit.data.tags["mlflow.parentRunId"] == second.run_id
    assert hit.info.status == "FINISHED"


def test_a_run_ends_as_its_block_does(home):
    tracker = Tracker(home)
    with pytest.raises(ZeroDivisionError), tracker.flow_run("study", "failed"):
        raise ZeroDivisionError
    interrupted = tracker.flow_run("study", "interrupted")
    interrupted.child("left-open")
    with pytest.raises(KeyboardInterrupt), interrupted:
        raise KeyboardInterrupt
    statuses = {run.data.tags["robust.key"]: run.info.status for run in runs_of(home)}
    assert statuses == {"failed": "FAILED", "interrupted": "KILLED", "left-open": "KILLED"}
    states = {"COMPLETED": "FINISHED", "CRASHED": "FAILED", "CANCELLED": "KILLED", "PENDING": "RUNNING"}
    assert {state: mlflow_status(state) for state in states} == states


def test_histories_datasets_and_files_are_read_back(home, tmp_path):
    report = tmp_path / "report.json"
    report.write_text("{}")
    run = Tracker(home).flow_run("study", "flow-1")
    run.log_history([{"train/loss": 1.0}, {"train/loss": 0.5}, {"train/loss": math.nan}])
    run.log_dataset("digits", "f" * 64, context="train", samples=1797)
    run.log_files([report, tmp_path / "missing.csv"], "report")
    run.log_text("a,b", "tables/x.csv")
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    history = client.get_metric_history(run.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history][:2] == [(0, 1.0), (1, 0.5)]
    (dataset,) = client.get_run(run.run_id).inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest, dataset.tags[0].value) == ("digits", "f" * 36, "train")
    assert [file.path for file in client.list_artifacts(run.run_id, "report")] == ["report/report.json"]
    assert {"environment.json", "tables"} <= {file.path for file in client.list_artifacts(run.run_id)}


def test_a_copy_in_another_process_writes_to_the_same_run(home):
    parent = Tracker(home).flow_run("study", "flow-1")
    child = parent.child("mlp-s0")
    copy = pickle.loads(pickle.dumps(child))
    copy.log_metrics({"clean/acc": 0.5})
    assert copy.run_id == child.run_id
    assert Tracker(home).run(child.address).run_id == child.run_id
    assert len(runs_of(home)) == 2


def test_threads_make_each_child_once(home):
    parent = Tracker(home).flow_run("study", "flow-1")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: parent.child(f"child-{n % 3}").log_metrics({"clean/acc": n}), range(12)))
    assert len(runs_of(home)) == 4


@pytest.mark.slow
def test_processes_that_start_at_once_on_a_new_home_all_succeed(tmp_path):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from tasks.tracking import Tracker
        tracker = Tracker(Path(sys.argv[1]))
        assert tracker.start() == 0
        with tracker.flow_run("study", sys.argv[2]) as run:
            run.log_metrics({"clean/acc": 1.0})
    """)
    environ = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), f"flow-{n}"], env=environ, stderr=subprocess.PIPE
        )
        for n in range(3)
    ]
    errors = [process.communicate()[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], errors
    assert not (tmp_path / "spool").exists()
    assert {run.info.status for run in runs_of(tmp_path)} == {"FINISHED"}


def test_the_sweeper_closes_what_a_killed_process_left_and_nothing_else(home):
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from tasks.tracking import Tracker
        run = Tracker(Path(sys.argv[1])).flow_run("study", "killed")
        run.child("killed-child")
        print("ready", flush=True)
        time.sleep(600)
    """)
    mine = Tracker(home)
    mine.flow_run("study", "mine").child("my-child")
    victim = subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True)
    assert victim.stdout.readline() == "ready\n"
    assert Tracker(home).sweep() == [], "both processes live"
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert len(Tracker(home).sweep()) == 2
    statuses = {run.data.tags["robust.key"]: run.info.status for run in runs_of(home)}
    assert statuses == {"mine": "RUNNING", "my-child": "RUNNING", "killed": "FAILED", "killed-child": "FAILED"}
    assert Tracker(home).sweep() == []


def test_a_run_whose_process_died_right_after_making_it_is_closed(home):
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from tasks.mlflow_delivery import Delivery
        from tasks.tracking import Tracker
        run = Tracker(Path(sys.argv[1])).flow_run("study", "killed")
        Delivery._batch = lambda *args, **rest: os.kill(os.getpid(), signal.SIGKILL)
        run.child("killed-child")
    """)
    died = subprocess.run([sys.executable, "-c", script, str(home)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(runs_of(home)) == 2
    Tracker(home).sweep()
    assert {run.info.status for run in runs_of(home)} == {"FAILED"}


def test_only_allowed_variables_are_recorded_and_credentials_are_masked(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("ROBUST_DATA", "https://me:hunter2@host/data")
    monkeypatch.setattr(sys, "argv", ["robust", "run", "--set", "api_token=hunter2"])
    found = environment()
    assert "hunter2" not in str(found)
    assert found["command"] == "robust run --set api_token=***"
    assert redact("postgresql://me:hunter2@host/db") == "postgresql://***@host/db"
    assert "version.torch" in found
