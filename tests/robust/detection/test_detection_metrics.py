"""Detection metrics against scikit-learn, ties, edges, and invariance under monotone maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from robust.detection import metrics


def scores(seed, ties):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(1, 1, 80), rng.normal(0, 1.5, 130)
    return (a.round(ties), b.round(ties)) if ties is not None else (a, b)


@pytest.mark.parametrize("ties", [None, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_scikit_learn(seed, ties):
    a, b = scores(seed, ties)
    truth, both = np.r_[np.ones(80), np.zeros(130)], np.r_[a, b]
    assert metrics.auroc(a, b) == pytest.approx(roc_auc_score(truth, both), abs=1e-9)
    assert metrics.aupr_in(a, b) == pytest.approx(average_precision_score(truth, both), abs=1e-9)
    assert metrics.aupr_out(a, b) == pytest.approx(average_precision_score(1 - truth, -both), abs=1e-9)
    false, true, _ = roc_curve(truth, both, drop_intermediate=False)
    assert metrics.fpr_at(a, b) == pytest.approx(false[np.argmax(true >= 0.95)], abs=1e-9)
    best = metrics.best_threshold(a, b)
    assert best.cost == pytest.approx(((1 - true + false) / 2).min(), abs=1e-9)
    assert ((a < best.threshold).mean() + (b >= best.threshold).mean()) / 2 == pytest.approx(best.cost)


def test_perfect_useless_and_reversed():
    a, b = np.array([2.0, 3.0]), np.array([0.0, 1.0])
    assert metrics.summary(a, b) == {
        "auroc": 1, "aupr": 1, "aupr_out": 1, "fpr95": 0, "cost": 0, "threshold": 2, "overlap": 0,
    }  # fmt: skip
    assert metrics.auroc(b, a) == 0
    same = metrics.summary(np.ones(5), np.ones(7))
    assert (same["auroc"], same["fpr95"], same["cost"], same["overlap"]) == pytest.approx((0.5, 1, 0.5, 1))


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_only_ranks_matter(seed):
    a, b = scores(seed, 1)
    one, other = metrics.summary(a, b), metrics.summary(np.exp(a), np.exp(b))
    for key in set(one) - {"threshold"}:
        assert one[key] == pytest.approx(other[key], abs=1e-12), key
        assert 0 <= one[key] <= 1


def test_overlap_falls_as_the_sets_part():
    rng = np.random.default_rng(0)
    a = rng.normal(size=2000)
    near, far = (metrics.overlap(a, rng.normal(shift, 1, 2000)) for shift in (0.0, 2.0))
    assert near > 0.9
    assert far == pytest.approx(0.317, abs=0.06)  # 2 Phi(-1)


def test_costs_move_the_threshold():
    a, b = scores(0, None)
    strict = metrics.best_threshold(a, b, cost_accept=10).threshold
    lenient = metrics.best_threshold(a, b, cost_reject=10).threshold
    assert strict > lenient
    assert metrics.best_threshold(np.zeros(3), np.ones(3), cost_accept=3).threshold == np.inf


def test_intervals_are_seeded_and_hold_the_estimate():
    a, b = scores(0, None)
    first, again = (metrics.summary_intervals(a, b, seed=3, resamples=60) for _ in range(2))
    assert first == again
    estimate = metrics.summary(a, b)
    for key, (low, high) in first.items():
        assert 0 <= low <= estimate[key] <= high <= 1


def test_one_score_each_and_infinite_scores():
    assert metrics.summary(np.array([1.0]), np.array([0.0]))["auroc"] == 1
    found = metrics.summary(np.array([np.inf, 1.0]), np.array([-np.inf]))
    assert found["auroc"] == 1
    assert np.isfinite(found["threshold"])


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([np.nan, 1.0], [0.0], "knn: 1 of 2 in-distribution scores are NaN"),
        ([1.0], [np.nan], "knn: 1 of 1 out-of-distribution"),
        ([], [0.0], "knn: need at least one"),
    ],
)
def test_nan_and_empty_are_refused_by_name(a, b, message):
    with pytest.raises(ValueError, match=message):
        metrics.summary(a, b, "knn")
