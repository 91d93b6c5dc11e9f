"""Gradient norms, tanh gap and attack toolbox against networks whose distances and gradients are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.diagnostics.attack_toolbox import AttackToolbox, crossings, error_curve
from robust.diagnostics.diagnostic import Measured, Subject
from robust.diagnostics.gradient_norms import GradientNorms, nearest_other_label
from robust.diagnostics.tanh_gap import TanhGap
from robust.models.mlp import MLP
from robust.models.tanh_logits import TanhLogits
from robust.objectives.objective import Training
from robust.objectives.standard import Standard
from robust.training import train

SPEC = Digits(train=300, select=100, test=100)


@pytest.fixture(scope="module")
def fitted() -> Classifier:
    objective = Standard(training=Training(epochs=15, batch_size=25, lr=5e-3))
    run = train(MLP(hidden=(32,)), objective, SPEC.load("train"), SPEC.load("select"), device="cpu")
    return run.classifier.requires_grad_(False)


def subject(classifier: Classifier) -> Subject:
    return Subject(classifier, SPEC.load("train"), SPEC.load("test"))


def values(measured: Measured) -> dict[tuple[str, str | None], float]:
    return {(row["quantity"], row.get("of")): row["value"] for row in measured.rows}


def linear(scale: float = 1.0) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.mul_(scale)
    return Classifier(nn.Sequential(nn.Flatten(), layer), num_classes=10).eval().requires_grad_(False)


def test_gradient_norms_of_a_linear_network():
    classifier = linear()
    images, labels, _ = SPEC.load("test").batch(slice(None))
    weight = classifier.module[1].weight.double()
    found = values(GradientNorms().measure(subject(classifier)))
    rows = weight.norm(dim=1)
    assert found["jacobian", "mean"] == pytest.approx(float(rows.max()), rel=1e-5)
    off = classifier(images).double().softmax(1) - nn.functional.one_hot(labels, 10)
    norms = (off @ weight).norm(dim=1)
    assert found["loss-gradient", "max"] == pytest.approx(float(norms.max()), rel=1e-4)
    assert found["loss-gradient", "mean"] == pytest.approx(float(norms.mean()), rel=1e-4)
    bound = float(torch.linalg.matrix_norm(weight, ord=2))
    assert found["lipschitz-bound", None] == pytest.approx(bound, rel=1e-4)
    assert found["margin-gradient", "max"] <= math.sqrt(2) * bound
    assert found["certified-distance", "max"] >= found["certified-distance", "median"] >= 0


def test_nearest_image_of_another_label_by_brute_force():
    images, labels, _ = SPEC.load("test").batch(slice(0, 20))
    others, theirs, _ = SPEC.load("train").batch(slice(0, 120))
    expected = [
        min(float((a - b).double().norm()) for b, k in zip(others, theirs, strict=True) if k != y)
        for a, y in zip(images, labels, strict=True)
    ]
    found = nearest_other_label(images, labels, SPEC.load("train"), 120)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_saturated_tanh_hides_errors_from_cross_entropy_that_the_margin_finds(fitted):
    layer = TanhLogits(nn.Sequential(fitted.module), 10)
    with torch.no_grad():
        layer[2].scale.fill_(
            0.3
        )  # logits of ten and more meet a bound of 0.3: tanh is flat there, and still increasing
    masked = fitted.twin(layer).eval().requires_grad_(False)
    diagnostic = TanhGap(norm="linf", sizes=("1/10",), steps=10, samples=100)
    found = values(diagnostic.measure(subject(masked)))
    assert found["error", "before-tanh"] > found["error", "cross-entropy"] + 0.05
    assert found["error", "margin"] > found["error", "cross-entropy"] + 0.1
    assert found["masking-gap", "worst"] >= found["masking-gap", "before-tanh"]
    difference = found["error", "before-tanh"] - found["error", "cross-entropy"]
    assert found["masking-gap", "before-tanh"] == pytest.approx(difference)
    plain = diagnostic.measure(subject(fitted))
    assert ("error", "before-tanh") not in values(plain)
    assert values(plain)["masking-gap", "worst"] < 0.1
    assert {line["label"] for line in plain.figures[0]["series"]} == {"cross-entropy", "margin"}


def test_toolbox_finds_the_exact_distances_of_a_linear_network():
    classifier = linear(scale=0.2)
    images, labels, _ = SPEC.load("test").batch(slice(0, 30))
    with torch.no_grad():  # every image right, with room to the box's walls of no account
        classifier.module[1].weight[:, :] = 0.02 * torch.randn(10, 64, generator=torch.Generator().manual_seed(1))
    diagnostic = AttackToolbox(attacks=("pgd", "ddn", "deepfool"), samples=30)
    measured = diagnostic.measure(subject(classifier))
    found = values(measured)
    assert found["median-distance", "envelope"] <= min(
        found["median-distance", name] for name in ("pgd", "ddn", "deepfool")
    )
    envelope = measured.figures[0]["series"][-1]
    assert envelope["label"] == "envelope"
    wrong = float((classifier(images).argmax(1) != labels).float().mean())
    assert envelope["y"][0] == pytest.approx(100 * wrong)
    assert (np.diff(envelope["y"]) >= 0).all()
    for line in measured.figures[0]["series"][:-1]:
        assert (np.array(line["y"]) <= np.array(envelope["y"]) + 1e-9).all()


def test_toolbox_orders_the_attacks_of_a_trained_network(fitted):
    measured = AttackToolbox(attacks=("fgsm", "pgd", "ddn", "boundary"), samples=15, queries=50).measure(
        subject(fitted)
    )
    found = values(measured)
    assert found["median-distance", "ddn"] <= found["median-distance", "fgsm"] * 1.02
    assert found["finds-nearest", "ddn"] > found["finds-nearest", "boundary"]
    assert found["failures", "ddn"] == 0


def test_toolbox_leaves_out_attacks_without_the_norm_and_refuses_unknown_ones():
    assert list(AttackToolbox(norm="linf").toolbox()) == ["fgsm", "pgd", "deepfool"]
    with pytest.raises(ValueError, match="not in the toolbox"):
        AttackToolbox(attacks=("magic",))


def test_curves_and_their_crossings():
    sizes = np.linspace(0, 1, 11)
    curve = error_curve(np.array([0.0, 0.25, 0.5, np.inf]), sizes)
    assert curve.tolist() == [0.25, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75]
    early, late = np.clip(0.6 * sizes + 0.2, 0, 1), np.clip(sizes, 0, 1)
    rows = crossings({"early": early, "late": late}, sizes, tolerance=0.01)
    assert [(row["of"], row["value"]) for row in rows] == [("early, then late", pytest.approx(0.6))]
    assert not crossings({"early": early, "late": early + 0.005}, sizes, tolerance=0.01)
