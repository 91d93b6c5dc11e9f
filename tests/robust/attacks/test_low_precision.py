"""The bfloat16 search: its rounding is real, and what it claims is settled in full precision."""

from __future__ import annotations

import torch

from robust.attacks.low_precision import LowPrecision, Rounded
from robust.attacks.pgd import PGD
from robust.classifier import Metered
from robust.evaluation import evaluate
from robust.randomness import Randomness
from robust.registry import create

PLAIN = PGD.model_validate({"eps": "1/10", "steps": 10})


def wrong(net, attack, n=150):
    classifier, images, labels = net
    frame = evaluate(classifier, images[:n], labels[:n], [attack]).frame(attack.name)
    return torch.tensor(frame["success"].to_numpy(dtype=bool)), frame


def test_the_search_sees_rounded_logits_and_a_gradient(digits_net):
    classifier, images, _ = digits_net
    leaf = images[:50].clone().requires_grad_(True)
    with classifier.frozen():
        exact, rounded = classifier(images[:50]), Rounded(classifier)(leaf)
    assert rounded.dtype == torch.float32
    assert 0 < float((exact - rounded.detach()).abs().max()) < 0.1 * float(exact.abs().max())
    (gradient,) = torch.autograd.grad(rounded.sum(), leaf)
    assert gradient.abs().sum() > 0


def test_nothing_that_the_plain_attack_breaks_withstands_the_settled_search(digits_net):
    classifier, images, labels = digits_net
    rng = Randomness.of(0, range(100), "pgd")
    with classifier.frozen(), torch.no_grad():
        alone = PLAIN.perturb(Metered(classifier, 100), images[:100], labels[:100], rng.fork("pgd"))
        settled = LowPrecision(attack=PLAIN).perturb(Metered(classifier, 100), images[:100], labels[:100], rng)
        plain, both = (classifier(found).argmax(1) != labels[:100] for found in (alone, settled))
    assert (both >= plain).all()
    assert 0 < plain.sum() < 100


def test_polishing_alone_agrees_with_the_plain_attack_to_a_few_samples(digits_net):
    plain, _ = wrong(digits_net, PLAIN)
    polished, _ = wrong(digits_net, LowPrecision(attack=PLAIN, again=False))
    assert int((plain != polished).sum()) <= 3


def test_polishing_settles_in_full_precision_what_a_search_of_no_use_left(digits_net):
    one = PGD.model_validate({"eps": "1/10", "steps": 1, "step_size": "1/100000"})
    plain, _ = wrong(digits_net, one)
    polished, frame = wrong(digits_net, LowPrecision(attack=one, polish=40, again=False))
    assert polished.sum() > plain.sum() + 10
    assert frame["forward"].max() <= LowPrecision(attack=one, polish=40, again=False).passes(10)[0] + 1


def test_float64_is_left_alone(linear_net):
    classifier, images, _ = linear_net
    assert torch.equal(Rounded(classifier)(images), classifier(images))


def test_a_study_file_can_name_it():
    built = create("attack", {"name": "low-precision", "attack": {"name": "pgd", "norm": "l2", "eps": "1/2"}})
    assert built.threat.norm == "l2"
    assert create("attack", built.settings()) == built
