"""Gates on one number: read, judged, and held against a model in a test suite."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from robust.gate import Gate, assert_robust
from robust.gates import GateError


def row(norm, eps, accuracy, verdict="trusted", name="pgd"):
    return {"norm": norm, "eps": eps, "accuracy": accuracy, "low": 0.0, "high": 1.0, "verdict": verdict, "name": name}


ROWS = [
    row(None, None, 0.9, name="clean"),
    row("linf", "8/255", 0.5),
    row("linf", "8/255", 0.45),
    row("l2", "1/2", 0.7),
]


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("linf 8/255 >= 45%", [True]), ("linf 8/255 > 45%", [False]), ("linf 8/255 >= 0.46", [False]),
        ("l2 0.5 >= 70 %", [True]), ("clean >= 90%", [True]), ("clean>0.9", [False]),
        ("clean >= 80%, linf 8/255 >= 50%", [True, False]), ("clean >= 80% and l2 1/2 > 60%", [True, True]),
    ],
)  # fmt: skip
def test_the_lowest_number_of_the_threat_counts_exactly(text, met):
    assert [gate.ruling(ROWS).met for gate in Gate.parse(text)] == met


def test_written_again_it_reads_the_same():
    (gate,) = Gate.parse("linf 8/255 >= 45%")
    assert gate == Gate("linf", Fraction(8, 255), Fraction(45, 100))
    assert Gate.parse(str(gate)) == [gate]


@pytest.mark.parametrize(
    "text", ["", "linf >= 45%", "clean 8/255 >= 1%", "linf 8/0 >= 1%", "linf 8/255 >= 45", "l3 1 > 1%"]
)
def test_gates_written_wrongly_are_told_how(text):
    with pytest.raises(GateError, match="--gate"):
        Gate.parse(text)


def test_a_broken_number_meets_no_gate_and_a_missing_one_is_an_error():
    (gate,) = Gate.parse("linf 8/255 >= 10%")
    assert not gate.ruling([row("linf", "8/255", 0.5, "broken")]).met
    with pytest.raises(GateError, match="no evaluation"):
        gate.ruling([row("l2", "8/255", 0.5)])


def test_assert_robust_on_a_linear_classifier_whose_margins_are_known():
    # w = (1, -1) on two pixels: the class is the brighter pixel, and eps turns it where they differ by less than 2 eps
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    images = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.55, 0.45], [0.2, 0.4]]).view(4, 1, 1, 2)
    labels = torch.tensor([0, 1, 0, 1])
    ledger = assert_robust(net, (images, labels), "linf 1/10 >= 50%, clean >= 100%", attacks=["pgd"])
    assert ledger.frame("pgd")["correct"].sum() == 2
    with pytest.raises(AssertionError, match=r"linf 1/10 >= 75%: NOT met, 50\.0 %"):
        assert_robust(net, (images, labels), "linf 1/10 >= 75%", attacks=[{"name": "pgd", "steps": 5}])


def test_assert_robust_on_a_model_string(tmp_path):
    (tmp_path / "template_for_tests.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from robust.datasets.digits import Digits\n"
        "def build():\n"
        "    images, labels, _ = Digits(select=40, calibrate=40).load('train').batch(slice(None))\n"
        "    means = torch.stack([images[labels == k].mean(0).flatten() for k in range(10)])\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "    net[1].weight.data, net[1].bias.data = means, -means.pow(2).sum(1) / 2\n"  # the nearest class mean
        "    return net\n"
    )
    text = "template_for_tests:build"
    ledger = assert_robust(
        text, "digits", "linf 1/100 >= 60%", attacks=[{"name": "pgd", "steps": 3}], samples=200, folder=tmp_path
    )
    assert len(ledger.frame("clean")) == 200
    # three images would not tell what it expects: that is found out on more
    few = assert_robust(text, "digits", "clean >= 1%", attacks=[], samples=3, folder=tmp_path)
    assert len(few.frame("clean")) == 3
