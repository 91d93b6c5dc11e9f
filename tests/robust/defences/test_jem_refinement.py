"""JEM refinement: its cost, its views and its draws; gradients against closed forms and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robust.attacks.bpda import BPDA
from robust.attacks.eot import EOT
from robust.attacks.pgd import PGD
from robust.attacks.substitute import Substitute
from robust.attacks.through import Through
from robust.classifier import Classifier, Metered
from robust.defences.jem_refinement import JEMRefinement
from robust.diagnostics.masking import diagnose
from robust.energy import log_density, score
from robust.evaluation import evaluate
from robust.registry import create
from robust.threat import ThreatModel


def network() -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.SiLU(), nn.Linear(32, 10))
    classifier = Classifier(layers, num_classes=10).double()
    return classifier.eval().requires_grad_(False)


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("copies", [1, 5])
@pytest.mark.parametrize("steps", [0, 1, 10])
def test_a_copy_costs_one_and_two_n_passes(steps, copies):
    meter = Metered(network(), 4)
    defended = JEMRefinement(steps=steps, copies=copies).wrap(meter)
    with torch.no_grad():
        defended(images())
    assert meter.forwards.tolist() == [copies * (1 + steps)] * 4
    assert meter.backwards.tolist() == [copies * steps] * 4
    total = meter.forwards + meter.backwards
    assert (total == copies * (1 + 2 * steps)).all()


def test_without_noise_it_is_gradient_ascent_on_log_p():
    classifier = network()
    defended = JEMRefinement(steps=3, step_size=0.8, sigma=0.0, input_sigma=0.0, copies=1).wrap(classifier)
    assert not defended.random
    x = images()
    for _ in range(3):
        x = x + 0.8 / 4 * score(classifier, x)
    torch.testing.assert_close(defended(images()), classifier(x))
    assert (log_density(classifier(x)) > log_density(classifier(images()))).all()


def test_draws_differ_between_calls_and_copies_and_repeat_between_runs():
    defended = JEMRefinement(steps=1, copies=3).wrap(network())
    assert defended.random
    runs = []
    for _ in range(2):
        with defended.frozen(), torch.no_grad():
            runs.append([defended(images()), defended(images())])
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[0][1])
    copies = defended.refined(images()).view(3, 4, -1)
    assert not torch.equal(copies[0], copies[1])


def gradient_of(view: Classifier, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_(True)
    found: Tensor = torch.autograd.grad(view(leaf)[:, 0].sum(), leaf)[0]
    return found


def test_the_views_have_the_same_values_and_their_own_gradients():
    classifier = network()
    defence = JEMRefinement(steps=3, step_size=2.0, sigma=0.02, input_sigma=0.1, copies=2)
    found = {}
    for name in ("own", "bpda", "through", "substitute"):
        defended = defence.wrap(classifier)
        view = defended if name == "own" else defended.views()[name]
        with defended.frozen():
            found[name] = view(images()).detach()
        with defended.frozen():
            found[name + "-gradient"] = gradient_of(view, images())
    torch.testing.assert_close(found["bpda"], found["own"])
    torch.testing.assert_close(found["through"], found["own"])
    assert not torch.allclose(found["substitute"], found["own"])
    torch.testing.assert_close(found["bpda-gradient"], found["own-gradient"])
    assert not torch.allclose(found["through-gradient"], found["own-gradient"])


def test_straight_through_is_the_gradient_at_the_refined_image_and_through_is_the_derivative():
    classifier = network()
    defence = JEMRefinement(steps=2, step_size=3.0, sigma=0.0, input_sigma=0.0, copies=1)
    defended = defence.wrap(classifier)
    refined = defended.refined(images()).detach()
    torch.testing.assert_close(gradient_of(defended, images()), gradient_of(classifier, refined))
    x, through = images(2), defended.views()["through"]
    exact = gradient_of(through, x).flatten(1)
    for pixel in (3, 40):
        bump = torch.zeros_like(x).flatten(1)
        bump[:, pixel] = 1e-6
        with torch.no_grad():
            high, low = (through(x + sign * bump.view_as(x))[:, 0] for sign in (1, -1))
        torch.testing.assert_close(exact[:, pixel], (high - low) / 2e-6, atol=1e-6, rtol=1e-4)


def test_substitute_is_the_same_without_steps_and_then_the_undefended_network():
    classifier = network()
    defended = JEMRefinement(steps=4, sigma=0.0, input_sigma=0.0, copies=1).wrap(classifier)
    torch.testing.assert_close(defended.views()["substitute"](images()), classifier(images()))
    assert JEMRefinement(steps=0).wrap(classifier).views()["substitute"] is classifier


def test_features_and_an_empty_batch():
    defended = JEMRefinement(steps=1, copies=3).wrap(network())
    assert defended.features(images()).shape == (4, 32)
    assert defended(images(0)).shape == (0, 10)


def test_every_adaptive_attack_runs_on_it_and_lowers_its_accuracy():
    classifier = network()
    x = images(20)
    with torch.no_grad():
        labels = classifier(x).argmax(1)
    defended = JEMRefinement(steps=2, copies=2, input_sigma=0.02).wrap(classifier)
    inner = PGD.model_validate({"eps": "1/10", "steps": 5})
    attacks = [inner, EOT(attack=inner, draws=3), BPDA(attack=inner), Through(attack=inner), Substitute(attack=inner)]
    ledger = evaluate(defended, x, labels, attacks)
    clean = ledger.frame("clean")["correct"].mean()
    assert clean > 0.5
    for attack in attacks:
        assert ledger.frame(attack.name)["correct"].mean() < clean - 0.2


@pytest.mark.parametrize(
    "attack",
    [
        {"name": "square", "queries": 5},
        {"name": "nes", "steps": 2, "directions": 4},
        {"name": "spsa", "steps": 2, "directions": 4},
        {"name": "random-noise"},
        {"name": "hopskipjump", "steps": 1, "first_queries": 10, "tries": 5},
        {"name": "boundary", "steps": 5, "tries": 5},
    ],
    ids=lambda settings: settings["name"],
)
def test_attacks_without_a_gradient_leave_it_the_gradients_of_its_own_walk(attack):
    defended = JEMRefinement(steps=1, copies=2).wrap(network())
    x = images()
    labels = defended(x).argmax(1)
    ball = {} if attack["name"] in ("hopskipjump", "boundary") else {"norm": "linf", "eps": "1/10"}
    judged = evaluate(defended, x, labels, [create("attack", {**attack, **ball})]).frame(attack["name"])
    assert len(judged) == 4


def test_its_validity_can_be_examined():
    classifier = network()
    defended = JEMRefinement(steps=1, copies=1, step_size=0.01, input_sigma=0, sigma=0).wrap(classifier)
    x = images(24)
    with torch.no_grad():
        labels = classifier(x).argmax(1)
    threat = ThreatModel(norm="linf", eps="1/100")
    found = diagnose(defended, x, labels, torch.arange(24), [threat], 0, samples=24)
    assert "not beaten by square" in {check.check for check in found.checks}
