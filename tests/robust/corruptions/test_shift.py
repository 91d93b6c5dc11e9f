"""Shift metrics against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from robust import shift


def test_corruption_error_by_hand():
    errors = {"fog": [0.1, 0.3], "snow": [0.5, 0.5]}
    base = {"fog": [0.4, 0.4], "snow": [0.5, 0.75]}
    found = shift.corruption_error(errors, base)
    assert found.each == pytest.approx({"fog": 0.5, "snow": 0.8})
    assert found.mean == pytest.approx(0.65)
    assert shift.corruption_error(base, base).mean == pytest.approx(1)
    relative = shift.relative_corruption_error(errors, 0.1, base, 0.2)
    assert relative.each == pytest.approx({"fog": 0.2 / 0.4, "snow": 0.8 / 0.85})
    assert shift.relative_corruption_error(base, 0.2, base, 0.2).mean == pytest.approx(1)


def test_corruption_error_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match="snow"):
        shift.corruption_error({"fog": [0.1]}, {"fog": [0.1], "snow": [0.1]})
    with pytest.raises(ValueError, match="2 severities"):
        shift.corruption_error({"fog": [0.1, 0.2]}, {"fog": [0.1]})
    with pytest.raises(ValueError, match="fractions"):
        shift.corruption_error({"fog": [10.0]}, {"fog": [0.1]})
    with pytest.raises(ValueError, match="another base"):
        shift.corruption_error({"fog": [0.1]}, {"fog": [0.0]})


def test_effective_robustness_is_the_distance_to_the_line():
    clean = np.array([0.6, 0.7, 0.9])
    line = shift.baseline(clean, 0.5 * clean + 0.1, scale="linear")
    assert (line.slope, line.intercept) == pytest.approx((0.5, 0.1))
    assert shift.effective_robustness(0.8, 0.62, line) == pytest.approx(0.12)
    curved = shift.baseline(clean, clean)  # shifted = clean: slope 1 through the origin of the logit scale
    assert (curved.slope, curved.intercept) == pytest.approx((1, 0), abs=1e-9)
    assert shift.effective_robustness([0.3, 0.8], [0.2, 0.9], curved) == pytest.approx([-0.1, 0.1])
    with pytest.raises(ValueError, match="logit"):
        shift.baseline([0.5, 1.0], [0.4, 0.9])
    with pytest.raises(ValueError, match="at least two nets"):
        shift.baseline([0.5, 0.5], [0.4, 0.9])


def test_flips_are_counted_between_frames_and_for_noise_from_the_first():
    predictions = [[0, 0, 1, 1, 0], [2, 2, 2, 2, 2]]
    assert shift.flip_probability(predictions) == pytest.approx(2 / 8)
    assert shift.flip_probability(predictions, noise=True) == pytest.approx(2 / 8)
    assert shift.flip_probability([[0, 1, 1, 1]]) == pytest.approx(1 / 3)
    assert shift.flip_probability([[0, 1, 1, 1]], noise=True) == 1
    assert shift.flip_rate({"tilt": 0.1, "snow": 0.3}, {"tilt": 0.2, "snow": 0.2}).mean == pytest.approx(1)
    with pytest.raises(ValueError, match="at least two frames"):
        shift.flip_probability([[1], [2]])


def test_worst_corruption():
    found = shift.worst_corruption({"fog": [0.9, 0.5], "snow": [0.6, 0.7], "blur": [0.75, 0.25]})
    assert found == ("blur", pytest.approx(0.5))
    with pytest.raises(ValueError, match="no corruption was judged"):
        shift.worst_corruption({})


def ledger(correct: list[bool], confidence: list[float]) -> pd.DataFrame:
    logits = [np.log([p, 1 - p]) for p in confidence]
    return pd.DataFrame({"sample": range(10, 10 + len(correct)), "correct": correct, "logits": logits})


def test_adversarial_filtration_keeps_what_all_references_miss():
    first = ledger([True, False, False, False], [0.9, 0.9, 0.6, 0.99])
    second = ledger([True, True, False, False], [0.7, 0.95, 0.9, 0.97])
    assert shift.natural_adversarial([first]) == [11, 12, 13]
    assert shift.natural_adversarial([first, second.sample(frac=1, random_state=1)]) == [12, 13]
    assert shift.overconfident([first, second], 0.8) == [11, 13]
    with pytest.raises(ValueError, match="same samples"):
        shift.natural_adversarial([first, second[:2]])
    with pytest.raises(ValueError, match="at least one reference"):
        shift.natural_adversarial([])
    with pytest.raises(ValueError, match="probability"):
        shift.overconfident([first], 1.0)
