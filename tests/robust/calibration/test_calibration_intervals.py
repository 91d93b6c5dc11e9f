"""Bootstrap intervals of calibration metrics and prediction sets: against one resample at a time, and at the edges."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robust.calibration import intervals, metrics
from robust.calibration.conformal import set_summary
from robust.calibration.intervals import Resamples

MOVING_BINS = {"ece_mass", "ece_debiased"}  # whose bins are fixed on the original samples


def random_case(seed=0, n=300, classes=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)).astype(np.float32) * 2
    return metrics.softmax(logits), rng.integers(0, classes, n)


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (6, 3), (300, 5)])
def test_every_draw_is_the_metric_of_its_resample(n, classes):
    p, y = random_case(n, n, classes)
    p[: n // 3] = p[0]  # ties
    resamples = Resamples.of(n, 7, 12)
    draws = intervals.summary_draws(p, y, resamples)
    assert set(draws) == set(metrics.summary(p, y)) - {"n"}
    for b in range(12):
        drawn = np.repeat(np.arange(n), resamples.counts[:, b])
        one = metrics.summary(p[drawn], y[drawn])
        for key in set(draws) - MOVING_BINS:
            expected = math.nan if one[key] is None else one[key]
            assert draws[key][b] == pytest.approx(expected, abs=1e-10, nan_ok=True), key


def test_equal_mass_errors_of_a_resample_use_the_bins_of_the_sample():
    p, y = random_case(3)
    resamples = Resamples.of(len(y), 0, 3)
    draws = intervals.summary_draws(p, y, resamples)
    confidence, correct = metrics.top_label(p, y)
    bin_of = metrics.mass_bins(confidence, 15)
    for b in range(3):
        drawn = np.repeat(np.arange(len(y)), resamples.counts[:, b])
        table = metrics.Reliability.of(confidence[drawn], correct[drawn], bin_of[drawn])
        assert draws["ece_mass"][b] == pytest.approx(table.expected_error, abs=1e-12)


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    p, y = random_case(5, 50)
    resamples = Resamples.of(50, 1, 40)
    whole = intervals.summary_draws(p, y, resamples)
    monkeypatch.setattr(intervals, "CHUNK", 150)
    for key, values in intervals.summary_draws(p, y, resamples).items():
        assert np.array_equal(values, whole[key], equal_nan=True), key


def test_resamples_are_seeded_draw_n_each_and_refuse_what_is_no_sample():
    first, again, other = Resamples.of(20, 1, 30), Resamples.of(20, 1, 30), Resamples.of(20, 2, 30)
    assert (first.counts == again.counts).all()
    assert (first.counts != other.counts).any()
    assert (first.counts.sum(0) == 20).all()
    for n, resamples in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="at least one sample and one resample"):
            Resamples.of(n, 0, resamples)
    with pytest.raises(ValueError, match="of 20 samples, and there are 300"):
        intervals.summary_draws(*random_case(), first)


def test_intervals_hold_the_estimate_and_cover_what_theory_says():
    p, y = random_case(4)
    found, estimate = intervals.summary_intervals(p, y, seed=1), metrics.summary(p, y)
    assert found == intervals.summary_intervals(p, y, seed=1)
    assert set(found) == set(estimate) - {"n"}
    for key, (low, high) in found.items():
        assert low <= estimate[key] <= high, key
    for key, values in (("accuracy", p.argmax(1) == y), ("nll", -np.log(p[np.arange(300), y]))):
        normal = 1.96 * values.std() / np.sqrt(300)  # the bootstrap of a mean is its normal interval
        assert found[key][1] - found[key][0] == pytest.approx(2 * normal, rel=0.15)


def test_the_interval_of_ece_covers_the_error_that_was_built_in():
    """Confidence c, right with probability c - 0.1: the error is 0.1 in every bin."""
    inside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.65, 1, 400)
        p = np.stack([confidence, 1 - confidence], 1)
        y = (rng.random(400) > confidence - 0.1).astype(int)
        low, high = intervals.summary_intervals(p, y, seed=seed, resamples=200)["overconfidence"]
        inside += low <= 0.1 <= high
    assert inside >= 52


EDGES = {
    "all correct": (np.tile([0.6, 0.4], (5, 1)), np.zeros(5, int)),
    "all wrong": (np.tile([0.6, 0.4], (5, 1)), np.ones(5, int)),
    "confidence 0 and 1": (np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0, 1, 1])),
    "one class absent": (random_case(1, 40, 3)[0], np.arange(40) % 2),
    "one sample": (np.array([[0.7, 0.2, 0.1]]), np.array([2])),
    "fewer samples than bins": (random_case(2, 4, 3)[0], np.array([0, 1, 2, 0])),
}


@pytest.mark.parametrize("edge", EDGES)
def test_edges_have_finite_intervals_around_their_estimates(edge):
    p, y = EDGES[edge]
    estimate, found = metrics.summary(p, y), intervals.summary_intervals(p, y, resamples=50)
    assert set(found) == {key for key, value in estimate.items() if value is not None} - {"n"}
    for key, (low, high) in found.items():
        assert np.isfinite([low, high]).all(), key
        assert low <= estimate[key] <= high, key
    assert 0 <= found["ece"][0] <= found["ece"][1] <= 1
    assert (edge == "all correct") == ("confidence_errors" not in found)
    assert (edge in ("all wrong", "one sample")) == ("confidence_correct" not in found)


@given(st.integers(0, 10_000), st.integers(1, 25))
@settings(max_examples=15, deadline=None)
def test_no_limit_is_nan_and_none_leaves_its_range(seed, n):
    p, y = random_case(seed, n, 3)
    found = intervals.columns(intervals.summary_intervals(p, y, seed=seed, resamples=20))
    assert all(math.isfinite(limit) for limit in found.values())
    for key in ("ece", "ece_20", "ece_mass", "mce", "aurc", "accuracy", "confidence"):
        assert -1e-12 <= found[f"{key}_low"] <= found[f"{key}_high"] <= 1 + 1e-12


def test_networks_on_the_same_samples_share_their_draws():
    """The draws of a difference vary less than unpaired ones: a net against itself with one more error."""
    p, y = random_case(6)
    nearly = y.copy()
    nearly[0] = (y[0] + 1) % 5
    resamples = Resamples.of(300, 3)
    first, second = (intervals.summary_draws(p, labels, resamples)["nll"] for labels in (y, nearly))
    assert (first - second).std() < 0.2 * first.std()


def test_sets_draw_by_draw_and_where_they_are_all_right():
    rng = np.random.default_rng(0)
    sets, y = rng.random((30, 4)) < 0.6, rng.integers(0, 3, 30)
    resamples = Resamples.of(30, 2, 10)
    draws = intervals.set_draws(sets, y, resamples)
    for b in range(10):
        drawn = np.repeat(np.arange(30), resamples.counts[:, b])
        one = set_summary(torch.tensor(sets[drawn]), torch.tensor(y[drawn]))
        assert {key: values[b] for key, values in draws.items()} == pytest.approx(one)
    full = np.ones((3, 4), bool)
    found = intervals.bounds(
        set_summary(torch.tensor(full), torch.tensor(y[:3])), intervals.set_draws(full, y[:3], Resamples.of(3))
    )
    assert found == {"coverage": (1, 1), "size": (4, 4), "empty": (0, 0), "single": (0, 0), "worst_class": (1, 1)}
