"""Detectors that look at images: ODIN and approximate mass against plain autograd, RAID against attacks."""

import numpy as np
import pytest
import torch

from robust.attacks.fgsm import FGSM
from robust.attacks.pgd import PGD
from robust.classifier import Classifier
from robust.detection.approximate_mass import ApproximateMass
from robust.detection.energy import Energy
from robust.detection.max_softmax import MaxSoftmax
from robust.detection.metrics import auroc
from robust.detection.odin import ODIN
from robust.detection.raid import RAID
from robust.randomness import Randomness


def score(detector, digits, images, fitted=None, start=0):
    rng = Randomness.of(0, range(start, start + len(images)))
    with digits.classifier.frozen():
        return detector.score_images(digits.classifier, images, fitted or {}, rng)


def test_odin_without_a_step_is_the_hot_softmax(digits):
    plain = score(ODIN(eps=0, temperature=1), digits, digits.test.images)
    assert np.allclose(plain, digits.score(MaxSoftmax(), "test"), atol=1e-6)


def test_odin_steps_raise_the_confidence_and_tell_unseen_digits(digits):
    still, moved = (score(ODIN(eps=eps, temperature=10), digits, digits.test.images) for eps in (0, 0.01))
    assert (moved >= still - 1e-9).double().mean() > 0.99
    default = ODIN()
    assert auroc(score(default, digits, digits.test.images), score(default, digits, digits.near.images)) > 0.7


def test_approximate_mass_equals_central_differences_of_the_energy(digits):
    images = digits.test.images[:2].double()
    net = digits.classifier.double()
    try:
        found = score(ApproximateMass(), digits, images)
        bumps = torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8) * 1e-5
        for i in range(2):
            high, low = (
                Energy().score_features(images, net(images[i] + sign * bumps), {}).detach() for sign in (1, -1)
            )
            assert float(found[i]) == pytest.approx(-float(((high - low) / 2e-5).norm()), rel=1e-5)
    finally:
        net.float()


def test_approximate_mass_of_a_linear_two_class_net_is_known():
    net = Classifier(lambda x: torch.stack([x.flatten(1).sum(1), x.flatten(1).sum(1)], 1), num_classes=2)
    found = ApproximateMass().score_images(net, torch.rand(3, 1, 2, 2), {}, Randomness.of(0, range(3)))
    assert found.tolist() == pytest.approx([-2.0] * 3)  # gradient 1 in each of 4 pixels


@pytest.fixture(scope="module")
def raid(digits):
    detector = RAID(neurons=48, pool=3, eps="0.2")
    with digits.classifier.frozen():
        fitted = detector.fit_images(
            digits.classifier, digits.train.images, digits.train.labels, Randomness.of(0, range(1000))
        )
    return detector, fitted


@pytest.mark.parametrize("attack", [PGD(eps="0.2", early_stop=False), FGSM(eps="0.2"), PGD(norm="l2", eps="1")])
def test_raid_sees_attacks_it_was_and_was_not_trained_on(digits, raid, attack):
    detector, fitted = raid
    part, rng = digits.test, Randomness.of(1, range(len(digits.test.labels)))
    with digits.classifier.frozen():
        attacked = attack.perturb(digits.classifier, part.images, part.labels, rng)
        fooled = digits.classifier(attacked).argmax(1) != part.labels
    inside, outside = score(detector, digits, part.images, fitted), score(detector, digits, attacked[fooled], fitted)
    assert fooled.sum() > 30
    assert auroc(inside, outside) > 0.8


def test_raid_draws_its_member_for_the_sample(digits, raid):
    detector, fitted = raid
    images = digits.test.images[:20]
    whole = score(detector, digits, images, fitted)
    assert torch.allclose(score(detector, digits, images[5:], fitted, start=5), whole[5:])
    assert not torch.allclose(score(detector, digits, images, fitted, start=100), whole)


def test_raid_says_when_there_is_nothing_to_learn_from(digits):
    with pytest.raises(ValueError, match="no adversarial image"), digits.classifier.frozen():
        RAID(eps="1/255", steps=1).fit_images(
            digits.classifier, digits.train.images[:1], digits.train.labels[:1], Randomness.of(0, [0])
        )
    blank = Classifier(lambda x: x.flatten(1)[:, :2], num_classes=2)
    with pytest.raises(ValueError, match="no linear or convolutional"):
        RAID().fit_images(blank, torch.rand(1, 1, 2, 2), torch.tensor([0]), Randomness.of(0, [0]))
