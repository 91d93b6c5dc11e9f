"""The steady-state loss and FGSM training: closed forms, composition with other objectives, a toy that trains."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.evaluation import evaluate
from robust.losses import cross_entropy
from robust.models.ode_cnn import ODECNN
from robust.models.ode_solver import IntegralCurve
from robust.models.odenet import ODENet
from robust.models.tisode import TisODENet
from robust.objectives.fgsm_at import FGSMAT
from robust.objectives.gaussian_noise import GaussianNoise
from robust.objectives.objective import Batch, Diverged, Training
from robust.objectives.pgd_at import PGDAT
from robust.objectives.standard import Standard
from robust.objectives.tisode import TisODE, masses, steady_state_loss
from robust.objectives.trades import TRADES
from robust.randomness import Randomness
from robust.registry import create
from robust.training import Trained, train

DIGITS = Digits(train=500, select=100)
NET = {"channels": 8, "pool": 3}


def batch_of(images: torch.Tensor, labels: torch.Tensor, epoch: int = 9) -> Batch:
    ids = torch.arange(len(images))
    return Batch(images, labels, ids, Randomness.of(0, ids, "train", 0), progress=0.9, step=0, epoch=epoch)


@pytest.fixture
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels, _ = DIGITS.load("train").batch(slice(0, 16))
    return images.double(), labels


def network(**settings) -> Classifier:
    torch.manual_seed(0)
    return TisODENet(channels=4, **settings).classifier(DIGITS.load("train").inputs()).double()


class Decay(nn.Module):
    def forward(self, time, state):
        return -state


def test_the_steady_state_loss_of_exponential_decay():
    images = torch.rand(3, 2, 4, 4, dtype=torch.float64)
    classifier = Classifier(nn.Sequential(IntegralCurve(Decay(), "rk4", 0.01), nn.Flatten()))
    mass = masses(classifier, images, 1.0, 2.0)
    factor = math.exp(-1) - math.exp(-2)
    torch.testing.assert_close(mass, images * factor, rtol=1e-8, atol=0)
    assert float(steady_state_loss(mass, "l1-mean")) == pytest.approx(float(images.mean()) * factor, rel=1e-8)
    norms = images.flatten(1).norm(dim=1).mean()
    assert float(steady_state_loss(mass, "l2")) == pytest.approx(float(norms) * factor, rel=1e-8)


@pytest.mark.parametrize("norm", ["l1-mean", "l2"])
@pytest.mark.parametrize("base", [Standard(), GaussianNoise()], ids=lambda base: base.name)
def test_the_loss_is_the_bases_plus_the_weighted_penalty_on_the_same_images(digits, base, norm):
    images, labels = digits
    classifier = network().train()
    objective = TisODE(base=base, weight=0.3, norm=norm)
    found = objective.loss(classifier, batch_of(images, labels), {})
    seen = base.noised(images, batch_of(images, labels).rng)[0] if isinstance(base, GaussianNoise) else images
    penalty = steady_state_loss(masses(classifier, seen, 1.0, 2.0), norm)
    torch.testing.assert_close(found.terms["steady_state"], penalty.detach())
    torch.testing.assert_close(found.terms["base_loss"], F.cross_entropy(classifier(seen), labels).detach())
    torch.testing.assert_close(found.total, F.cross_entropy(classifier(seen), labels) + 0.3 * penalty)
    found.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in classifier.parameters())


def test_before_its_first_epoch_it_is_the_base_and_costs_no_more(digits):
    images, labels = digits
    classifier = network().train()
    early = TisODE(base=Standard()).loss(classifier, batch_of(images, labels, epoch=4), {})
    assert classifier.module.mapping.evaluations == 20
    torch.testing.assert_close(early.total, Standard().loss(classifier, batch_of(images, labels), {}).total)
    assert "steady_state" not in early.terms
    late = TisODE(base=Standard()).loss(classifier, batch_of(images, labels, epoch=5), {})
    assert classifier.module.mapping.evaluations == 40
    assert late.total > early.total
    coded = TisODE(base=Standard(), window=(0.9, 1.5)).loss(classifier, batch_of(images, labels), {})
    assert classifier.module.mapping.evaluations == 30
    assert coded.terms["steady_state"] != late.terms["steady_state"]


def test_it_weighs_the_attacked_images_of_adversarial_training_and_no_pass_of_the_attack(digits):
    images, labels = digits
    classifier, batch = network().train(), batch_of(*digits)
    for base in (PGDAT(eps="1/10", steps=2), FGSMAT(eps="1/10"), TRADES(eps="1/10", steps=2)):
        found = TisODE(base=base, weight=1.0).loss(classifier, batch, {})
        plain = base.loss(classifier, batch, {})
        torch.testing.assert_close(found.terms["base_loss"], plain.total.detach())
        torch.testing.assert_close(found.total.detach(), plain.total.detach() + found.terms["steady_state"])
    attacked = FGSMAT(eps="1/10").maximise(classifier, images, cross_entropy, labels, batch.rng, 1.0)
    with torch.no_grad():
        expected = steady_state_loss(masses(classifier, attacked, 1.0, 2.0), "l1-mean")
    found = TisODE(base=FGSMAT(eps="1/10")).loss(classifier, batch, {})
    torch.testing.assert_close(found.terms["steady_state"], expected)


def test_it_is_read_from_a_study_and_written_out_whole():
    settings = {
        "name": "tisode",
        "base": {"name": "pgd-at", "steps": 3},
        "window": [0.9, 1.5],
        "training": {"epochs": 2},
    }
    objective = create("objective", settings)
    assert isinstance(objective.base, PGDAT)
    assert objective.base.steps == 3
    written = objective.settings()
    assert written["base"]["name"] == "pgd-at"
    assert create("objective", written) == objective
    assert objective.digest() != create("objective", {**settings, "base": "standard"}).digest()
    assert create(
        "objective", {"name": "tisode", "base": {"name": "standard", "training": {"epochs": 3}}}
    ).training == (Training(epochs=3))
    with pytest.raises(ValueError, match="window must be two rising times"):
        TisODE(window=(2.0, 1.0))
    with pytest.raises(ValueError, match="base must be an objective"):
        TisODE(base="standard")


def test_networks_without_a_curve_are_refused_and_a_failing_solver_is_a_divergence(digits):
    images, labels = digits
    twin = ODECNN(channels=4).classifier(DIGITS.load("train").inputs())
    with pytest.raises(ValueError, match="integral curve"):
        TisODE().start(twin, images, 0)
    with pytest.raises(Diverged, match="max_evaluations = 30"):
        TisODE().loss(network(max_evaluations=30).train(), batch_of(images, labels), {})


def fit(model, objective) -> Trained:
    return train(model, objective, DIGITS.load("train"), DIGITS.load("select"), device="cpu", threads=1)


def test_training_with_it_brings_the_curves_nearer_to_rest_and_tells_so_in_the_history():
    found = []
    for weight in (0.0, 2.0):
        training = Training(epochs=3, batch_size=25, lr=1e-2)
        objective = TisODE(base=Standard(), weight=weight, first_epoch=1, training=training)
        found.append(fit(TisODENet(step_size=0.25, **NET), objective).history)
    assert all("steady_state_watched" in row for row in found[1])
    assert ["steady_state" in row for row in found[1]] == [False, True, True]
    assert found[1][-1]["steady_state_watched"] < 0.8 * found[0][-1]["steady_state_watched"]


def test_fgsm_training_fits_the_single_signed_step(digits):
    images, labels = digits
    torch.manual_seed(0)
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).double()
    leaf = images.clone().requires_grad_()
    gradient = torch.autograd.grad(F.cross_entropy(classifier(leaf), labels, reduction="sum"), leaf)[0]
    attacked = (images + 0.3 * gradient.sign()).clamp(0, 1)
    expected = F.cross_entropy(classifier(attacked), labels)
    torch.testing.assert_close(FGSMAT().loss(classifier, batch_of(images, labels), {}).total, expected)
    mixed = FGSMAT(clean=0.5).loss(classifier, batch_of(images, labels), {}).total
    torch.testing.assert_close(mixed, (expected + F.cross_entropy(classifier(images), labels)) / 2)
    with pytest.raises(ValueError, match="less than or equal to 1"):
        FGSMAT(steps=2)


@pytest.mark.parametrize(
    "model", [ODENet(**NET), TisODENet(step_size=0.25, **NET), ODECNN(**NET)], ids=lambda model: model.name
)
def test_toys_of_the_family_learn_and_stronger_attacks_leave_no_more(model):
    trained = fit(model, Standard(training=Training(epochs=5, batch_size=25, lr=1e-2)))
    images, labels, ids = Digits(test=60).load("test").batch(slice(None))
    attacks = [
        create("attack", {"name": name, "norm": "linf", "eps": "1/10", **steps})
        for name, steps in (("fgsm", {}), ("pgd", {"steps": 10}), ("pgd", {"steps": 40}))
    ]
    ledgers = [evaluate(trained.classifier, images, labels, [attack], ids=ids) for attack in attacks]
    clean = ledgers[0].frame("clean")["correct"].mean()
    left = [ledger.frame(attack.name)["correct"].mean() for ledger, attack in zip(ledgers, attacks, strict=True)]
    assert clean > 0.75
    assert left[2] <= left[1] <= left[0] < clean


def test_fgsm_training_raises_accuracy_under_fgsm():
    images, labels, _ = Digits(test=100).load("test").batch(slice(None))
    attack = create("attack", {"name": "fgsm", "norm": "linf", "eps": "1/10"})
    training = Training(epochs=6, batch_size=25, lr=1e-2)
    found = []
    for objective in (Standard(training=training), FGSMAT(eps="1/10", training=training)):
        classifier = fit(ODECNN(**NET), objective).classifier
        found.append(evaluate(classifier, images, labels, [attack]).frame("fgsm")["correct"].mean())
    assert found[1] > found[0] + 0.05
