"""`robust evaluate` as a person types it: a report, the pinned object, gates, and messages for wrong input."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robust.datasets.digits import Digits
from tasks.foreign_report import answer

FACTORY = """\
from safetensors.torch import load_file
from torch import nn

def build():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    net.load_state_dict(load_file("net.safetensors"))
    return nn.Sequential(net, nn.Softmax(dim=1))

def labels(images):
    return build()(images).argmax(1)
"""
KEYS = {
    "clean_accuracy", "robust_accuracy", "interval", "n", "verdict", "reasons", "forward", "backward", "queries",
    "seconds", "ledger",
}  # fmt: skip

READ = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name("evaluate")
runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
print(json.dumps([
    {"status": r.info.status, "name": r.info.run_name, "tags": r.data.tags, "params": r.data.params,
     "metrics": r.data.metrics, "files": [f.path for f in client.list_artifacts(r.info.run_id, "report")],
     "datasets": [d.dataset.name for d in r.inputs.dataset_inputs]} for r in runs
]))
"""


def tracked(command):
    """What MLflow holds of the evaluations in a home."""
    done = subprocess.run(
        [sys.executable, "-c", READ, f"sqlite:///{command.home}/mlflow.db"],
        env=command.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture
def mine(robust):
    images, labels, _ = Digits(select=40, calibrate=40).load("train").batch(slice(None))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(60):
            loss = nn.functional.cross_entropy(net(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    save_file(net.state_dict(), robust.folder / "net.safetensors")
    (robust.folder / "mine.py").write_text(FACTORY)
    return robust


def test_one_command_gives_report_ledger_object_and_gates(mine):
    asked = ("evaluate", "mine:build", "--dataset", "digits", "--samples", "60", "--attack", "{name: pgd, steps: 5}",
             "--attack", "fgsm", "--eps", "1/20", "--json",
             "--gate", "clean >= 80%", "--gate", "linf 1/20 >= 100%")  # fmt: skip
    out, err = mine.run(*asked, code=1)
    found = json.loads(out.strip().splitlines()[-1])
    assert set(found) == KEYS
    rows = pd.read_parquet(found["ledger"])
    correct = rows[rows["evaluation"] == "pgd"]["correct"].mean()
    assert found["robust_accuracy"] <= correct
    assert found["n"] == 60
    assert found["interval"][0] < found["robust_accuracy"] < found["interval"][1]
    assert "gate clean >= 80%: met" in err
    assert "gate linf 1/20 >= 100%: NOT met" in err
    assert "softmax applied" in err
    folder = mine.home / "reports" / "evaluate-mine-build-digits"
    report = json.loads((folder / "report.json").read_text())
    assert (folder / "report.html").stat().st_size > 10_000
    assert report["schema"] == 1
    assert {row["label"] for row in report["evaluations"]} == {"clean", "pgd", "fgsm"}
    assert any(row["check"] == "mistake found: softmax applied" for row in report["evidence"])
    assert "robust evaluate mine:build --dataset digits" in report["commands"][0]
    (run,) = tracked(mine)
    assert (run["status"], run["name"]) == ("FINISHED", "evaluate-mine-build-digits")
    assert (run["params"]["model"], run["params"]["dataset"]) == ("mine:build", "digits")
    assert run["params"]["model_digest"] == report["models"][0]["sha256"]
    assert run["params"]["dataset_digest"] == report["dataset"]["digest"]
    assert run["params"]["asked.eps"] == "1/20"
    for name in ("clean_accuracy", "robust_accuracy", "n", "forward", "backward", "queries", "seconds"):
        assert run["metrics"][name] == pytest.approx(found[name])
    assert [run["metrics"]["interval_low"], run["metrics"]["interval_high"]] == pytest.approx(found["interval"])
    assert run["metrics"]["clean/acc"] == pytest.approx(found["clean_accuracy"])
    assert run["metrics"]["adv/linf/pgd/acc"] == pytest.approx(correct)
    assert run["tags"]["robust.verdict"] == found["verdict"]
    assert {"report/report.html", "report/report.json", "report/evaluations.csv"} <= set(run["files"])
    assert run["datasets"] == ["digits"]
    # again, from the cache: the same object, but for nothing
    again, err = mine.run(*asked[:-4], "--quiet")
    assert json.loads(again) == found
    assert err == ""


def test_until_stops_early_and_says_so_and_tracking_may_be_away(mine):
    asked = ("evaluate", "mine:build", "--dataset", "digits", "--split", "train", "--attack", "{name: pgd, steps: 2}",
             "--eps", "1/20", "--until", "±5%")  # fmt: skip
    out, _ = mine.run(*asked, "--json", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    found = json.loads(out.strip().splitlines()[-1])
    assert set(found) == KEYS | {"stopped_early"}
    assert found["stopped_early"] is True
    assert found["n"] == 500  # one shard of the 1037 images
    low, high = found["interval"]
    assert (high - low) / 2 <= 0.05
    assert len(pd.read_parquet(found["ledger"])) == 2 * 500
    assert list((mine.home / "spool").glob("*.jsonl"))

    told, _ = mine.run(*asked, "--quiet")
    assert "stopped early: 500 of 1,037 images" in " ".join(told.split())
    page = (mine.home / "reports" / "evaluate-mine-build-digits" / "report.html").read_text()
    assert "stopped early: 500 of 1,037 images" in page
    first, second = tracked(mine)  # what was spooled came in when tracking was back
    assert first["status"] == second["status"] == "FINISHED"
    assert first["metrics"] == second["metrics"]
    assert "report/report.html" in first["files"]
    assert not list((mine.home / "spool").glob("*.jsonl"))

    report = json.loads((mine.home / "reports" / "evaluate-mine-build-digits" / "report.json").read_text())
    (stop,) = [row for row in report["evidence"] if row["check"] == "stopped early"]
    assert stop["value"] == 500
    whole = {**report, "evidence": [row for row in report["evidence"] if row is not stop]}
    assert answer(whole, mine.home)["stopped_early"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mine:labels", "--dataset", "digits", "--attack", "pgd"), "use hopskipjump"),
        (("mine:build", "--dataset", "digits", "--norm", "l7"), "l7"),
    ],
)
def test_wrong_input_gets_one_message(mine, arguments, words):
    _, err = mine.run("evaluate", *arguments, "--quiet", code=2)
    assert words in " ".join(err.split())
    assert "Traceback" not in err
