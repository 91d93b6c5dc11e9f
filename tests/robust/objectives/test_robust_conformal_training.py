"""RCT: its value by hand, and that following its gradient shrinks the robust sets it is meant to shrink."""

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from scipy.stats import norm

from robust.calibration.conformal import set_summary
from robust.calibration.rscp_plus import RSCPPlus
from robust.calibration.rscp_plus_ptt import RSCPPlusPTT
from robust.datasets.digits import Digits
from robust.models.mlp import MLP
from robust.objectives.objective import Training
from robust.objectives.robust_conformal_training import RobustConformalTraining, rct_loss
from robust.randomness import Randomness
from robust.training import train


def test_value_by_hand():
    z, y = np.random.default_rng(0).normal(size=(6, 4, 3)), np.array([0, 1, 2, 0, 1, 2])
    q = norm.ppf(softmax(z, axis=2).mean(1))
    tau = np.sort(q[np.arange(3), y[:3]])[1] - 0.125 / 0.25  # alpha 0.5: second of three
    soft = expit((q[3:] - tau) / 0.1)
    expected = np.log((1 - soft[np.arange(3), y[3:]]).mean() + np.maximum(soft.sum(1) - 1, 0).mean() + 1e-8)
    found = rct_loss(torch.tensor(z), torch.tensor(y), alpha=0.5)
    assert float(found) == pytest.approx(expected, abs=1e-9)


def noisy(inputs, generator):
    return inputs[:, None] + 0.25 * torch.randn(len(inputs), 64, inputs.shape[1], generator=generator)


def test_training_shrinks_robust_sets():
    rng = np.random.default_rng(0)
    labels = torch.tensor(rng.integers(0, 5, 1500))
    inputs = torch.tensor(rng.normal(0, 0.15, (1500, 8))).float()
    inputs[torch.arange(1500), labels] += 0.9
    generator = torch.Generator().manual_seed(0)
    fit, test, train = slice(0, 500), slice(500, 800), slice(800, None)
    method = RSCPPlusPTT(samples=64)
    calibrate_noise, test_noise = noisy(inputs[fit], generator), noisy(inputs[test], generator)

    def sets(weight):
        fitted = method.fit(calibrate_noise @ weight, labels[fit])
        return set_summary(method.sets(test_noise @ weight, fitted), labels[test])

    weight = (torch.eye(8, 5) + 0.8 * torch.randn(8, 5, generator=generator)).requires_grad_(True)
    before = sets(weight.detach())
    optimizer = torch.optim.Adam([weight], lr=0.05)
    for _ in range(60):
        loss = rct_loss(noisy(inputs[train], generator) @ weight, labels[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = sets(weight.detach())
    assert after["size"] < 0.7 * before["size"]
    assert after["coverage"] >= 0.9


def test_with_the_transform_its_sets_are_half_of_what_noise_training_has_without():
    spec = Digits(train=900, select=100, calibrate=300)
    parts = {split: spec.load(split).batch(slice(None)) for split in ("calibrate", "test")}

    def sets(pretraining, method):
        objective = RobustConformalTraining(
            eps="1/4", pretraining=pretraining, training=Training(epochs=16, batch_size=150, lr=5e-3)
        )
        trained = train(MLP(hidden=(64,)), objective, spec.load("train"), spec.load("select"), device="cpu", threads=1)
        with trained.classifier.frozen() as classifier:
            noisy = {
                split: method.noisy_logits(classifier, images, Randomness.of(0, ids, split))
                for split, (images, _, ids) in parts.items()
            }
        fitted = method.fit(noisy["calibrate"], parts["calibrate"][1])
        return set_summary(method.sets(noisy["test"], fitted), parts["test"][1])

    plain = sets(1.0, RSCPPlus(eps="1/4", beta=0.01))
    both = sets(0.5, RSCPPlusPTT(eps="1/4", beta=0.01))
    assert both["size"] <= 0.5 * plain["size"]
    assert both["coverage"] >= 0.9


def test_ranks_cannot_share_its_batches():
    with pytest.raises(ValueError, match="one half of it sets the threshold"):
        RobustConformalTraining(training=Training(ranks=2))


def test_certain_logits_have_a_finite_gradient_and_bad_shapes_are_refused():
    logits = (torch.eye(3)[[0, 1, 2, 0]] * 1e4)[:, None].requires_grad_(True)
    rct_loss(logits, torch.tensor([0, 1, 2, 0])).backward()
    assert logits.grad.isfinite().all()
    with pytest.raises(ValueError, match="N >= 2"):
        rct_loss(torch.zeros(1, 2, 3), torch.tensor([0]))
