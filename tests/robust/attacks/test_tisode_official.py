"""The published TisODE attack: its step, its loss, what it keeps, and how weak it is."""

import pytest
import torch
from torch import nn

from robust.attacks.tisode_official import TisODEOfficial, saturating_loss
from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.evaluation import evaluate
from robust.models.mlp import MLP
from robust.objectives.objective import Training
from robust.objectives.standard import Standard
from robust.randomness import Randomness
from robust.registry import create
from robust.training import train

NO_DRAWS = Randomness.of(0, [0])


def linear(scale: float = 1.0) -> Classifier:
    """Two classes, z = +-scale * sum(w x)."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    weight = scale * torch.tensor([[1.0, -1.0, 0.5, 0.0]])
    module[1].weight = nn.Parameter(torch.cat([weight, -weight]))
    return Classifier(module)


def official(**settings) -> TisODEOfficial:
    return TisODEOfficial.model_validate({"norm": "linf", **settings})


def test_the_single_step_is_the_authors_fgsm_and_ten_steps_are_fifths_of_eps():
    image, label = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    classifier = linear()
    image[0, 0, 0, 0] = 0.9  # class 0 by a margin of 2 * 0.65
    one = official(eps="1/10", steps=1).perturb(classifier, image, label, NO_DRAWS)
    torch.testing.assert_close(one.flatten() - image.flatten(), torch.tensor([-0.1, 0.1, -0.1, 0.0]))
    two = official(eps="1/10", steps=2).perturb(classifier, image, label, NO_DRAWS)
    torch.testing.assert_close(two.flatten() - image.flatten(), torch.tensor([-0.04, 0.04, -0.04, 0.0]))
    ten = official(eps="1/10").perturb(classifier, image, label, NO_DRAWS)
    torch.testing.assert_close(ten.flatten(), one.flatten())
    assert official(eps="1/10").passes(10) == (11, 10)


def test_the_nearest_success_is_kept_and_far_ones_are_failures():
    image, label = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    image[0, 0, 0, 0] = 0.3  # z_0 = .3 - .5 + .25 = .05: the first fifth of 0.2 (a change of .1) is enough
    kept = official(eps="1/5").perturb(linear(), image, label, NO_DRAWS)
    assert (kept - image).abs().max() == pytest.approx(0.04, abs=1e-6)
    assert int(linear()(kept).argmax(1)) == 1
    far = official(eps="1/5", farthest=0.01).perturb(linear(), image, label, NO_DRAWS)
    assert torch.equal(far, image)


def test_it_stands_still_where_the_softmax_has_saturated():
    image, label = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    image[0, 0, 0, 0] = 0.9
    frozen = official(eps="1/2").perturb(linear(1e4), image, label, NO_DRAWS)
    assert torch.equal(frozen, image)
    strong = create("attack", {"name": "pgd", "norm": "linf", "eps": "1/2", "loss": "margin", "steps": 5})
    assert int(linear(1e4)(strong.perturb(linear(1e4), image, label, NO_DRAWS)).argmax(1)) == 1


def test_the_loss_in_closed_form():
    logits, labels = torch.tensor([[2.0, 0.5, 0.0], [0.0, 3.0, 1.0], [200.0, 0.0, 0.0]]), torch.tensor([0, 0, 0])
    found = saturating_loss(logits, labels)
    assert float(found[0]) == pytest.approx(0.75, rel=1e-5)  # half the logit margin
    assert float(found[1]) == 0.0  # already wrong
    assert float(found[2]) == pytest.approx(30 * 2.302585 / 2, rel=1e-3)  # cut at log 1e-30


def test_it_breaks_digits_and_leaves_more_than_a_strong_attack():
    training = Training(epochs=20, batch_size=25, lr=5e-3)
    spec = Digits(train=300, select=100, test=100)
    parts = [spec.load(split) for split in ("train", "select", "test")]
    trained = train(MLP(hidden=(32,)), Standard(training=training), *parts[:2], device="cpu", threads=1)
    images, labels, _ = parts[2].batch(slice(None))
    strong = create("attack", {"name": "apgd-ce", "norm": "linf", "eps": "1/10", "steps": 20})
    ledger = evaluate(trained.classifier, images, labels, [official(eps="1/10"), strong])
    clean, weak, best = (ledger.frame(name)["correct"].mean() for name in ("clean", "tisode-official", "apgd-ce"))
    assert weak < clean - 0.2
    assert best <= weak
