"""Defences that average networks or passes: closed forms, draws, and what they do to likelihood and confidence."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.defences.averaging import Averaged
from robust.defences.defence import Material
from robust.defences.last_layer_laplace import LastLayerLaplace, fit, penultimate, with_one
from robust.defences.mc_dropout import MCDropout
from robust.defences.snapshot_ensemble import SnapshotEnsemble
from robust.defences.swag import SWAG
from robust.evaluation import evaluate
from robust.models.resnet18 import ResNet18
from robust.models.tulip_cnn import TulipCNN
from robust.objectives.objective import Training
from robust.objectives.standard import Standard
from robust.registry import create
from robust.training import Trained, train

SPEC = Digits(train=300, select=100, test=300)
EPOCHS = (6, 8, 10, 12)


@pytest.fixture(scope="module")
def trained() -> tuple[Classifier, Material]:
    training = Training(epochs=12, batch_size=25, lr=4e-3, schedule="constant", snapshots=EPOCHS)
    return material(TulipCNN(dropout=0.3, width=8), training)


def material(model, training: Training) -> tuple[Classifier, Material]:
    part = SPEC.load("train")
    run: Trained = train(model, Standard(training=training), part, SPEC.load("select"), device="cpu")
    classifier = run.classifier.requires_grad_(False)

    def load(epoch: int) -> Classifier:
        twin = copy.deepcopy(classifier)
        twin.module.load_state_dict(run.snapshots[epoch])
        return twin.eval()

    return classifier, Material(part, {epoch: lambda epoch=epoch: load(epoch) for epoch in run.snapshots})


@pytest.fixture(scope="module")
def test_images() -> tuple[Tensor, Tensor]:
    images, labels, _ = SPEC.load("test").batch(slice(None))
    return images, labels


@torch.no_grad()
def logits(classifier: Classifier, images: Tensor) -> Tensor:
    with classifier.frozen():
        found: Tensor = classifier(images)
    return found


def test_snapshots_are_averaged_as_probabilities_and_no_worse_than_they_are_on_average(trained, test_images):
    classifier, given = trained
    images, labels = test_images
    members = [load() for load in given.snapshots.values()]
    defended = SnapshotEnsemble().bind(classifier, given).wrap(classifier)
    each = torch.stack([logits(member, images) for member in members])
    torch.testing.assert_close(logits(defended, images).exp(), each.softmax(2).mean(0))
    assert not defended.random
    whole = F.cross_entropy(logits(defended, images), labels)
    assert whole < torch.stack([F.cross_entropy(one, labels) for one in each]).mean()


def test_swag_draws_have_the_mean_and_the_spread_of_the_snapshots():
    visited = [{"w": torch.tensor([float(v), 2.0])} for v in (0, 1, 2, 5)]
    drawn = torch.stack([weights["w"] for weights in SWAG(samples=4000, rank=20).draws(visited)])
    assert (drawn[:, 1] == 2).all()  # what did not move does not
    assert float(drawn[:, 0].mean()) == pytest.approx(2, abs=0.15)
    # half the plain variance, and half of sum of squares / (R - 1) from the deviations
    assert float(drawn[:, 0].var()) == pytest.approx(0.5 * 3.5 + 0.5 * 14 / 3, rel=0.1)
    alone = SWAG(samples=0).draws(visited)
    assert len(alone) == 1
    torch.testing.assert_close(alone[0]["w"], torch.tensor([2.0, 2.0]))


def test_swag_averages_networks_around_the_mean_and_repeats(trained, test_images):
    classifier, given = trained
    images, labels = test_images
    one, again = (SWAG(samples=4).bind(classifier, given).wrap(classifier) for _ in range(2))
    found = logits(one, images)
    assert torch.equal(found, logits(again, images))
    assert not torch.equal(found, logits(SWAG(samples=4, seed=1).bind(classifier, given).wrap(classifier), images))
    assert (found.argmax(1) == labels).float().mean() > 0.8
    mean = SWAG(samples=0).bind(classifier, given).wrap(classifier)
    confidence = [logits(network, images).softmax(1).amax(1).mean() for network in (one, mean)]
    assert confidence[0] < confidence[1]  # averaging over the spread can only blur


def test_swag_computes_the_averages_of_batchnorm_anew(test_images):
    training = Training(epochs=4, batch_size=25, lr=3e-3, snapshots=(3, 4))
    classifier, given = material(ResNet18(width=4), training)
    defended = SWAG(samples=0, renorm=250).bind(classifier, given).wrap(classifier)
    stem = defended.members[0].module[0]
    images, _, _ = given.train.batch(slice(0, 250))
    with torch.no_grad():
        seen = stem[0](defended.members[0].normalise(images)).mean((0, 2, 3))
    torch.testing.assert_close(stem[1].running_mean, seen, rtol=1e-4, atol=1e-5)
    assert stem[1].momentum == 0.1
    with pytest.raises(ValueError, match="train"):
        SWAG().bind(classifier, Material(None, given.snapshots))


def test_mc_dropout_averages_its_masks_and_its_draws_repeat(trained, test_images):
    classifier, _ = trained
    images, labels = test_images
    defended = MCDropout(passes=30).wrap(classifier)
    assert defended.random
    before = torch.random.get_rng_state()
    with defended.frozen(), torch.no_grad():
        first, second = defended(images), defended(images)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not any(layer.training for layer in classifier.modules() if isinstance(layer, nn.Dropout))
    assert torch.equal(first, logits(defended, images))
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.exp().sum(1), torch.ones(300))
    assert (first.argmax(1) == labels).float().mean() > 0.8
    assert first.softmax(1).amax(1).mean() < logits(classifier, images).softmax(1).amax(1).mean()
    assert defended.views()["substitute"] is classifier


def test_mc_dropout_of_a_linear_network_has_the_right_mean():
    layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        layers[2].weight.copy_(torch.tensor([[1.0], [0.0]]))
    defended = MCDropout(passes=4000).wrap(Classifier(layers, num_classes=2).eval())
    with torch.no_grad():
        found = defended(torch.full((1, 1, 1, 1), 0.5)).softmax(1)[0, 0]
    # half the masks give logit 0, half give 1
    assert float(found) == pytest.approx(0.5 * (0.5 + 1 / (1 + math.exp(-1))), abs=0.01)


def test_laplace_posterior_is_the_inverse_of_the_kronecker_precision(trained):
    classifier, given = trained
    posterior = fit(classifier, given.train, samples=300, precision=2.0)
    images, _, _ = given.train.batch(slice(None))
    with torch.no_grad():
        features, found = penultimate(classifier, images)
    phi, p = with_one(features.double()), found.double().softmax(1)
    inner = phi.T @ phi / 300
    outer = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]).mean(0)
    precision = 300 * torch.kron(outer, inner) + 2.0 * torch.eye(outer.numel() // 10 * inner.shape[0])
    covariance = torch.linalg.inv(precision).view(10, inner.shape[0], 10, inner.shape[0])
    expected = torch.einsum("nd,kdke,ne->nk", phi[:5], covariance, phi[:5])
    torch.testing.assert_close(posterior.logit_variance(features[:5].double()), expected)


def test_laplace_divides_logits_by_their_uncertainty_and_doubts_what_is_far(trained, test_images):
    classifier, given = trained
    images, labels = test_images
    defended = LastLayerLaplace().bind(classifier, given).wrap(classifier)
    found, plain = logits(defended, images), logits(classifier, images)
    ratio = plain / found
    assert (ratio[plain.abs() > 1e-3] > 1).all()
    assert (found.argmax(1) == labels).float().mean() > 0.9 * (plain.argmax(1) == labels).float().mean()
    far = 50 * images  # a ReLU network is ever surer along a ray; variances grow with the square, so this one is not
    assert logits(classifier, far).softmax(1).amax(1).mean() > 0.99
    assert logits(defended, far).softmax(1).amax(1).mean() < 0.9
    # a narrow prior pins the weights: nothing is uncertain any more
    sure = LastLayerLaplace(precision=1e12).bind(classifier, given).wrap(classifier)
    torch.testing.assert_close(logits(sure, images), plain)


def test_laplace_refuses_logits_that_are_no_linear_layers(trained):
    _, given = trained
    tanh = TulipCNN(logits="tanh").classifier(given.train.inputs()).eval()
    with torch.no_grad():
        tanh.module[2].scale.fill_(0.05)  # before any training tanh is nearly the identity
    with pytest.raises(ValueError, match="last linear layer"):
        LastLayerLaplace().bind(tanh, given)


@pytest.mark.parametrize("name", ["swag", "snapshot-ensemble", "last-layer-laplace"])
def test_defences_that_must_be_fitted_say_so(trained, name):
    defence = create("defence", name)
    assert defence.needs
    with pytest.raises(ValueError, match="call bind"):
        defence.wrap(trained[0])
    with pytest.raises(ValueError, match=r"snapshots|train"):
        defence.bind(trained[0], Material())


def test_mc_dropout_needs_dropout():
    plain = TulipCNN().classifier(SPEC.load("train").inputs())
    with pytest.raises(ValueError, match="network with dropout"):
        MCDropout().wrap(plain)


@pytest.mark.parametrize("name", ["swag", "snapshot-ensemble", "last-layer-laplace", "mc-dropout"])
def test_defended_networks_can_be_attacked_and_give_gradients(trained, test_images, name):
    classifier, given = trained
    images, labels = (part[:40] for part in test_images)
    defended = create("defence", name).bind(classifier, given).wrap(classifier)
    ledger = evaluate(defended, images, labels, [create("attack", {"name": "pgd", "eps": "1/5", "steps": 5})])
    assert ledger.frame("pgd")["correct"].mean() < ledger.frame("clean")["correct"].mean() - 0.2


def test_averaged_networks_have_the_features_of_the_first(trained, test_images):
    classifier, _ = trained
    images, _ = test_images
    one = Averaged(classifier, [classifier, classifier])
    torch.testing.assert_close(logits(one, images).exp(), logits(classifier, images).softmax(1))
    assert torch.equal(one.features(images), classifier.features(images))
