"""Gates: each one alone keeps a candidate out, and says what it found."""

import dataclasses

import pytest

from robust.gates import GateError, Gates, Standing, judge

GOOD = Standing("m", "d", 0.95, {"linf 1/10": 0.6, "l2 1": 0.7}, {"linf 1/10": "trusted", "l2 1": "trusted"}, 0.02)


def missed(candidate, champion=None, *gates):
    return [ruling.gate for ruling in judge(Gates.parse(gates), candidate, champion) if not ruling.met]


def but(**changes):
    return dataclasses.replace(GOOD, **changes)


@pytest.mark.parametrize(
    ("candidate", "champion", "gate"),
    [
        (but(worst={"linf 1/10": 0.2, "l2 1": 0.9}), None, ["worst_case"]),
        (but(worst={}, verdicts={}), None, ["worst_case", "trusted"]),
        (but(verdicts={"linf 1/10": "suspect", "l2 1": "trusted"}), None, ["trusted"]),
        (but(ece=0.2), None, ["ece"]),
        (but(ece=None), None, ["ece"]),
        (but(clean=0.9), GOOD, ["clean_drop"]),
        (but(worst={"linf 1/10": 0.65, "l2 1": 0.69}), GOOD, ["gain"]),
        (but(data="other"), GOOD, ["gain", "clean_drop"]),
        (GOOD, GOOD, []),
        (but(clean=0.94, worst={"linf 1/10": 0.6}), GOOD, []),
    ],
)
def test_each_gate_keeps_out_what_it_should(candidate, champion, gate):
    assert missed(candidate, champion) == gate


def test_gates_are_moved_and_switched_off_by_name():
    assert missed(but(worst={"linf 1/10": 0.2}), None, "worst_case=0.1") == []
    assert missed(but(ece=None), None, "ece=none") == []
    assert missed(but(data="other"), GOOD, "gain=none", "clean-drop=none") == []
    assert missed(but(verdicts={"linf 1/10": "broken"}), None, "trusted=false") == []


@pytest.mark.parametrize("text", ["ece", "speed=1", "ece=2", "ece=low", "=1"])
def test_a_wrong_gate_is_named(text):
    with pytest.raises(GateError, match="--gate"):
        Gates.parse([text])


def test_a_standing_is_read_from_a_report():
    report = {
        "dataset": {"digest": "d"},
        "evaluations": [{"model": "m", "name": "clean", "accuracy": 0.9}, {"model": "x", "name": "clean"}],
        "worst_case": [{"model": "m", "norm": "l2", "eps": "1", "accuracy": 0.4, "verdict": "suspect"}],
        "calibration": [
            {"model": "m", "under": "clean", "calibrator": "none", "ece": 0.1},
            {"model": "m", "under": "clean", "calibrator": "temperature", "ece": 0.03},
            {"model": "m", "under": "pgd", "calibrator": "none", "ece": 0.01},
        ],
    }
    assert Standing.of(report, "m") == Standing("m", "d", 0.9, {"l2 1": 0.4}, {"l2 1": "suspect"}, 0.03)
