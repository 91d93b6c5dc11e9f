"""Black-box attacks: no gradient, no more queries than announced, accuracy and distances that really fall."""

from __future__ import annotations

import copy

import pytest
import torch

from robust.attacks.attack import Attack, Context, FixedBudget
from robust.attacks.boundary import Boundary
from robust.attacks.fmn import FMN
from robust.attacks.hopskipjump import HopSkipJump
from robust.attacks.nes import NES
from robust.attacks.pgd import PGD
from robust.attacks.spsa import SPSA
from robust.attacks.transfer import Transfer
from robust.attacks.universal import Universal
from robust.classifier import Classifier
from robust.evaluation import evaluate
from robust.randomness import Randomness

FIXED = {
    "spsa-linf": SPSA.model_validate({"eps": "1/5", "steps": 20, "directions": 16, "rate": 0.03}),
    "spsa-l2": SPSA.model_validate({"norm": "l2", "eps": "3/2", "steps": 20, "directions": 16, "rate": 0.05}),
    "nes-linf": NES.model_validate({"eps": "1/5", "steps": 20}),
    "nes-l2": NES.model_validate({"norm": "l2", "eps": "3/2", "steps": 20}),
}
DECISION = {
    "hopskipjump-l2": HopSkipJump.model_validate({"steps": 8}),
    "hopskipjump-linf": HopSkipJump.model_validate({"norm": "linf", "steps": 8}),
    "boundary": Boundary.model_validate({"steps": 600}),
}


@pytest.mark.parametrize("case", FIXED)
def test_score_based_attacks_break_most_digits_without_a_gradient(case, digits_net):
    attack = FIXED[case]
    classifier, images, labels = digits_net
    ledger = evaluate(classifier, images[:30], labels[:30], [attack])
    frame, clean = ledger.frame(attack.name), ledger.frame("clean")
    assert clean["correct"].mean() > 0.9
    assert frame["correct"].mean() < 0.3
    assert (frame["backward"] == 0).all()
    assert frame["queries"].max() <= attack.passes(10)[0] + 1  # and the one that found it correct


@pytest.mark.parametrize("case", DECISION)
def test_decision_based_attacks_come_near_the_white_box_distance(case, digits_net):
    attack = DECISION[case]
    classifier, images, labels = digits_net
    white = FMN.model_validate({"norm": attack.threat.norm, "steps": 100})
    ledger = evaluate(classifier, images[:20], labels[:20], [attack, white])
    frame, reference = ledger.frame(attack.name), ledger.frame("fmn")
    attacked = frame["distance"] > 0
    assert frame["success"].all()
    assert frame["distance"][attacked].median() < 2.0 * reference["distance"][attacked].median()
    assert (frame["backward"] == 0).all()
    assert frame["queries"].max() <= attack.passes(10)[0] + 1


@pytest.mark.parametrize("case", [*FIXED, *DECISION])
def test_black_box_attacks_are_independent_of_the_batch(case, digits_net):
    attack: Attack = {**FIXED, **DECISION}[case]
    attack = attack.model_copy(update={"steps": 3})
    classifier, images, labels = digits_net
    double = copy.deepcopy(classifier).double()
    x, y, rng = images[:5].double(), labels[:5], Randomness.of(3, range(5), attack.name)
    run = attack.perturb if isinstance(attack, FixedBudget) else attack.minimise
    order = torch.tensor([4, 1])
    with double.frozen():
        whole, part = run(double, x, y, rng), run(double, x[order], y[order], rng.select(order))
    torch.testing.assert_close(part, whole[order], atol=1e-9, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the peer
def test_hopskipjump_is_no_worse_than_foolbox(digits_net):
    import foolbox

    classifier, images, labels = digits_net
    images, labels = images[:12], labels[:12]
    ours = evaluate(classifier, images, labels, [HopSkipJump.model_validate({"steps": 10})]).frame("hopskipjump")
    peer = foolbox.attacks.HopSkipJumpAttack(steps=10)
    start = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50, directions=1000)
    torch.manual_seed(0)
    with classifier.frozen():
        model = foolbox.PyTorchModel(classifier, bounds=(0, 1))
        first = start.run(model, images, foolbox.Misclassification(labels))
        found = peer.run(model, images, foolbox.Misclassification(labels), starting_points=first)
    theirs = (found - images).flatten(1).norm(dim=1)
    assert ours["distance"].median() <= 1.15 * theirs.median()


def surrogate(net: Classifier) -> Classifier:
    """A cousin: the same weights with a tenth of noise."""
    cousin = copy.deepcopy(net)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for weight in cousin.parameters():
            weight.add_(0.1 * weight.std() * torch.randn_like(weight))
    return cousin


def test_transfer_lowers_accuracy_without_a_query(digits_net):
    classifier, images, labels = digits_net
    inner = PGD.model_validate({"eps": "1/5", "steps": 20, "early_stop": False})
    attack = Transfer(attack=inner, surrogate="cousin")
    bound = attack.bind(classifier, Context(models={"cousin": surrogate(classifier)}))
    assert bound.settings() == attack.settings()
    frame = evaluate(classifier, images[:50], labels[:50], [bound]).frame("transfer")
    assert frame["correct"].mean() < 0.5
    assert frame["forward"].max() == 1  # the evaluation's own check of the clean image
    assert (frame["backward"] == 0).all()


def test_transfer_without_its_surrogate_says_what_is_missing(digits_net):
    classifier, images, labels = digits_net
    attack = Transfer(attack=PGD.model_validate({"eps": "1/5"}), surrogate="cousin")
    with pytest.raises(ValueError, match="there is no model 'cousin'; there are cnn"):
        attack.bind(classifier, Context(models={"cnn": classifier}))
    with pytest.raises(ValueError, match="'cousin' was not brought"):
        attack.perturb(classifier, images, labels, Randomness.of(0, range(len(labels))))


@pytest.mark.parametrize(("norm", "eps"), [("linf", "1/4"), ("l2", "2")])
def test_universal_perturbation_beats_noise_of_its_size(norm, eps, digits_net):
    classifier, images, labels = digits_net
    attack = Universal.model_validate({"norm": norm, "eps": eps})
    bound = attack.bind(classifier, Context(images=images[100:], labels=labels[100:]))
    frame = evaluate(classifier, images[:100], labels[:100], [bound]).frame("universal")
    rng = Randomness.of(0, range(100), "noise")
    noisy = attack.threat.random_start(images[:100], rng)
    under_noise = (classifier(noisy).argmax(1) == labels[:100]).double().mean()
    assert frame["correct"].mean() < under_noise - 0.2
    moved = bound.perturb(classifier, images[:3], labels[:3], rng)
    assert attack.threat.contains(moved, images[:3]).all()


def test_universal_needs_data(digits_net):
    with pytest.raises(ValueError, match="needs images to prepare on"):
        Universal.model_validate({"eps": "1/4"}).bind(digits_net[0], Context())
