"""`robust evaluate` as a person types it: a report, the pinned object, gates, and messages for wrong input."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robust.datasets.digits import Digits

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
    assert any(row["check"] == "probe: softmax applied" for row in report["evidence"])
    assert "robust evaluate mine:build --dataset digits" in report["commands"][0]
    # again, from the cache: the same object, but for nothing
    again, err = mine.run(*asked[:-4], "--quiet")
    assert json.loads(again) == found
    assert err == ""


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
