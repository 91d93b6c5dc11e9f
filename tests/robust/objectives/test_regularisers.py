"""Augmentations and regularisers: their formulae, their draws, and that each lowers its own loss on digits."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust.classifier import Classifier, averaged
from robust.datasets.digits import Digits
from robust.models.deep_ensemble import DeepEnsemble
from robust.models.mlp import MLP
from robust.objectives.augmix import AugMix, jensen_shannon
from robust.objectives.augmix_operations import OPERATIONS, apply_each, equalize, posterize, rotate, translate_x
from robust.objectives.cutmix import CutMix
from robust.objectives.cutout import Cutout
from robust.objectives.deep_ensemble import DeepEnsembleTraining, members_of
from robust.objectives.label_smoothing import LabelSmoothing
from robust.objectives.logit_norm import LogitNorm
from robust.objectives.mixing import draws_of, partners
from robust.objectives.mixup import Mixup
from robust.objectives.objective import Batch, Objective, Training
from robust.objectives.outlier_exposure import OutlierExposure, uniform_cross_entropy
from robust.objectives.pgd_at import PGDAT
from robust.objectives.standard import Standard
from robust.randomness import Randomness, generator
from robust.registry import create
from robust.training import Trained, train

SPEC = Digits(train=400, select=100, test=300)
OWN_LOSS = {
    "j1": {"eps": "1/2"},
    "j2": {"eps": "1/2"},
    "jp": {"eps": "1/4", "p": 3},
    "tulip": {"eps": "1/4"},
    "lipschitz-excess": {},
    "label-smoothing": {},
    "mixup": {},
    "cutmix": {"share": 1.0},
    "cutout": {},
    "augmix": {"width": 2},
    "logit-norm": {},
    "outlier-exposure": {},
}


@cache
def fitted(name: str) -> tuple[Objective, Trained]:
    training = Training(epochs=25, batch_size=50, lr=5e-3)  # fewer, and those that see harder images underfit
    objective = create("objective", {"name": name, **OWN_LOSS.get(name, {})})
    assert isinstance(objective, Objective)
    objective = objective.model_copy(update={"training": training})
    return objective, train(MLP(hidden=(64,)), objective, SPEC.load("train"), SPEC.load("select"), device="cpu")


def batch_of(images: Tensor, labels: Tensor, step: int = 0) -> Batch:
    ids = torch.arange(len(images))
    return Batch(images, labels, ids, Randomness.of(0, ids, "train", 0), progress=0.5, step=step, epoch=0)


@pytest.fixture
def batch() -> Batch:
    images, labels, _ = SPEC.load("test").batch(slice(0, 40))
    return batch_of(images.double(), labels)


def network(seed: int = 0) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    return Classifier(layers, mean=(0.3,), std=(0.4,), num_classes=10).double()


@pytest.mark.parametrize("name", OWN_LOSS)
def test_each_lowers_its_own_loss_below_what_standard_training_leaves_and_still_reads_digits(name):
    objective, own = fitted(name)
    _, standard = fitted("standard")
    images, labels, _ = SPEC.load("test").batch(slice(None))
    state = objective.start(own.classifier, images, seed=5)
    batches = [batch_of(images, labels, step) for step in range(5)]
    mine, theirs = (
        sum(float(objective.loss(run.classifier, one, state).total.detach()) for one in batches)
        for run in (own, standard)
    )
    assert mine < theirs
    with torch.no_grad():
        assert (own.classifier(images).argmax(1) == labels).float().mean() > 0.75


def test_label_smoothing_is_standard_training_on_smoothed_labels(batch):
    target = 0.9 * F.one_hot(batch.labels, 10) + 0.01
    expected = F.cross_entropy(network()(batch.images), target.double())
    torch.testing.assert_close(LabelSmoothing().loss(network(), batch, {}).total, expected)


def test_mixup_weighs_images_and_labels_alike(batch):
    draws = draws_of(batch, "mixup")
    weight, other = float(draws.beta(0.4, 0.4)), partners(batch, draws)
    mixed = weight * batch.images + (1 - weight) * batch.images[other]
    target = weight * F.one_hot(batch.labels, 10) + (1 - weight) * F.one_hot(batch.labels[other], 10)
    found = Mixup(alpha=0.4).loss(network(), batch, {})
    torch.testing.assert_close(found.total, F.cross_entropy(network()(mixed), target.double()))
    assert float(found.terms["weight"]) == pytest.approx(weight)


def test_pairs_belong_to_the_step():
    one, again, later = (
        draws_of(batch_of(torch.zeros(4, 1, 2, 2), torch.zeros(4).long(), step), "mixup") for step in (0, 0, 1)
    )
    first = one.random()
    assert first == again.random()
    assert first != later.random()


def test_cutmix_labels_weigh_what_the_pixels_do():
    ones, zeros = torch.ones(3, 1, 20, 30), torch.zeros(3, 1, 20, 30)
    kept = []
    for draw in range(60):
        mixed, share = CutMix().mixed(ones, zeros, generator(draw, "test"))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), torch.full((3,), share))
        rows, columns = (mixed[0, 0] == 0).any(1).nonzero(), (mixed[0, 0] == 0).any(0).nonzero()
        hole = 0 if not len(rows) else int((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))
        assert hole == round((1 - share) * 600)  # one box
        kept.append(share)
    assert 0.4 < sum(kept) / 60 < 0.9  # half on average, more for boxes that the border cuts


def test_cutmix_without_a_cut_is_standard_training(batch):
    found, standard = (o.loss(network(), batch, {}).total for o in (CutMix(share=0), Standard()))
    torch.testing.assert_close(found, standard)


def test_cutout_blanks_a_square_of_each_image_to_the_mean():
    images = torch.rand(50, 1, 16, 12)
    rng = Randomness.of(0, range(50))
    holes = Cutout(size=0.5).holes(images, rng)
    area = holes.float().sum((1, 2, 3))
    assert area.max() == 36
    assert area.min() >= 9  # a corner of it at least
    assert torch.equal(Cutout().holes(images[4:5], rng.select([4])), holes[4:5])
    seen: list[Tensor] = []
    classifier = Classifier(lambda x: seen.append(x) or x.flatten(1)[:, :3], mean=(0.3,), std=(0.5,), num_classes=3)
    Cutout().loss(classifier, batch_of(images, torch.zeros(50).long()), {})
    assert not seen[0][holes_of(seen[0])].any()
    assert float((seen[0] == 0).float().mean()) > 0.1


def holes_of(normalised: Tensor) -> Tensor:
    return normalised == 0


def test_logit_norm_knows_the_direction_of_the_logits_only(batch):
    classifier = network()
    logits = classifier(batch.images)
    expected = F.cross_entropy(F.normalize(logits, dim=1) / 0.2, batch.labels)
    found = LogitNorm(temperature=0.2).loss(classifier, batch, {}).total
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        for parameter in classifier.module[-1].parameters():
            parameter.mul_(7)
    torch.testing.assert_close(LogitNorm(temperature=0.2).loss(classifier, batch, {}).total, found)


def test_uniform_cross_entropy_is_least_for_a_uniform_prediction():
    torch.testing.assert_close(uniform_cross_entropy(torch.full((2, 5), 3.0)), torch.full((2,), math.log(5)))
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    expected = F.cross_entropy(logits, torch.full((4, 5), 0.2), reduction="none")
    torch.testing.assert_close(uniform_cross_entropy(logits), expected)


def test_outlier_exposure_is_its_formula_and_holds_images_of_the_right_shape(batch):
    objective = OutlierExposure(weight=0.3, pool=30)
    state = objective.start(network(), batch.images, seed=0)
    assert state["outliers"].shape == (30, 1, 8, 8)
    assert state["outliers"].dtype == torch.uint8
    found = objective.loss(network(), batch, state)
    standard = Standard().loss(network(), batch, {}).total
    torch.testing.assert_close(found.total, standard + 0.3 * found.terms["outlier_loss"])
    assert objective.settings()["outliers"]["name"] == "uniform-noise"
    again = create("objective", objective.settings())
    assert again == objective


def test_outlier_exposure_makes_noise_unfamiliar():
    noise = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own, standard = (
            fitted(name)[1].classifier(noise).softmax(1).amax(1).mean() for name in ("outlier-exposure", "standard")
        )
    assert own < 0.15  # 0.1 is uniform
    assert own < standard - 0.05


def test_jensen_shannon_is_zero_for_equal_views_and_log_of_their_number_for_disjoint_ones():
    logits = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(jensen_shannon(logits.expand(3, 5, 3)), torch.zeros(5).double(), rtol=0, atol=1e-12)
    apart = 200 * torch.eye(3, dtype=torch.float64)[:, None]
    torch.testing.assert_close(jensen_shannon(apart), torch.tensor([math.log(3)]).double())


def test_augmix_operations_stay_in_the_box_and_do_what_they_are_called():
    images = torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    level = torch.linspace(-1, 1, 30)
    for operation in OPERATIONS:
        found = operation(images, level)
        assert found.min() >= -1e-6
        assert found.max() <= 1 + 1e-6
        assert not torch.equal(found, images)
        torch.testing.assert_close(operation(images[7:8], level[7:8]), found[7:8])
    torch.testing.assert_close(rotate(images, torch.zeros(30)), images, rtol=0, atol=1e-5)
    shifted = translate_x(images, torch.full((30,), 3 / 16))  # 2/3 of it in half widths: one pixel of 16
    torch.testing.assert_close(shifted[..., :-1], images[..., 1:], rtol=0, atol=1e-5)
    assert len(posterize(images, torch.ones(30)).unique()) == 2
    even = equalize((images * 0.1 + 0.4), level)
    assert 0.45 < even.mean() < 0.55
    assert even.amin((2, 3)).max() == 0
    assert even.amax((2, 3)).min() == 1
    assert torch.equal(apply_each(images, torch.full((30,), -1), level), images)


def test_augmix_views_are_images_and_its_loss_without_a_price_is_standard_training(batch):
    view = AugMix(strength=1).view(batch.images, generator(0, "test"))
    assert view.shape == batch.images.shape
    assert view.min() >= 0
    assert view.max() <= 1
    assert (view - batch.images).abs().mean() > 0.02
    found, standard = (o.loss(network(), batch, {}) for o in (AugMix(weight=0), Standard()))
    torch.testing.assert_close(found.total, standard.total)
    priced = AugMix(weight=12).loss(network(), batch, {})
    torch.testing.assert_close(priced.total, standard.total + 12 * priced.terms["disagreement"])


def test_an_ensemble_is_the_mean_probability_and_each_member_learns_alone(batch):
    torch.manual_seed(0)
    model = DeepEnsemble(member=MLP(hidden=(8,)), members=3)
    classifier = model.classifier(SPEC.load("train").inputs()).double()
    alone = members_of(classifier)
    expected = torch.stack([one(batch.images).softmax(1) for one in alone]).mean(0)
    torch.testing.assert_close(classifier(batch.images).softmax(1), expected)
    torch.testing.assert_close(classifier(batch.images).exp(), expected)
    assert classifier.features(batch.images).shape == (40, 24)
    objective = DeepEnsembleTraining()
    state = objective.start(classifier, batch.images, 0)
    loss = objective.loss(classifier, batch, state).total
    torch.testing.assert_close(
        loss, torch.stack([F.cross_entropy(o(batch.images), batch.labels) for o in alone]).mean()
    )
    weight = classifier.module.members[1][-1].weight
    (joint,) = torch.autograd.grad(loss, weight)
    (own,) = torch.autograd.grad(Standard().loss(alone[1], batch, {}).total, weight)
    torch.testing.assert_close(3 * joint, own)


@pytest.mark.parametrize("member", [Standard(), PGDAT(eps="1/20", steps=2)], ids=lambda o: o.name)
def test_a_trained_ensemble_is_no_worse_in_log_likelihood_than_its_members_are_on_average(member):
    objective = DeepEnsembleTraining(member=member, training=Training(epochs=10, batch_size=50, lr=5e-3))
    model = create("model", {"name": "deep-ensemble", "member": {"name": "mlp", "hidden": [32]}, "members": 3})
    run = train(model, objective, SPEC.load("train"), SPEC.load("select"), device="cpu")
    images, labels, _ = SPEC.load("test").batch(slice(None))
    with torch.no_grad():
        losses = [float(F.cross_entropy(one(images), labels)) for one in members_of(run.classifier)]
        whole = run.classifier(images)
    assert len(set(losses)) == 3
    assert float(F.cross_entropy(whole, labels)) < sum(losses) / 3
    assert (whole.argmax(1) == labels).float().mean() > 0.8
    assert "accuracy" in run.history[-1]


def test_the_ensemble_objective_refuses_other_networks(batch):
    with pytest.raises(ValueError, match="model deep-ensemble"):
        DeepEnsembleTraining().start(network(), batch.images, 0)


def test_averaged_is_stable_for_large_logits():
    logits = torch.tensor([[[1000.0, 0.0]], [[0.0, 1000.0]]])
    torch.testing.assert_close(averaged(logits).exp(), torch.tensor([[0.5, 0.5]]))
