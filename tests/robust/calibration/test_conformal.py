"""Conformal sets: definitions by hand, coverage over resamplings, RSCP+ under the worst l2 attack on a linear net."""

import numpy as np
import pytest
import torch
from scipy.stats import beta as beta_distribution
from scipy.stats import norm

from robust.calibration import conformal
from robust.calibration.aps import APS
from robust.calibration.lac import LAC
from robust.calibration.raps import RAPS
from robust.calibration.rscp_plus import RSCPPlus, bernstein, hoeffding
from robust.calibration.rscp_plus_ptt import RSCPPlusPTT
from robust.classifier import Classifier
from robust.randomness import Randomness

P = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.4, 0.4]], dtype=torch.float64)


def samples(n, seed, classes=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 2
    p = torch.tensor(logits).softmax(1).numpy()
    return torch.tensor(logits), torch.tensor((rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(0, classes - 1))


def test_scores_and_ranks_by_hand_with_ties():
    assert conformal.aps_scores(P).tolist() == [pytest.approx([0.5, 0.8, 1.0]), pytest.approx([1.0, 0.8, 0.8])]
    assert conformal.ranks(P).tolist() == [[1, 2, 3], [3, 2, 2]]
    assert conformal.lac_scores(P)[0].tolist() == pytest.approx([0.5, 0.7, 0.8])


def test_threshold_is_the_right_order_statistic():
    scores = torch.arange(1, 20).double()
    assert conformal.threshold(scores, 0.1) == 18  # ceil(20 * 0.9)
    assert conformal.threshold(scores[:8], 0.1).isinf()  # ceil(9 * 0.9) = 9 > 8


def test_too_few_samples_give_full_sets():
    logits, labels = samples(5, 0)
    for method in (LAC(), APS(), RAPS()):
        assert method.sets(logits, method.fit(logits, labels)).all()


@pytest.mark.parametrize("method", [LAC(), APS(), RAPS(penalty=0.05, free_ranks=1)], ids=lambda m: m.name)
def test_coverage_over_200_resamplings_is_what_theory_says(method):
    """Coverage is Beta(k, n + 1 - k) over splits, so its mean has a known interval."""
    n, alpha, covered = 200, method.alpha, []
    logits, labels = samples(4000, 1)
    rng = np.random.default_rng(0)
    for _ in range(200):
        order = torch.tensor(rng.permutation(len(labels)))
        fit, test = order[:n], order[n:]
        sets = method.sets(logits[test], method.fit(logits[fit], labels[fit]))
        covered.append(conformal.set_summary(sets, labels[test])["coverage"])
    k = int(np.ceil((n + 1) * (1 - alpha)))
    spread = beta_distribution(k, n + 1 - k)
    inside = [(spread.ppf(0.005) - 0.01 <= c <= spread.ppf(0.995) + 0.01) for c in covered]
    assert np.mean(inside) > 0.97
    assert abs(np.mean(covered) - spread.mean()) < 4 * spread.std() / np.sqrt(200) + 0.01


def test_lac_is_smallest_and_raps_cuts_the_tail_of_aps():
    logits, labels = samples(3000, 2, classes=20)
    sizes = {}
    for method in (LAC(), APS(), RAPS(penalty=0.3, free_ranks=3)):
        sets = method.sets(logits, method.fit(logits, labels))
        sizes[method.name] = sets.sum(1).double()
    assert sizes["lac"].mean() < sizes["aps"].mean()
    assert sizes["raps"].max() < sizes["aps"].max()


def test_set_summary_by_hand():
    sets = torch.tensor([[True, False], [True, True], [False, False]])
    found = conformal.set_summary(sets, torch.tensor([0, 1, 1]))
    assert found == pytest.approx({"coverage": 2 / 3, "size": 1, "empty": 1 / 3, "single": 1 / 3, "worst_class": 0.5})
    with pytest.raises(ValueError, match="N >= 1"):
        conformal.set_summary(sets[:0], torch.zeros(0, dtype=torch.int64))


# RSCP+ on a two-class linear net, whose strongest l2 attack is known: along the weight vector


def linear_net(scale=6.0):
    weight = torch.zeros(2, 4)
    weight[0, 0], weight[1, 0] = -scale, scale
    return Classifier(lambda x: (x.flatten(1) - 0.5) @ weight.to(x).T, num_classes=2)


def images(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    pixels = rng.uniform(0.3, 0.7, (n, 4))
    pixels[:, 0] = 0.5 + (2 * labels - 1) * 0.5 + rng.normal(0, 0.12, n)
    return torch.tensor(pixels).view(n, 1, 2, 2), torch.tensor(labels)


def attacked(x, y, eps):
    moved = x.clone()
    moved[:, 0, 0, 0] -= (2 * y - 1).double() * eps
    return moved


@pytest.mark.parametrize("cls", [RSCPPlus, RSCPPlusPTT], ids=lambda c: c.name)
@pytest.mark.parametrize("score", ["lac", "aps"])
def test_coverage_is_kept_under_the_strongest_attack_where_plain_sets_lose_it(cls, score):
    eps = 0.2
    net, method = linear_net(), cls(eps=eps, sigma=0.25, samples=200, score=score)
    (x, y), (test_x, test_y) = images(500, 0), images(300, 1)
    moved = attacked(test_x, test_y, eps)
    fitted = method.fit(method.noisy_logits(net, x, Randomness.of(0, range(500), "fit")), y)
    rng = Randomness.of(0, range(1000, 1300), "test")
    robust = conformal.set_summary(method.sets(method.noisy_logits(net, moved, rng), fitted), test_y)
    plain = LAC()
    lost = conformal.set_summary(plain.sets(net(moved), plain.fit(net(x), y)), test_y)
    assert lost["coverage"] < 0.85
    assert robust["coverage"] >= 0.9 - 3 * np.sqrt(0.09 / 300)
    if score == "lac":
        assert robust["size"] < 1.8  # kept by right sets, not by full ones


def wide_margin_case(n, seed, classes=10, copies=128):
    """Noisy logits of a net that is almost always right, with logits jittered by the input noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centre = rng.normal(size=(n, 1, classes)) + 4 * np.eye(classes)[labels][:, None]
    return torch.tensor(centre + 0.5 * rng.normal(size=(n, copies, classes))), torch.tensor(labels)


def test_ptt_halves_the_sets():
    (z, y), (fresh, fresh_y) = wide_margin_case(1000, 0), wide_margin_case(300, 1)
    sizes = {}
    for method in (RSCPPlus(score="lac"), RSCPPlusPTT(score="lac")):
        found = conformal.set_summary(method.sets(fresh, method.fit(z, y)), fresh_y)
        sizes[method.name] = found["size"]
        assert found["coverage"] >= 0.9
    assert sizes["rscp-plus-ptt"] < sizes["rscp-plus"] / 2


def test_sets_equal_the_formula():
    z, y = wide_margin_case(100, 2, classes=3, copies=16)
    method = RSCPPlus(bound="hoeffding", beta=0.01)
    fitted = method.fit(z, y)
    mean = (1 - z.softmax(2)).mean(1).numpy()
    tau = np.sort(mean[np.arange(100), y.numpy()])[int(np.ceil(101 * (1 - 0.1 + 0.02))) - 1]
    b = np.sqrt(-np.log(0.01) / 32)
    with np.errstate(divide="ignore"):
        expected = norm.ppf(np.maximum(mean - b, 0)) - 0.125 / 0.25 <= norm.ppf(min(tau + b, 1))
    assert (method.sets(z, fitted).numpy() == expected).all()


def test_monte_carlo_bounds_hold():
    draws = np.random.default_rng(0).beta(0.3, 2, (2000, 64, 1))
    truth = 0.3 / 2.3
    slack = bernstein(torch.tensor(draws), 0.05)[:, 0].numpy()
    assert (draws.mean(1)[:, 0] - truth > slack).mean() <= 0.05
    assert (draws.mean(1)[:, 0] - truth > hoeffding(64, 0.05)).mean() <= 0.05
    quiet = torch.full((1, 4096, 1), 0.5)
    assert bernstein(quiet, 1e-3).item() < hoeffding(4096, 1e-3)


def test_noise_belongs_to_the_sample():
    net, method = linear_net(), RSCPPlus(samples=3)
    x, _ = images(6, 0)
    whole = method.noisy_logits(net, x, Randomness.of(1, range(6)))
    part = method.noisy_logits(net, x[4:], Randomness.of(1, [4, 5]))
    assert torch.equal(whole[4:], part)
    assert whole.shape == (6, 3, 2)


def test_bad_levels_and_shapes_are_refused():
    with pytest.raises(ValueError, match="alpha / 2"):
        RSCPPlus(alpha=0.1, beta=0.06)
    with pytest.raises(ValueError, match="eps must be"):
        RSCPPlus(eps="-1/8")
    with pytest.raises(ValueError, match=r"\[N,M,K\]"):
        RSCPPlus().fit(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="holdout"):
        RSCPPlusPTT(holdout=0.9).fit(torch.zeros(2, 4, 3), torch.zeros(2, dtype=torch.int64))
