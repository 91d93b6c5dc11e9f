"""Calibration metrics against scikit-learn, torchmetrics' definition, closed forms and the edges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from robust import torchvision
from robust.calibration import metrics


def random_case(seed=0, n=500, classes=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)).astype(np.float32) * 2
    return metrics.softmax(logits), rng.integers(0, classes, n)


def by_hand_ece(p, y, bins):
    confidence, correct = p.max(1), p.argmax(1) == y
    gaps = []
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            gaps.append((inside.mean(), abs(correct[inside].mean() - confidence[inside].mean())))
    return sum(w * g for w, g in gaps), max(g for _, g in gaps)


@pytest.mark.parametrize("bins", [15, 20])
def test_ece_and_mce_equal_the_definition(bins):
    p, y = random_case()
    expected, largest = by_hand_ece(p, y, bins)
    assert metrics.ece(p, y, bins) == pytest.approx(expected, abs=1e-12)
    assert metrics.mce(p, y, bins) == pytest.approx(largest, abs=1e-12)


@pytest.mark.parametrize("bins", [15, 20])
def test_ece_and_mce_equal_torchmetrics(bins):
    torchvision.load()
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, y = random_case(6)
    for norm, ours in (("l1", metrics.ece), ("max", metrics.mce)):
        theirs = multiclass_calibration_error(torch.tensor(p), torch.tensor(y), 5, n_bins=bins, norm=norm)
        assert ours(p, y, bins) == pytest.approx(float(theirs), abs=1e-6)


def test_brier_and_nll_equal_scikit_learn():
    p, y = random_case(1)
    assert metrics.nll(p, y) == pytest.approx(log_loss(y, p, labels=range(5)), abs=1e-9)
    assert metrics.brier(p, y) == pytest.approx(brier_score_loss(y, p, labels=range(5), scale_by_half=False), abs=1e-9)


def test_brier_decomposition_adds_up_exactly():
    p, y = random_case(2)
    parts = metrics.brier_decomposition(p, y)
    assert parts.total == pytest.approx(metrics.brier(p, y), abs=1e-12)
    assert parts.reliability >= 0
    assert parts.resolution >= 0


def test_brier_decomposition_has_no_within_term_for_constant_forecasts():
    p = np.tile([0.7, 0.3], (10, 1))
    parts = metrics.brier_decomposition(p, np.array([0] * 7 + [1] * 3))
    assert parts.within == pytest.approx(0, abs=1e-15)
    assert parts.reliability == pytest.approx(0, abs=1e-15)
    assert parts.uncertainty == pytest.approx(2 * 0.21)


def test_equal_mass_bins_hold_equal_counts_and_keep_ties_together():
    bins = metrics.mass_bins(np.random.default_rng(0).random(100), 10)
    assert (np.bincount(bins) == 10).all()
    assert len(set(metrics.mass_bins(np.array([0.3] * 7 + [0.9]), 4)[:7])) == 1


def test_debiased_ece_is_nearer_zero_for_a_calibrated_forecaster():
    plain, debiased = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.5, 1, 400)
        p = np.stack([confidence, 1 - confidence], 1)
        y = (rng.random(400) > confidence).astype(int)
        plain.append(metrics.ece_mass(p, y))
        debiased.append(metrics.ece_debiased(p, y))
    assert np.mean(plain) > 0.04
    assert abs(np.mean(debiased)) < 0.65 * np.mean(plain)


def test_debiasing_equals_the_resampling_it_stands_for():
    p, y = random_case(5, 200, 3)
    confidence, correct = metrics.top_label(p, y)
    table = metrics.Reliability.of(confidence, correct, metrics.mass_bins(confidence, 15))
    noise = np.random.default_rng(0).normal(size=(40_000, len(table.count)))
    accuracy = table.accuracy + noise * np.sqrt(table.accuracy * (1 - table.accuracy) / table.count)
    perturbed = (np.abs(accuracy - table.confidence) * table.weight).sum(1).mean()
    assert metrics.ece_debiased(p, y) == pytest.approx(2 * table.expected_error - perturbed, abs=1e-3)


def test_classwise_ece_of_two_classes_counts_both_sides():
    p = np.tile([0.8, 0.2], (4, 1))
    assert metrics.ece_classwise(p, np.array([0, 0, 1, 1])) == pytest.approx(0.3)


def test_aurc_by_hand_and_with_ties():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    assert metrics.aurc(p, np.array([0, 1, 0])) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    tied = np.tile([0.9, 0.1], (4, 1))
    assert metrics.aurc(tied, np.array([0, 0, 1, 1])) == pytest.approx(0.5)


def test_excess_aurc_is_zero_when_errors_come_last():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    assert metrics.aurc_excess(p, np.array([0, 0, 1])) == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_no_figure_depends_on_the_order_and_all_stay_in_range(seed, n):
    p, y = random_case(seed, n, 3)
    p[: n // 2] = p[0]  # ties
    order = np.random.default_rng(seed).permutation(n)
    one, other = metrics.summary(p, y), metrics.summary(p[order], y[order])
    for key, value in one.items():
        assert value == pytest.approx(other[key], abs=1e-12), key
    assert 0 <= one["ece"] <= one["mce"] <= 1


def test_confidence_exactly_0_and_1():
    p = np.array([[1.0, 0.0], [1.0, 0.0]])
    found = metrics.summary(p, np.array([0, 1]))
    assert found["ece"] == pytest.approx(0.5)
    assert found["brier"] == pytest.approx(1.0)
    assert np.isfinite(found["nll"])
    assert metrics.width_bins(np.array([0.0, 1.0]), 15).tolist() == [0, 14]


@pytest.mark.parametrize(("label", "missing"), [(0, "confidence_errors"), (1, "confidence_correct")])
def test_all_correct_and_all_wrong(label, missing):
    p = np.tile([0.6, 0.4], (5, 1))
    found = metrics.summary(p, np.full(5, label))
    assert found["ece"] == pytest.approx(0.4 if label == 0 else 0.6)
    assert found[missing] is None
    assert found["aurc"] == pytest.approx(label)


def test_one_sample_one_class_absent_and_fewer_samples_than_bins():
    p, _ = random_case(3, 4, 5)
    found = metrics.summary(p, np.array([0, 0, 1, 1]))
    assert all(np.isfinite(v) for v in found.values() if v is not None)
    single = metrics.summary(p[:1], np.array([2]))
    assert single["ece"] == pytest.approx(single["mce"]) == pytest.approx(single["ece_mass"])


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        (np.array([[np.nan, 1.0]]), np.array([0]), "NaN"),
        (np.array([[2.0, -1.0]]), np.array([0]), "softmax"),
        (np.array([[0.5, 0.5]]), np.array([2]), "labels must be"),
        (np.array([[0.5, 0.5]]), np.array([0.5]), "labels must be"),
        (np.zeros((0, 2)), np.zeros(0, int), "N >= 1"),
        (np.array([[0.5, 0.5]]), np.array([0, 1]), "N >= 1"),
    ],
)
def test_bad_input_is_refused_by_name(p, y, message):
    with pytest.raises(ValueError, match=message):
        metrics.summary(p, y)


def test_softmax_refuses_nan_and_takes_tensors_and_huge_logits():
    with pytest.raises(ValueError, match="1 of 2 rows"):
        metrics.softmax(np.array([[np.nan, 0], [0, 1]]))
    assert metrics.softmax(torch.tensor([[1e4, 0.0]])).tolist() == [[1.0, 0.0]]


def test_zero_bins_are_refused():
    p, y = random_case()
    with pytest.raises(ValueError, match="bins"):
        metrics.ece(p, y, 0)
