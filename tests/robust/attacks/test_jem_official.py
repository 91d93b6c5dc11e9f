"""The JEM attack protocol: exact on a linear classifier, inf where it fails, and believed only when it lasts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robust.attacks.jem_official import JEMOfficial
from robust.classifier import Classifier, Metered
from robust.defences.gaussian_input_noise import GaussianInputNoise
from robust.evaluation import evaluate
from robust.randomness import Randomness


def linear(scale: float = 1.0) -> tuple[Classifier, Tensor, Tensor, Tensor]:
    """Two classes, margin w . (x - 1/2) with |w|_1 = 1: the linf distance of an image is its margin."""
    weight = torch.tensor([0.4, -0.3, 0.2, 0.1])
    classifier = Classifier(
        lambda x: scale * torch.stack([(x - 0.5).flatten(1) @ weight, -(x - 0.5).flatten(1) @ weight], 1), num_classes=2
    )
    images = 0.5 + 0.25 * (torch.rand(12, 1, 2, 2, generator=torch.Generator().manual_seed(0)) - 0.5)
    margin = (images - 0.5).flatten(1) @ weight
    return classifier, images, (margin < 0).long(), margin.abs()


def test_the_distance_of_a_linear_classifier_is_its_margin():
    classifier, images, labels, margin = (part if i == 0 else part[:6] for i, part in enumerate(linear()))
    found = evaluate(classifier, images, labels, [JEMOfficial(restarts=2, halvings=6)]).frame("jem-official")
    assert found["correct"].sum() == 0
    excess = found["distance"].to_numpy() - margin.double().numpy()
    assert excess.min() > -1e-6
    assert excess.max() < 0.02  # 40 steps of 1/30 radius do not cross the ball from every start: so the official code
    euclid = JEMOfficial(norm="l2", largest="1", restarts=1, halvings=6)
    distance = evaluate(classifier, images, labels, [euclid]).frame("jem-official")["distance"]
    exact = margin.double() / torch.tensor([0.4, -0.3, 0.2, 0.1]).norm()
    torch.testing.assert_close(torch.tensor(distance), exact, atol=1 / 2**6, rtol=0.02)


def test_restarts_never_lengthen_the_distance(digits_net):
    classifier, images, labels = (part if i == 0 else part[:20] for i, part in enumerate(digits_net))
    distances = [
        evaluate(classifier, images, labels, [JEMOfficial(steps=5, halvings=5, restarts=n)])
        .frame("jem-official")["distance"]
        .to_numpy()
        for n in (1, 4)
    ]
    assert (distances[1] <= distances[0]).all()
    assert (distances[1] < distances[0]).any()


def test_an_image_that_no_run_breaks_is_not_broken():
    classifier, images, labels, margin = linear()
    attack = JEMOfficial(largest="1/50", steps=5, halvings=2, restarts=2)
    found = evaluate(classifier, images, labels, [attack]).frame("jem-official")
    far = margin.numpy() > 0.021
    assert far.sum() > 3
    assert found["distance"][far].eq(float("inf")).all()
    assert found["correct"][far].all()


def test_successes_against_a_random_classifier_last_when_they_are_confirmed(digits_net):
    classifier, images, labels = digits_net
    random = GaussianInputNoise(sigma=0.15).wrap(classifier)
    kept = {}
    for confirmations in (1, 8):
        attack = JEMOfficial(steps=10, halvings=5, restarts=1, confirmations=confirmations, largest="2/5")
        with random.frozen():
            found = attack.minimise(random, images[:40], labels[:40], Randomness.of(0, range(40)))
            moved = (found != images[:40]).flatten(1).any(1)
            wrong = torch.stack([random(found[moved]).argmax(1) != labels[:40][moved] for _ in range(20)])
        kept[confirmations] = float(wrong.float().mean())
    assert kept[8] > kept[1] + 0.1
    assert kept[8] > 0.8


def test_cost_is_bounded_by_the_declared_passes(digits_net):
    classifier, images, labels = digits_net
    attack = JEMOfficial(steps=4, halvings=3, restarts=2)
    meter = Metered(classifier, 10)
    with classifier.frozen():
        attack.minimise(meter, images[:10], labels[:10], Randomness.of(0, range(10)))
    forward, backward = attack.passes(10)
    assert meter.forwards.max() <= forward + 2 * 4 * 2  # the inner attack's own last look
    assert meter.backwards.max() <= backward


def test_settings_are_the_official_ones_and_a_radius_outside_the_box_is_refused():
    attack = JEMOfficial()
    assert (attack.steps, attack.restarts) == (40, 20)
    inner = attack.search(random=False).attack
    assert (str(inner.threat.eps), str(inner.step_size)) == ("3/10", "1/100")
    assert str(inner.at(inner.threat.eps / 2).step_size) == "1/200"
    with pytest.raises(ValueError, match="larger than the box"):
        JEMOfficial(largest="3")
    with pytest.raises(ValueError, match="not in l1"):
        JEMOfficial(norm="l1")
