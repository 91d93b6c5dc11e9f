import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.losses import cross_entropy
from robust.models.mlp import MLP
from robust.objectives.gaussian_noise import GaussianNoise
from robust.objectives.objective import Batch, Training
from robust.objectives.pgd_at import PGDAT
from robust.objectives.standard import Standard
from robust.objectives.trades import TRADES, divergence
from robust.randomness import Randomness
from robust.training import Trained, train

ADVERSARIAL = [PGDAT(eps="1/10", steps=4), TRADES(eps="1/10", steps=4)]


def batch_of(images: torch.Tensor, labels: torch.Tensor, progress: float = 0.9) -> Batch:
    ids = torch.arange(len(images))
    return Batch(images, labels, ids, Randomness.of(0, ids, "train", 0), progress=progress, step=0, epoch=0)


@pytest.fixture
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels, _ = Digits(train=64).load("train").batch(slice(None))
    return images.double(), labels


def network(seed: int = 0, *layers: nn.Module) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(nn.Sequential(nn.Flatten(), *(layers or (nn.Linear(64, 10),)))).double()


def fit(objective, epochs: int = 20, samples: int = 500) -> Trained:
    spec = Digits(train=samples, select=200)
    training = Training(epochs=epochs, batch_size=50, lr=5e-3)
    objective = objective.model_copy(update={"training": training})
    return train(MLP(hidden=(64,)), objective, spec.load("train"), spec.load("select"), device="cpu", threads=1)


def accuracy(trained: Trained, objective) -> float:
    images, labels, ids = Digits(test=200).load("test").batch(slice(None))
    with trained.classifier.frozen():
        right = objective.selection(trained.classifier, images, labels, Randomness.of(0, ids, "test"))
    return float(right.float().mean())


def test_standard_is_cross_entropy(digits):
    images, labels = digits
    classifier = network()
    loss = Standard().loss(classifier, batch_of(images, labels), {})
    torch.testing.assert_close(loss.total, F.cross_entropy(classifier(images), labels))
    smooth = Standard(label_smoothing=0.3).loss(classifier, batch_of(images, labels), {}).total
    log = F.log_softmax(classifier(images), dim=1)
    torch.testing.assert_close(smooth, -(0.7 * log.gather(1, labels[:, None])[:, 0] + 0.03 * log.sum(1)).mean())


def test_gaussian_noise_has_the_levels_and_the_share_it_says():
    images = torch.full((4000, 1, 8, 8), 0.5)
    objective = GaussianNoise(sigmas=("1/100", "5/100"), share=0.25)
    noisy, levels = objective.noised(images, Randomness.of(0, range(4000)))
    assert sorted(levels.unique().tolist()) == pytest.approx([0, 0.01, 0.05])
    assert float((levels > 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float((levels > 0.03).float().sum() / (levels > 0).sum()) == pytest.approx(0.5, abs=0.06)
    assert torch.equal(noisy[levels == 0], images[levels == 0])
    assert float((noisy - images)[levels > 0.03].std()) == pytest.approx(0.05, rel=0.02)
    assert noisy.min() >= 0
    assert noisy.max() <= 1


def test_gaussian_noise_belongs_to_the_sample_and_not_to_its_batch():
    images, rng = torch.rand(6, 1, 4, 4), Randomness.of(3, range(6))
    whole, _ = GaussianNoise().noised(images, rng)
    alone, _ = GaussianNoise().noised(images[2:3], rng.select([2]))
    assert torch.equal(whole[2:3], alone)


@pytest.mark.parametrize(("norm", "eps"), [("linf", "1/10"), ("l2", "1/2"), ("l1", "2")])
@pytest.mark.parametrize("kind", [PGDAT, TRADES])
def test_the_inner_attack_stays_in_the_ramped_ball_and_raises_the_loss(digits, kind, norm, eps):
    images, labels = digits
    classifier = network(0, nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    objective = kind(norm=norm, eps=eps, steps=5, warmup=0.5)
    rng = Randomness.of(0, range(len(images)))
    for progress, share in ((0.0, 0.0), (0.25, 0.5), (0.7, 1.0)):
        ramp = objective.ramp(progress)
        assert ramp == share
        attacked = objective.maximise(classifier, images, cross_entropy, labels, rng, ramp)
        assert objective.threat.distance(attacked, images).max() <= share * float(objective.eps) + 1e-9
        assert attacked.min() >= 0
        assert attacked.max() <= 1
    gain = cross_entropy(classifier(attacked), labels) - cross_entropy(classifier(images), labels)
    assert (gain > 0).double().mean() > 0.8  # a step in l1 moves one pixel
    assert gain.mean() > 0.01


def test_the_inner_attack_finds_the_worst_case_of_a_linear_two_class_network():
    classifier = network(0, nn.Linear(12, 2))
    images = 0.3 + 0.4 * torch.rand(5, 1, 3, 4, dtype=torch.float64)  # far enough inside the box
    labels = torch.tensor([0, 1, 0, 1, 1])
    objective = PGDAT(eps="1/10", steps=10, warmup=0)
    attacked = objective.maximise(classifier, images, cross_entropy, labels, Randomness.of(0, range(5)), ramp=1.0)
    weight = classifier.module[1].weight
    direction = (weight[1] - weight[0]).sign().view(1, 3, 4) * (1 - 2 * labels).view(-1, 1, 1, 1)
    torch.testing.assert_close(attacked, (images + 0.1 * direction).detach())


@pytest.mark.parametrize("objective", ADVERSARIAL, ids=lambda o: o.name)
def test_the_inner_attack_touches_neither_weights_nor_averages_nor_mode(digits, objective):
    images, labels = digits
    classifier = network(0, nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)).train()
    before = {name: value.clone() for name, value in classifier.module.state_dict().items()}
    rng = Randomness.of(0, range(len(images)))
    whole = objective.maximise(classifier, images, cross_entropy, labels, rng, 1.0)
    assert classifier.training
    assert all(p.grad is None and p.requires_grad for p in classifier.parameters())
    assert all(torch.equal(before[name], value) for name, value in classifier.module.state_dict().items())
    alone = objective.maximise(classifier, images[:3], cross_entropy, labels[:3], rng.select([0, 1, 2]), 1.0)
    torch.testing.assert_close(whole[:3], alone, rtol=0, atol=1e-12)


def test_pgd_at_at_radius_zero_is_standard_training(digits):
    classifier, batch = network(), batch_of(*digits, progress=0.0)
    assert PGDAT(warmup=0.5).loss(classifier, batch, {}).total == Standard().loss(classifier, batch, {}).total


def test_trades_is_its_formula(digits):
    images, labels = digits
    classifier, batch = network(), batch_of(*digits)
    objective = TRADES(eps="1/10", steps=4, beta=3)
    with torch.no_grad():
        believed = F.log_softmax(classifier(images), dim=1)
    attacked = objective.maximise(classifier, images, divergence, believed, batch.rng, 1.0)
    p, q = F.softmax(classifier(images), dim=1), F.softmax(classifier(attacked), dim=1)
    expected = F.cross_entropy(classifier(images), labels) + 3 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(objective.loss(classifier, batch, {}).total, expected)
    assert (divergence(classifier(attacked), believed) > 0).all()


def test_trades_without_a_price_is_standard_training(digits):
    classifier, batch = network(), batch_of(*digits)
    trades = TRADES(beta=0, steps=1).loss(classifier, batch, {}).total
    assert trades == Standard().loss(classifier, batch, {}).total


@pytest.mark.parametrize("objective", [PGDAT(eps="1/8", steps=5), TRADES(eps="1/8", steps=5)], ids=lambda o: o.name)
def test_adversarial_training_raises_accuracy_under_attack_far_above_standard(objective):
    judge = PGDAT(eps="1/8", steps=20)
    standard, robust = fit(Standard()), fit(objective)
    assert accuracy(robust, judge) > accuracy(standard, judge) + 0.2
    assert accuracy(robust, Standard()) > 0.85
    assert accuracy(robust, judge) <= accuracy(robust, Standard())


def test_noise_training_raises_accuracy_under_noise():
    images, labels, ids = Digits(test=300).load("test").batch(slice(None))
    noisy = (images + 0.8 * Randomness.of(1, ids).normal(images.shape[1:])).clamp(0, 1)
    found = []
    for objective in (Standard(), GaussianNoise(sigmas=("4/10", "8/10"), share=1)):
        with torch.no_grad():  # the loop turns gradients on by itself
            found.append(
                float((fit(objective, epochs=12, samples=1000).classifier(noisy).argmax(1) == labels).float().mean())
            )
    assert found[1] > found[0] + 0.03


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"eps": "3/2"}, "eps"),
        ({"eps": 0}, "eps"),
        ({"steps": 0}, "steps"),
        ({"norm": "l3"}, "norm"),
        ({"warmup": 2}, "warmup"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, field):
    with pytest.raises(ValueError, match=field):
        PGDAT(**settings)


def test_settings_from_a_study_file_are_read_exactly():
    objective = PGDAT.model_validate({"norm": "linf", "eps": "3/10", "steps": 7, "training": {"epochs": 8}})
    assert str(objective.threat) == str(PGDAT(eps=0.3).threat)
    assert objective.settings()["eps"] == "3/10"
    assert objective.training.epochs == 8
