"""Intervals and tests against scipy and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robust.statistics import (
    bootstrap,
    clopper_pearson,
    discordant,
    holm,
    mcnemar_exact,
    mcnemar_midp,
    paired_bootstrap,
    wilson,
)


@pytest.mark.parametrize(("ours", "theirs"), [(wilson, "wilson"), (clopper_pearson, "exact")])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_proportion_intervals_equal_scipys(ours, theirs, level):
    cells = [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (359, 360), (5000, 10_000)]
    low, high = ours(*np.array(cells).T, level=level)
    expected = [stats.binomtest(k, n).proportion_ci(level, method=theirs) for k, n in cells]
    assert low == pytest.approx([e.low for e in expected], abs=1e-12)
    assert high == pytest.approx([e.high for e in expected], abs=1e-12)


def test_no_trials_say_nothing():
    assert [float(v) for v in wilson(0, 0)] == [0, 1]
    assert [float(v) for v in clopper_pearson(0, 0)] == [0, 1]


def test_impossible_counts_and_levels_are_refused():
    with pytest.raises(ValueError, match="successes <= n"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson(1, 2, level=95)
    with pytest.raises(ValueError, match=r"lie in \[0,1\]"):
        holm([0.1, 1.2])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test_of_discordant_pairs(b, c):
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert float(mcnemar_exact(b, c)) == pytest.approx(expected, abs=1e-12)
    midp = float(mcnemar_midp(b, c))
    assert 0 < midp <= float(mcnemar_exact(b, c))
    assert midp == float(mcnemar_midp(c, b))


def test_mcnemar_midp_closed_form():
    # b = 1, c = 5: exact 2 (1 + 6) / 64, less P[X = 1] = 6 / 64
    assert float(mcnemar_midp(1, 5)) == pytest.approx(14 / 64 - 6 / 64)
    assert mcnemar_midp([0, 3], [0, 3]).tolist()[0] == 1.0


def test_discordant_counts():
    assert discordant([1, 1, 0, 0, 1], [1, 0, 1, 0, 0]) == (2, 1)


def test_paired_bootstrap_has_the_width_of_the_normal_interval():
    rng = np.random.default_rng(1)
    first = rng.random(4000) < 0.8
    second = first & (rng.random(4000) < 0.9)
    found = paired_bootstrap(first, second, seed=3)
    gap = first.astype(float) - second
    assert found.estimate == pytest.approx(gap.mean())
    half = 1.96 * gap.std() / np.sqrt(4000)
    assert [found.low, found.high] == pytest.approx([gap.mean() - half, gap.mean() + half], abs=0.08 * half)
    assert found == paired_bootstrap(first, second, seed=3)
    assert found.excludes_zero()


def test_paired_bootstrap_of_real_values_agrees_with_scipys(monkeypatch):
    rng = np.random.default_rng(2)
    first, second = rng.normal(0.3, 1, 200), rng.normal(0, 1, 200)
    monkeypatch.setattr("robust.statistics.CHUNK", 20_000)  # several chunks
    found = paired_bootstrap(first, second)
    other = stats.bootstrap((first - second,), np.mean, method="percentile", n_resamples=9999, random_state=0)
    assert [found.low, found.high] == pytest.approx(list(other.confidence_interval), abs=0.02)


def test_identical_models_differ_by_exactly_nothing():
    found = paired_bootstrap([1, 0, 1], [1, 0, 1])
    assert found == (0, 0, 0)
    assert not found.excludes_zero()


def test_unpaired_or_infinite_scores_are_refused():
    with pytest.raises(ValueError, match="two equal"):
        paired_bootstrap([1, 0], [1])
    with pytest.raises(ValueError, match="finite"):
        paired_bootstrap([1, np.inf], [1, 0])
    with pytest.raises(ValueError, match="no samples"):
        bootstrap(np.mean, [])


def test_bootstrap_of_a_median_with_failures_at_infinity():
    distances = np.r_[np.linspace(0, 1, 60), np.full(55, np.inf)]
    found = bootstrap(np.median, distances, seed=5, resamples=500)
    assert found.low < found.estimate < 1
    assert found.high == np.inf


def test_holm_by_hand_and_in_any_shape():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    table = np.array([[0.001, 0.5], [0.02, 1.0]])
    assert holm(table) == pytest.approx(np.array([[0.004, 1.0], [0.06, 1.0]]))
    assert holm([]).shape == (0,)
