"""The planner: prices and passes multiply as they should, unknowns stay unknown, predictions bound what happens."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from robust.attacks.binary_search import BinarySearch
from robust.attacks.pgd import PGD
from robust.attacks.random_noise import RandomNoise
from robust.attacks.transfer import Transfer
from robust.classifier import Classifier
from robust.corruptions.clean import Clean
from robust.evaluation import evaluate
from robust.planner import Price, duration, measure, passes_of, plan

PGD_5 = PGD.model_validate({"eps": "1/10000", "steps": 5})
PRICE = Price(forward=0.5, gradient=2.0)


def net() -> Classifier:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 26 * 26, 10)]
    return Classifier(nn.Sequential(*layers), num_classes=10)


def test_seconds_are_passes_times_prices():
    found = plan([Clean(), PGD_5], 100, 10, PRICE)
    clean, pgd = found.rows
    assert (clean.forward, clean.backward, clean.worst) == (1, 0, 50.0)
    assert (pgd.forward, pgd.backward) == (6 + 3, 5)  # three looks of the evaluation itself
    assert pgd.worst == 100 * (4 * 0.5 + 5 * 2.0)
    assert found.worst == clean.worst + pgd.worst
    assert found.expected is None


def test_extra_backward_passes_cost_the_gradient_without_its_forward():
    assert PRICE.seconds(1, 3) == 2.0 + 2 * 1.5


def test_undeclared_costs_are_unknown_also_inside_a_wrapper():
    transfer = Transfer(attack=PGD_5)
    assert passes_of(transfer, 10) is None
    assert passes_of(BinarySearch(attack=transfer), 10) is None
    assert passes_of(RandomNoise(eps="1/10"), 10) == (3, 0)
    found = plan([PGD_5, transfer], 10, 10, PRICE)
    assert found.worst is None
    assert "unknown" in found.table()


def test_a_pilot_gives_the_expected_value_below_the_bound():
    classifier, images = net(), torch.rand(20, 1, 28, 28)
    labels = classifier(images).argmax(1)
    weak = PGD.model_validate({"eps": "1/2", "steps": 20})
    pilot = evaluate(classifier, images, labels, [weak]).rows.to_pandas()
    found = plan([weak], 1000, 10, PRICE, pilot).rows[0]
    mean = pilot[pilot["evaluation"] == "pgd"][["forward", "backward"]].mean()
    assert mean["forward"] < 21
    assert found.expected == pytest.approx(1000 * PRICE.seconds(mean["forward"] + 2, mean["backward"]))
    assert found.expected < found.worst


def test_the_bound_holds_within_a_factor_of_two_for_samples_that_stand():
    classifier, images = net(), torch.rand(128, 1, 28, 28)
    with torch.no_grad():
        labels = classifier(images).argmax(1)
    attack = PGD.model_validate({"eps": "1/100000", "steps": 20})
    price = measure(classifier, images, batch_size=128)
    start = time.perf_counter()
    evaluate(classifier, images, labels, [attack])
    spent = time.perf_counter() - start
    predicted = plan([Clean(), attack], 128, 10, price).worst
    assert 0.1 < spent / predicted < 10  # other work may share the processor
    assert price.gradient > price.forward


def test_measuring_restores_the_classifier():
    classifier = net().train()
    measure(classifier, torch.rand(2, 1, 28, 28), batch_size=4, repeats=1)
    assert classifier.training
    assert all(p.requires_grad for p in classifier.parameters())


def test_the_table_fits_a_terminal_and_rows_are_plain_data():
    found = plan([PGD_5] * 12, 10_000_000, 10, PRICE)
    assert max(map(len, found.table().splitlines())) <= 80
    assert found.data()[1]["evaluation"] == "pgd-2"
    assert found.data()[0] | {} == found.data()[0]


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (3.0, "3.0 s"), (150, "2.5 min"), (9000, "2.5 h"), (216000, "2.5 d")]
)
def test_durations_read_as_a_person_says_them(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("prices", [(0.0, 1.0), (1.0, -1.0), (float("inf"), 1.0)])
def test_impossible_prices_are_refused(prices):
    with pytest.raises(ValueError, match="positive seconds"):
        Price(*prices)


def test_bad_plans_are_refused():
    with pytest.raises(ValueError, match="at least 2 classes"):
        plan([PGD_5], 10, 1, PRICE)
    with pytest.raises(ValueError, match="at least one image"):
        measure(net(), torch.rand(0, 1, 28, 28))
