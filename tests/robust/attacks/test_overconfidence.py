"""The attack on confidence: it beats an accuracy attack in confidence, and knows a linear classifier's best."""

import pytest
import torch

from robust.attacks.overconfidence import Overconfidence
from robust.attacks.pgd import PGD
from robust.classifier import Classifier
from robust.randomness import Randomness


@pytest.fixture
def linear():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    with torch.no_grad():
        module[1].weight.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)))
        module[1].bias.zero_()
    return Classifier(module.double(), num_classes=3).requires_grad_(False)


def wrong(classifier, images, labels):
    p = classifier(images).softmax(1)
    return p.scatter(1, labels[:, None], 0.0).amax(1)


def test_it_is_more_confident_than_an_attack_that_stops_at_the_border(linear):
    images = torch.rand(30, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = linear(images).argmax(1)
    rng = Randomness.of(0, range(30))
    confident = Overconfidence(eps="1/5").perturb(linear, images, labels, rng)
    stopped = PGD(eps="1/5").perturb(linear, images, labels, rng)
    assert Overconfidence(eps="1/5").threat.contains(confident, images).all()
    fell = linear(stopped).argmax(1) != labels
    assert fell.any()
    assert (linear(confident).argmax(1) != labels)[fell].all()
    assert (wrong(linear, confident, labels) >= wrong(linear, stopped, labels) - 1e-9)[fell].all()
    assert wrong(linear, confident, labels)[fell].mean() > wrong(linear, stopped, labels)[fell].mean() + 0.05


def test_two_classes_of_a_linear_classifier_end_in_the_corner(linear):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2, bias=False)).double()
    two = Classifier(module, num_classes=2).requires_grad_(False)
    images = torch.full((4, 1, 4, 4), 0.5, dtype=torch.float64)
    labels = two(images).argmax(1)
    found = Overconfidence(eps="1/10", steps=20).perturb(two, images, labels, Randomness.of(0, range(4)))
    weight = module[1].weight
    direction = (weight[1 - labels[0]] - weight[labels[0]]).sign().view(1, 1, 4, 4)
    torch.testing.assert_close(found, images + 0.1 * direction)
