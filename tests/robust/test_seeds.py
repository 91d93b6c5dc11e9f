"""Variation over seeds: closed forms, and sentences that say what the numbers say."""

import math

import numpy as np
import pytest
from scipy import stats

from robust.seeds import difference, difference_sentence, t_interval, variance_components


def test_t_interval_of_three_seeds_is_248_standard_deviations():
    found = t_interval([0.80, 0.82, 0.87])
    assert found.estimate == pytest.approx(0.83)
    assert (found.high - found.estimate) / np.std([0.80, 0.82, 0.87], ddof=1) == pytest.approx(2.484, abs=1e-3)
    expected = stats.t.interval(0.95, 2, loc=0.83, scale=stats.sem([0.80, 0.82, 0.87]))
    assert [found.low, found.high] == pytest.approx(list(expected))


def test_one_seed_sets_no_limits():
    assert t_interval([0.5]) == (0.5, -math.inf, math.inf)
    with pytest.raises(ValueError, match="no values"):
        t_interval([])


def test_variance_components_are_recovered():
    rng = np.random.default_rng(0)
    S, N = 200, 300
    y = rng.normal(0, 2, (S, 1)) + rng.normal(0, 1, (1, N)) + rng.normal(0, 0.5, (S, N))
    found = variance_components(y)
    assert found.seeds == pytest.approx(4, rel=0.25)
    assert found.samples == pytest.approx(1, rel=0.25)
    assert found.residual == pytest.approx(0.25, rel=0.05)
    assert found.seeds_error == pytest.approx(math.sqrt(found.seeds / S))


def test_variance_components_without_variation():
    found = variance_components(np.ones((3, 5)))
    assert (found.seeds, found.samples, found.residual) == (0, 0, 0)
    with pytest.raises(ValueError, match="S, N >= 2"):
        variance_components(np.ones((1, 5)))


def test_single_runs_use_mcnemar():
    first, second = np.r_[np.ones(90), np.zeros(10)], np.r_[np.ones(60), np.zeros(40)]
    found = difference(first, second)
    assert (found.effect, found.only_first, found.only_second, found.seeds) == (pytest.approx(0.3), 30, 0, None)
    assert found.p < 1e-6
    assert "is larger than the variation over samples; over seeds it is untested" in difference_sentence(
        found, "a", "b"
    )


def test_over_seeds_is_welchs_interval():
    rng = np.random.default_rng(3)
    first, second = rng.random((3, 50)) < 0.7, rng.random((4, 50)) < 0.5
    found = difference(first, second)
    welch = stats.ttest_ind(first.mean(1), second.mean(1), equal_var=False).confidence_interval()
    assert found.seeds is not None
    assert [found.seeds.low, found.seeds.high] == pytest.approx([welch.low, welch.high])
    gap = first.mean(0) - second.mean(0)
    assert found.p == pytest.approx(stats.ttest_1samp(gap, 0).pvalue)


def accuracies(*means, n=1000):
    """Runs [S,N] with these accuracies, wrong on nested sets of samples."""
    return np.array([np.arange(n) < round(mean * n) for mean in means], float)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ((0.90, 0.91, 0.90), (0.70, 0.71, 0.70), "is larger than both the variation over samples and over seeds."),
        ((0.90, 0.60, 0.75), (0.70, 0.72, 0.71), "larger than that over samples, not than that over seeds"),
        ((0.7, 0.7, 0.7), (0.7, 0.7, 0.7), "have the same accuracy: the difference is not larger than both"),
    ],
)
def test_sentences(first, second, says):
    found = difference(accuracies(*first), accuracies(*second))
    assert says in difference_sentence(found, "pgd-at", "standard")


def test_sentence_names_the_loser_first_when_it_comes_first():
    found = difference(accuracies(0.5), accuracies(0.75))
    assert difference_sentence(found, "a", "b").startswith("a has 25.0 points less accuracy than b")


def test_other_samples_are_refused():
    with pytest.raises(ValueError, match="same samples"):
        difference(np.ones((2, 5)), np.ones((2, 6)))
