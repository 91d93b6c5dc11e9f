"""Wrappers against real defences: each defence looks strong to a plain attack and falls to the wrapper it calls for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from robust.attacks.attack import Context
from robust.attacks.binary_search import BinarySearch
from robust.attacks.bpda import BPDA
from robust.attacks.ddn import DDN
from robust.attacks.eot import EOT, Averaged
from robust.attacks.pgd import PGD
from robust.attacks.substitute import Substitute
from robust.attacks.through import Through
from robust.attacks.wrapper import StraightThrough
from robust.classifier import Classifier, Metered
from robust.defences.gaussian_input_noise import GaussianInputNoise
from robust.defences.input_quantisation import InputQuantisation
from robust.evaluation import evaluate
from robust.randomness import Randomness
from robust.registry import create

PLAIN = PGD.model_validate({"eps": "1/5", "steps": 15, "random_start": False})


def accuracy(net: tuple[Classifier, Tensor, Tensor], attack: object, n: int = 50) -> float:
    classifier, images, labels = net
    return float(evaluate(classifier, images[:n], labels[:n], [attack]).frame(attack.name)["correct"].mean())


def test_bpda_breaks_quantisation_that_plain_pgd_does_not(digits_net):
    classifier, images, labels = digits_net
    net = (InputQuantisation(bits=2).wrap(classifier), images, labels)
    assert accuracy(net, PLAIN) > 0.85
    assert accuracy(net, BPDA(attack=PLAIN)) < 0.2


def test_substitute_uses_the_declared_twin_or_a_named_model(digits_net):
    classifier, images, labels = digits_net
    net = (InputQuantisation(bits=2).wrap(classifier), images, labels)
    assert accuracy(net, Substitute(attack=PLAIN)) < 0.2
    named = Substitute(attack=PLAIN, model="twin").bind(net[0], Context(models={"twin": classifier}))
    assert accuracy(net, named) < 0.2
    with pytest.raises(ValueError, match="'twin' was not brought"):
        accuracy(net, Substitute(attack=PLAIN, model="twin"))


def test_eot_averages_the_randomness_of_a_noisy_classifier(digits_net):
    classifier, images, _ = digits_net
    defended = GaussianInputNoise(sigma=0.3).wrap(classifier)
    averaged = Averaged(defended, 200)
    with defended.frozen(), torch.no_grad():
        one = torch.stack([defended(images[:20]) for _ in range(6)])
        mean = torch.stack([averaged(images[:20]) for _ in range(6)])
    ratio = (one.var(0).mean() / mean.var(0).mean()).item()
    assert 100 < ratio < 400  # the variance of a mean of 200


def test_eot_gradient_points_better_than_one_draw(digits_net):
    classifier, images, labels = digits_net
    net = (GaussianInputNoise(sigma=0.4).wrap(classifier), images, labels)
    small = PGD.model_validate({"eps": "1/10", "steps": 10, "early_stop": False})
    assert accuracy(net, EOT(attack=small, draws=20), 100) < accuracy(net, small, 100)


class Purified(nn.Module):
    """A test-time loop: it undoes part of the signal's noise by ten averaging steps, detached as such code often is."""

    def __init__(self, net: nn.Module, keep: bool) -> None:
        super().__init__()
        self.net, self.keep = net, keep

    def forward(self, images: Tensor) -> Tensor:
        state = images if self.keep else images.detach()
        for _ in range(3):
            state = 0.9 * state + 0.1 * nn.functional.avg_pool2d(state, 3, stride=1, padding=1)
        return self.net(state + 0.0 * images)

    def gradient_views(self) -> dict[str, nn.Module]:
        return {"through": Purified(self.net, keep=True)}


def test_through_differentiates_the_loop(digits_net):
    classifier, images, labels = digits_net
    net = (Classifier(Purified(classifier.module, keep=False), num_classes=10), images, labels)
    assert accuracy(net, PLAIN) > 0.85
    assert accuracy(net, Through(attack=PLAIN)) < 0.2


def test_a_view_that_is_not_declared_is_named(digits_net):
    with pytest.raises(ValueError, match="declares no 'bpda' view"):
        accuracy(digits_net, BPDA(attack=PLAIN))


def test_views_are_counted_by_the_same_meter(digits_net):
    classifier, images, labels = digits_net
    defended = InputQuantisation(bits=2).wrap(classifier)
    meter = Metered(defended, 6)
    with defended.frozen():
        BPDA(attack=PLAIN).perturb(meter, images[:6], labels[:6], Randomness.of(0, range(6)))
    assert meter.backwards.min() >= 1
    assert meter.backwards.max() <= PLAIN.steps
    counted = Metered(classifier, 2)
    Averaged(counted, 5)(images[:2])
    assert counted.forwards.tolist() == [5, 5]


def test_wrappers_nest_and_binary_search_reaches_through_them(digits_net):
    classifier, images, labels = digits_net
    net = (InputQuantisation(bits=2).wrap(classifier), images, labels)
    attack = BinarySearch(attack=BPDA(attack=PLAIN), halvings=4)
    frame = evaluate(net[0], images[:20], labels[:20], [attack]).frame("binary-search")
    assert 0.01 < frame["distance"].median() < 0.2


def test_wrappers_are_built_from_study_data():
    built = create("attack", {"name": "eot", "draws": 3, "attack": {"name": "pgd", "eps": "8/255", "steps": 5}})
    assert built.threat == built.attack.threat
    assert built.settings()["attack"]["name"] == "pgd"
    assert create("attack", built.settings()) == built
    with pytest.raises(ValueError, match="attack must be a fixed-budget attack"):
        create("attack", {"name": "bpda", "attack": "ddn"})


def test_a_users_own_gradient_in_three_lines(digits_net):
    classifier, images, labels = digits_net
    hard = Classifier(lambda x: classifier((x > 0.5).float()), num_classes=10)  # no gradient at all
    mine = StraightThrough(hard, Classifier(lambda x: classifier(torch.sigmoid(10 * (x - 0.5)))))
    found = PLAIN.perturb(mine, images[:50], labels[:50], Randomness.of(0, range(50)))
    assert (hard(found).argmax(1) == labels[:50]).float().mean() < 0.5
    stuck = PLAIN.perturb(hard_with_graph(hard), images[:50], labels[:50], Randomness.of(0, range(50)))
    assert (hard(stuck).argmax(1) == labels[:50]).float().mean() > 0.6


def hard_with_graph(hard: Classifier) -> Classifier:
    return Classifier(lambda x: hard(x) + 0.0 * x.flatten(1)[:, :1], num_classes=10)


def test_a_users_own_loss_in_three_lines(digits_net):
    class OnlyZeroAndOne(DDN):
        def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
            return logits[:, :2].logsumexp(1) - logits.gather(1, labels[:, None])[:, 0]

    classifier, images, labels = digits_net
    rows = (labels > 1).nonzero().flatten()[:30]
    with classifier.frozen():
        found = OnlyZeroAndOne().minimise(classifier, images[rows], labels[rows], Randomness.of(0, range(30)))
        usual = DDN().minimise(classifier, images[rows], labels[rows], Randomness.of(0, range(30)))
    to_zero_or_one = (classifier(found).argmax(1) < 2).double().mean()
    assert to_zero_or_one > 2 * (classifier(usual).argmax(1) < 2).double().mean()


def test_wrapped_attacks_are_independent_of_the_batch(digits_net):
    classifier, images, labels = digits_net
    double = copy.deepcopy(classifier).double()
    defended = InputQuantisation(bits=3).wrap(double)
    x, y, rng = images[:6].double(), labels[:6], Randomness.of(0, range(6), "bpda")
    attack, order = BPDA(attack=PGD.model_validate({"eps": "1/5", "steps": 5})), torch.tensor([5, 2])
    with defended.frozen():
        whole = attack.perturb(defended, x, y, rng)
        part = attack.perturb(defended, x[order], y[order], rng.select(order))
    torch.testing.assert_close(part, whole[order], atol=1e-9, rtol=0)
