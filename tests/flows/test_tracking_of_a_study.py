"""What MLflow shows of a finished study, read back through its client."""

import json
import shutil
import subprocess
import sys

import pytest

READ = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name("tiny")
runs = client.search_runs([experiment.experiment_id], max_results=100)
print(json.dumps([
    {"status": r.info.status, "tags": r.data.tags, "params": r.data.params, "metrics": r.data.metrics,
     "artifacts": [f.path for f in client.list_artifacts(r.info.run_id)]} for r in runs
]))
print(json.dumps([m.name for m in client.search_registered_models()]))
"""


def runs_of(command) -> tuple[list[dict], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", READ, f"sqlite:///{command.home}/mlflow.db"],
        env=command.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, second = done.stdout.strip().splitlines()[-2:]
    return json.loads(first), json.loads(second)


@pytest.fixture(scope="module")
def tracked(finished):
    return runs_of(finished)


def split(runs: list[dict]) -> tuple[list[dict], list[dict]]:
    children = [run for run in runs if "mlflow.parentRunId" in run["tags"]]
    return [run for run in runs if run not in children], children


def test_one_parent_and_one_finished_child_a_network(tracked):
    parents, children = split(tracked[0])
    assert len(parents) == 1
    assert len(children) == 2
    assert {run["status"] for run in tracked[0]} == {"FINISHED"}
    assert any(path.startswith("report") for path in parents[0]["artifacts"])


def test_children_share_names_so_that_the_compare_view_works(tracked):
    _, children = split(tracked[0])
    first, second = children
    shared = set(first["metrics"]) & set(second["metrics"])
    assert {"clean/acc", "adv/linf/pgd/acc", "cal/ece_15", "ood/uniform-noise/auroc", "cost/forward"} <= shared
    for child in children:
        assert {"dataset", "model", "objective", "seed"} <= set(child["params"])
    assert {child["params"]["objective"] for child in children} == {"standard", "pgd-at"}


def test_metrics_are_the_reports(tracked, finished):
    report = json.loads((finished.home / "reports/tiny/report.json").read_text())
    _, children = split(tracked[0])
    for row in report["evaluations"]:
        child = next(c for c in children if row["model"] == f"mlp.{c['params']['objective']}.0")
        name = {"clean": "clean/acc", "gaussian-noise": "cor/gaussian-noise/acc"}.get(row["label"])
        assert child["metrics"][name or f"adv/linf/{row['label']}/acc"] == pytest.approx(row["accuracy"])


def test_the_networks_are_registered(tracked):
    assert tracked[1] == ["robust-digits-mlp"]


LOAD = """
import hashlib, sys
from tasks.home import Home, activate
home = activate(Home.current())
import torch
from robust.foreign.loaded import Source
from robust.foreign.loading import load
from tasks.mlflow_model import downloaded
from tasks.registered import Registry
Registry(home).point("robust-digits-mlp", "asked", "1")
(path,) = {downloaded(uri, home) for uri in sys.argv[1:]}
assert load(Source.of(str(path))).module(torch.rand(3, 1, 8, 8)).shape == (3, 10)
print(hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_a_registered_model_is_loaded_by_its_uri(finished):
    uris = ("models:/robust-digits-mlp@asked", "models:/robust-digits-mlp/1")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *uris], cwd=finished.folder, env=finished.environment(), capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((finished.home / "reports" / "tiny" / "report.json").read_text())
    assert done.stdout.strip().splitlines()[-1] in {model["sha256"] for model in report["models"]}


def test_a_run_from_the_cache_shows_up_completely(finished, tmp_path):
    copy = type(finished)(tmp_path)
    shutil.copytree(finished.folder, tmp_path, dirs_exist_ok=True)
    copy.run("run", "tiny.yaml")
    runs, models = runs_of(copy)
    parents, children = split(runs)
    assert len(parents) == 2
    assert len(children) == 4
    hits = [child for child in children if child["tags"]["robust.cache"] == "hit"]
    assert len(hits) == 2
    for hit in hits:
        source = next(
            c for c in children if c not in hits and c["params"]["objective"] == hit["params"]["objective"]
        )  # fmt: skip
        assert hit["metrics"] == source["metrics"]
        assert hit["params"] == source["params"]
    assert models == ["robust-digits-mlp"]
