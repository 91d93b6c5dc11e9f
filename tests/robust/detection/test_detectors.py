"""Every detector tells digits from noise or from unseen digits, and equals its published formula."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors
from torch import nn

from robust.classifier import Classifier
from robust.detection.ash import ASH
from robust.detection.detector import Detector, head_of
from robust.detection.dice import DICE
from robust.detection.energy import Energy
from robust.detection.entropy import Entropy
from robust.detection.gen import GEN
from robust.detection.gradnorm import GradNorm
from robust.detection.kl_matching import KLMatching
from robust.detection.knn import KNN
from robust.detection.mahalanobis import Mahalanobis
from robust.detection.max_logit import MaxLogit
from robust.detection.max_softmax import MaxSoftmax
from robust.detection.metrics import auroc
from robust.detection.react import ReAct
from robust.detection.relative_mahalanobis import RelativeMahalanobis
from robust.detection.she import SHE
from robust.detection.typicality import Typicality
from robust.detection.vim import ViM

ALL = [
    MaxSoftmax(), MaxLogit(), Energy(), Entropy(), GEN(), Typicality(), KLMatching(), Mahalanobis(),
    RelativeMahalanobis(), KNN(), ViM(), ReAct(), ASH(), SHE(), GradNorm(), DICE(),
]  # fmt: skip
every = pytest.mark.parametrize("detector", ALL, ids=lambda d: d.name)


@every
def test_tells_digits_from_others_better_than_chance(digits, detector):
    fitted = digits.fit(detector)
    inside = digits.score(detector, "test", fitted)
    found = {part: auroc(inside, digits.score(detector, part, fitted)) for part in ("near", "far")}
    assert max(found.values()) > 0.7
    assert found["near"] > 0.55


@every
def test_scores_are_finite_float64_of_each_row_alone(digits, detector):
    fitted = digits.fit(detector)
    whole = digits.score(detector, "test", fitted)
    assert whole.dtype == torch.float64
    assert whole.shape == (len(digits.test.labels),)
    assert whole.isfinite().all()
    part = detector.score_features(digits.test.features[5:9], digits.test.logits[5:9], fitted)
    assert torch.allclose(part, whole[5:9], rtol=1e-9, atol=1e-9)


@every
def test_a_logit_detector_reads_no_features(digits, detector):
    empty = digits.test.features[:, :0]
    if not detector.needs_features:
        fitted = detector.fit_features(digits.train.features[:, :0], digits.train.logits, digits.train.labels)
        again = detector.score_features(empty, digits.test.logits, fitted)
        assert torch.equal(again, digits.score(detector, "test"))
    assert isinstance(detector, Detector)


def arrays(part):
    return part.features.double().numpy(), part.logits.double().numpy()


def test_logit_scores_equal_their_formulae(digits):
    _, z = arrays(digits.test)
    p = softmax(z, axis=1)
    close = {"rtol": 1e-9, "atol": 1e-9}
    assert np.allclose(digits.score(MaxSoftmax(), "test"), p.max(1), **close)
    assert np.allclose(digits.score(MaxLogit(), "test"), z.max(1), **close)
    assert np.allclose(digits.score(Energy(temperature=2), "test"), 2 * logsumexp(z / 2, axis=1), **close)
    assert np.allclose(digits.score(Entropy(), "test"), (p * np.log(p)).sum(1), **close)
    top = -np.sort(-p, axis=1)[:, :3]
    assert np.allclose(digits.score(GEN(top=3), "test"), -((top * (1 - top)) ** 0.1).sum(1), rtol=1e-3)
    mean = logsumexp(arrays(digits.train)[1], axis=1).mean()
    assert np.allclose(digits.score(Typicality(), "test"), -np.abs(logsumexp(z, axis=1) - mean), **close)


def test_kl_matching_equals_its_formula(digits):
    p, q = softmax(arrays(digits.train)[1], axis=1), softmax(arrays(digits.test)[1], axis=1)
    templates = [p[p.argmax(1) == k].mean(0) for k in range(8)]
    divergence = np.stack([(q * np.log(q / d)).sum(1) for d in templates], 1)
    assert np.allclose(digits.score(KLMatching(), "test"), -divergence.min(1), atol=1e-9)


def test_mahalanobis_equals_scikit_learns_covariance(digits):
    f, _ = arrays(digits.train)
    g, _ = arrays(digits.test)
    y = digits.train.labels.numpy()
    means = np.stack([f[y == k].mean(0) for k in range(8)])
    precision = EmpiricalCovariance(assume_centered=True).fit(f - means[y]).precision_
    distance = np.stack([np.einsum("nd,de,ne->n", g - m, precision, g - m) for m in means], 1).min(1)
    assert np.allclose(digits.score(Mahalanobis(), "test"), -distance, rtol=1e-6)
    whole = EmpiricalCovariance().fit(f)
    assert np.allclose(
        digits.score(RelativeMahalanobis(), "test"), whole.mahalanobis(g) - distance, rtol=1e-5, atol=1e-5
    )


def test_mahalanobis_ignores_dead_units_and_absent_classes():
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    features[:, 2] = 0
    labels = torch.arange(50) % 2 * 3  # classes 1 and 2 are absent
    fitted = Mahalanobis().fit_features(features, torch.zeros(50, 4), labels)
    moved = features.clone()
    moved[:, 2] = 9
    same = [Mahalanobis().score_features(x, torch.zeros(50, 4), fitted) for x in (features, moved)]
    assert torch.allclose(*same)


@pytest.mark.parametrize("k", [1, 50])
def test_knn_equals_scikit_learn(digits, k):
    bank, points = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (arrays(digits.train)[0], arrays(digits.test)[0])
    )
    distance, _ = NearestNeighbors(n_neighbors=k).fit(bank.astype(np.float32)).kneighbors(points)
    assert np.allclose(digits.score(KNN(neighbours=k), "test"), -distance[:, -1], atol=1e-5)


def test_knn_with_more_neighbours_than_samples_takes_the_farthest(digits):
    detector = KNN(neighbours=10_000)
    assert digits.score(detector, "test").isfinite().all()


def test_vim_equals_the_virtual_softmax_up_to_a_monotone_map(digits):
    """The paper's score is the softmax probability of the virtual logit; ours orders samples the same way."""
    (f, z), (g, h) = arrays(digits.train), arrays(digits.test)
    weight, bias = (part.double().numpy() for part in digits.head)
    origin = -np.linalg.pinv(weight) @ bias
    vectors = np.linalg.svd((f - origin).T @ (f - origin))[0][:, 32:]
    train, test = (np.linalg.norm((x - origin) @ vectors, axis=1) for x in (f, g))
    alpha = z.max(1).sum() / train.sum()
    virtual = softmax(np.column_stack([h, alpha * test]), axis=1)[:, -1]
    score = digits.score(ViM(), "test").numpy()
    assert np.allclose(1 / (1 + np.exp(score)), virtual, rtol=1e-6)


def test_the_energy_of_log_probabilities_tells_nothing_and_says_nothing():
    logits = 30 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    average = logits.log_softmax(1).logaddexp(logits.flip(1).log_softmax(1)) - math.log(2)  # as an ensemble returns
    assert average.double().logsumexp(1).abs().max() > 0  # rounding leaves something
    assert Energy().score_features(average, average, {}).count_nonzero() == 0
    assert Energy().score_features(logits, logits, {}).count_nonzero() == 200


def test_react_with_no_cut_is_energy_and_cuts_at_the_percentile(digits):
    assert np.allclose(digits.score(ReAct(percentile=100), "train"), digits.score(Energy(), "train"), atol=1e-4)
    f, _ = arrays(digits.train)
    height = float(digits.fit(ReAct(percentile=80))["height"])
    assert (f <= height).mean() == pytest.approx(0.8, abs=0.01)


def test_dice_and_ash_without_pruning_are_energy(digits):
    assert np.allclose(digits.score(DICE(sparsity=0), "test"), digits.score(Energy(), "test"), atol=1e-4)
    weight, bias = (part.double().numpy() for part in digits.head)
    f, _ = arrays(digits.test)
    expected = logsumexp(np.e * f @ weight.T + bias, axis=1)  # all kept: scaled by exp(1)
    assert np.allclose(digits.score(ASH(percentile=0), "test"), expected, atol=1e-9)


def test_ash_by_hand(digits):
    weight, bias = (part.double().numpy() for part in digits.head)
    f, _ = arrays(digits.test)
    row = f[0].copy()
    row[np.argsort(row)[: round(0.75 * 64)]] = 0
    row *= np.exp(f[0].sum() / row.sum())
    assert digits.score(ASH(percentile=75), "test")[0] == pytest.approx(logsumexp(weight @ row + bias), rel=1e-9)


def test_dice_keeps_the_largest_contributions(digits):
    fitted = digits.fit(DICE(sparsity=0.9))
    contribution = digits.head.weight.double() * digits.train.features.double().mean(0)
    kept = fitted["weight"] != 0
    assert int(kept.sum()) == 8 * 64 - round(0.9 * 8 * 64)
    assert contribution[kept].min() >= contribution[~kept].max()


def test_gradnorm_equals_autograd(digits):
    layer = nn.Linear(64, 8).double()
    layer.load_state_dict({"weight": digits.head.weight, "bias": digits.head.bias})
    for i in range(3):
        layer.zero_grad()
        log_p = layer(digits.test.features[i].double()).log_softmax(0)
        (-log_p.mean()).backward()
        expected = float(layer.weight.grad.abs().sum())
        assert digits.score(GradNorm(), "test")[i] == pytest.approx(expected, rel=1e-4)


def test_she_equals_its_formula(digits):
    f, z = arrays(digits.train)
    g, h = arrays(digits.test)
    y = digits.train.labels.numpy()
    patterns = np.stack([f[(y == k) & (z.argmax(1) == k)].mean(0) for k in range(8)])
    assert np.allclose(digits.score(SHE(), "test"), (g * patterns[h.argmax(1)]).sum(1), rtol=1e-9)


def test_she_serves_a_class_that_was_never_right():
    features, logits = torch.rand(4, 3), torch.eye(4)[:, :3] + torch.tensor([0.0, 0, 0.1])
    fitted = SHE().fit_features(features, logits, torch.tensor([0, 1, 0, 1]))
    assert torch.allclose(fitted["patterns"][2], features.double().mean(0))


@pytest.mark.parametrize("detector", [d for d in ALL if d.needs_head], ids=lambda d: d.name)
def test_a_missing_head_is_named(digits, detector):
    with pytest.raises(ValueError, match=f"{detector.name} needs the last linear layer"):
        detector.fit_features(digits.train.features, digits.train.logits, digits.train.labels)


def test_head_of_refuses_a_net_whose_last_layer_is_not_linear(digits):
    part = digits.test
    with pytest.raises(ValueError, match="adds to it"):
        head_of(digits.classifier, part.features, part.logits + 5)
    with pytest.raises(ValueError, match="do not serve"):
        head_of(digits.classifier, part.features[:, :5], part.logits)
    with pytest.raises(ValueError, match="no linear layer"):
        head_of(Classifier(lambda x: x.flatten(1)), part.features, part.logits)
