"""Prototypicality scores: closed forms, and that they agree about which digits are odd."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from robust.calibration.metrics import softmax
from robust.detection import prototypicality as proto


def test_scores_equal_their_formulae():
    z = np.random.default_rng(0).normal(size=(2, 6, 3)) * 2
    p, q = softmax(z[0]), softmax(z[1])
    assert np.allclose(proto.confidence(z), (p.max(1) + q.max(1)) / 2)
    assert np.allclose(proto.agreement(z), -(jensenshannon(p, q, axis=1) ** 2))
    kl = (p * np.log(p / q)).sum(1) + (q * np.log(q / p)).sum(1)
    assert np.allclose(proto.retraining(z[0], z[1]), -kl)


def test_identical_members_agree_fully_and_certain_opposites_not_at_all():
    same = np.array([[[5.0, 0.0]]] * 3)
    assert proto.agreement(same) == pytest.approx(0)
    opposite = np.array([[[1e4, 0.0]], [[0.0, 1e4]]])
    assert proto.agreement(opposite) == pytest.approx(-np.log(2))
    assert np.isfinite(proto.retraining(*opposite)).all()


def test_scores_of_real_digits_are_correlated_and_find_the_mistakes():
    x, y = load_digits(return_X_y=True)
    halves = [
        LogisticRegression(C=0.01, max_iter=500).fit(x[rows], y[rows]) for rows in (slice(0, 900, 2), slice(1, 900, 2))
    ]
    logits = np.stack([model.decision_function(x[900:]) for model in halves])
    scores = {
        "conf": proto.confidence(logits),
        "agr": proto.agreement(logits),
        "ret": proto.retraining(*logits),
        "margin": proto.adversarial_distance(np.diff(np.sort(logits[0], 1)[:, -2:])[:, 0]),
    }
    names, matrix = proto.rank_agreement(scores)
    assert names == list(scores)
    assert matrix.min() > 0.2
    wrong = logits[0].argmax(1) != y[900:]
    for value in scores.values():
        assert value[wrong].mean() < value[~wrong].mean()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"\[M,N,K\]"):
        proto.confidence(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="2 members"):
        proto.agreement(np.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match="NaN"):
        proto.adversarial_distance([np.nan])
    with pytest.raises(ValueError, match="conf: the same"):
        proto.rank_agreement({"conf": [1, 1], "agr": [1, 2]})
