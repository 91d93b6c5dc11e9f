"""Diagnostics of the energy family on a small JEM: its history, samples, cost of refinement, consistency."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.defences.jem_refinement import JEMRefinement
from robust.diagnostics.diagnostic import Subject
from robust.diagnostics.prediction_consistency import PredictionConsistency
from robust.diagnostics.refinement_cost import RefinementCost
from robust.diagnostics.sampler_health import SamplerHealth
from robust.diagnostics.samples_grid import SamplesGrid
from robust.models.energy_cnn import EnergyCNN
from robust.objectives.jem import JEM
from robust.objectives.objective import Training
from robust.training import train


@pytest.fixture(scope="module")
def subject() -> Subject:
    spec = Digits(train=300, select=100)
    objective = JEM(
        training=Training(epochs=12, batch_size=30, lr=1e-2, restarts=1), steps=5, buffer=100, conditional=True
    )
    splits = spec.load("train"), spec.load("select")
    trained = train(EnergyCNN(channels=(8, 16)), objective, *splits, device="cpu", threads=1)
    classifier = trained.classifier.requires_grad_(False)
    return Subject(classifier, splits[0], spec.load("test"), 0, list(trained.history))


def values(measured, quantity: str) -> dict:
    return {(row.get("of"), row.get("at")): row["value"] for row in measured.rows if row["quantity"] == quantity}


def test_sampler_health_shows_the_history_and_marks_restarts(subject):
    history = [{**row, "restarts": 0.0 if row["epoch"] < 5 else 2.0} for row in subject.history]
    found = SamplerHealth().measure(Subject(subject.classifier, subject.train, subject.test, 0, history))
    assert values(found, "restarts") == {(None, None): 2.0}
    assert values(found, "gap") == {(None, None): history[-1]["gap"]}
    assert values(found, "largest-gap") == {(None, None): max(abs(row["gap"]) for row in history)}
    energies = found.figures[0]["series"]
    assert [line["label"] for line in energies] == ["f(data)", "f(samples)", "gap", "restarted before"]
    assert energies[-1]["x"] == [5.0]
    assert [figure["id"] for figure in found.figures] == ["energies", "sampler-gradient", "restarts"]
    assert all(len(line["x"]) == len(line["y"]) for figure in found.figures for line in figure["series"])
    plain = Subject(subject.classifier, subject.train, subject.test, 0, [{"epoch": 1.0, "loss": 0.3}])
    assert SamplerHealth().measure(plain).rows == []


def test_samples_of_a_jem_belong_to_their_class_and_are_repeatable(subject):
    diagnostic = SamplesGrid(per_class=3, steps=60)
    found = diagnostic.measure(subject)
    assert values(found, "sample-class-agreement")[(None, None)] > 0.6
    picture = found.pictures[0]
    assert picture["images"].shape == (30, 1, 8, 8)
    assert picture["images"].dtype == np.uint8
    assert picture["columns"] == 10
    again = diagnostic.measure(subject)
    assert np.array_equal(again.pictures[0]["images"], picture["images"])
    defended = Subject(JEMRefinement(steps=1).wrap(subject.classifier), subject.train, subject.test)
    assert np.array_equal(diagnostic.measure(defended).pictures[0]["images"], picture["images"])
    everything = SamplesGrid(per_class=3, steps=60, climb="all").measure(subject)
    assert values(everything, "f-fresh-samples")[(None, None)] > values(found, "f-fresh-samples")[(None, None)] - 1
    assert not values(everything, "sample-class-agreement")


def test_refinement_cost_counts_one_and_two_n_passes_and_compares_accuracies(subject):
    diagnostic = RefinementCost(steps=(0, 1, 3), eps=("1/20", "1/4"), attack_steps=4, samples=40, copies=2)
    found = diagnostic.measure(subject)
    assert values(found, "refinement-passes") == {(None, 0): 1.0, (None, 1): 3.0, (None, 3): 7.0}
    clean, robust = values(found, "clean-accuracy"), values(found, "robust-accuracy")
    assert len(clean) == 3
    assert len(robust) == 6
    for n in (0, 1, 3):
        assert clean[(None, n)] >= robust[("linf 1/20", n)] >= robust[("linf 1/4", n)]
        assert clean[(None, n)] > robust[("linf 1/4", n)]
    gained = 100 * (robust[("linf 1/20", 3)] - robust[("linf 1/20", 0)]) / 6
    assert values(found, "points-per-pass")[("linf 1/20", 3)] == pytest.approx(gained)
    assert found.figures[1]["series"][0]["x"] == [1.0, 3.0, 7.0]
    assert diagnostic.measure(subject).rows == found.rows


def test_consistency_falls_with_noise_and_tells_right_from_wrong(subject):
    calm, noisy = (PredictionConsistency(passes=12, sigma=sigma).measure(subject) for sigma in (0.02, 0.3))
    assert values(calm, "consistency")[(None, None)] > values(noisy, "consistency")[(None, None)] + 0.02
    assert values(noisy, "consistency")[("right", None)] > values(noisy, "consistency")[("wrong", None)]
    assert values(noisy, "consistency-auroc")[(None, None)] > 0.6
    still = PredictionConsistency(passes=2, sigma=0.0).measure(subject)
    assert values(still, "consistent-share") == {(None, None): 1.0}


def test_consistency_has_no_auroc_where_nothing_is_wrong(subject):
    images, labels, _ = subject.test.batch(slice(0, 50))
    known = {image.numpy().tobytes(): int(label) for image, label in zip(images, labels)}
    perfect = Classifier(
        lambda x: torch.nn.functional.one_hot(torch.tensor([known[i.numpy().tobytes()] for i in x]), 10).float(),
        num_classes=10,
    )
    found = PredictionConsistency(passes=2, sigma=0.0, samples=50).measure(
        Subject(perfect, subject.train, subject.test)
    )
    assert values(found, "consistency-auroc") == {(None, None): None}
    assert values(found, "consistency")[("wrong", None)] is None
