"""Honest networks, trained in every honest way: none may be called suspect. Twenty seeds a kind: the benchmark."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.diagnostics.masking import diagnose
from robust.registry import create, entries
from robust.threat import ThreatModel
from robust.training import train

TRAINING = {"epochs": 6, "batch_size": 64, "lr": 3e-3}
BALL = {"norm": "linf", "eps": "1/10", "steps": 4}
KINDS = {
    "standard": {"name": "standard"},
    "label smoothing": {"name": "standard", "label_smoothing": 0.1},
    "pgd-at": {"name": "pgd-at", **BALL},
    "trades": {"name": "trades", **BALL},
}
if "ibp" in {entry.name for entry in entries("objective")}:
    KINDS["ibp"] = {"name": "ibp", "eps": "1/20"}


def perceptron(inputs):
    return create("model", {"name": "mlp", "hidden": (64, 64)}).classifier(inputs)


def convolutional(inputs):
    return create("model", {"name": "small-cnn", "width": 8, "hidden": 48}).classifier(inputs)


def batch_normed(inputs):
    layers = [nn.Conv2d(1, 8, 3, 2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 48)]
    module = nn.Sequential(*layers, nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))
    return Classifier(module, inputs.mean, inputs.std, 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "build"), list(enumerate((perceptron, convolutional, batch_normed))))
def test_an_honest_network_is_trusted(kind, seed, build):
    spec = Digits()
    train_set, test_set = spec.load("train"), spec.load("test")
    if kind == "ibp" and build is batch_normed:
        build = convolutional  # interval bounds are for nets without batch statistics
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        start = build(train_set.inputs())
    objective = create("objective", {**KINDS[kind], "training": TRAINING})
    trained = train(start, objective, train_set, spec.load("select"), seed=seed, threads=1, device="cpu")
    images, labels, ids = test_set.batch(slice(0, 200))
    found = diagnose(trained.classifier, images, labels, ids, [ThreatModel(norm="linf", eps="1/10")], seed, samples=96)
    assert not [f"{check.check}: {check.reason}" for check in found.checks if not check.passed]
    assert len(found.checks) > 20
    assert found.backward < 1000


@pytest.mark.parametrize(("norm", "eps"), [("l2", "1/2"), ("l1", "2")])
def test_an_honest_network_is_trusted_in_other_norms(norm, eps, plain, digits):
    images, labels, ids = digits[1]
    threat = ThreatModel(norm=norm, eps=eps)
    found = diagnose(Classifier(plain, num_classes=10), images, labels, ids, [threat], 0, samples=96)
    assert not [f"{check.check}: {check.reason}" for check in found.checks if not check.passed]
