"""J1, J2, Jp, Tulip and the Lipschitz excess against closed forms, finite differences and each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.losses import cross_entropy
from robust.objectives.j1 import J1
from robust.objectives.j2 import J2
from robust.objectives.jp import JP
from robust.objectives.lipschitz_excess import LipschitzExcess
from robust.objectives.objective import Batch
from robust.objectives.standard import Standard
from robust.objectives.tulip import Tulip
from robust.randomness import Randomness
from robust.sensitivity import jacobian_norms, loss_gradient_norms
from robust.threat import steepest_in

N, D, K = 6, 12, 4


def batch_of(images: Tensor, labels: Tensor) -> Batch:
    ids = torch.arange(len(images))
    return Batch(images, labels, ids, Randomness.of(0, ids, "train", 0), progress=0.5, step=3, epoch=0)


@pytest.fixture
def batch() -> Batch:
    draws = torch.Generator().manual_seed(0)
    images = 0.2 + 0.6 * torch.rand(N, 1, 3, 4, generator=draws, dtype=torch.float64)
    return batch_of(images, torch.randint(K, (N,), generator=draws))


def network(*layers: nn.Module, std: float = 0.5) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = nn.Sequential(nn.Flatten(), *(layers or (nn.Linear(D, K),)))
        for parameter in built.parameters():
            nn.init.normal_(parameter, std=0.6)
    return Classifier(built, mean=(0.3,), std=(std,), num_classes=K).double()


def linear_norms(classifier: Classifier, batch: Batch) -> Tensor:
    """|W^T (p - e_y)|_2 / std, by hand."""
    off = classifier(batch.images).softmax(1) - F.one_hot(batch.labels, K)
    return torch.linalg.vector_norm(off @ classifier.module[1].weight, dim=1) / 0.5


def test_gradient_norms_of_a_linear_network(batch):
    classifier = network()
    norms, losses, logits = loss_gradient_norms(classifier, batch.images, batch.labels)
    torch.testing.assert_close(norms, linear_norms(classifier, batch))
    torch.testing.assert_close(losses, cross_entropy(logits, batch.labels))
    alone, _, _ = loss_gradient_norms(classifier, batch.images[:1], batch.labels[:1])
    torch.testing.assert_close(norms[:1], alone)  # a sample's own, not 1/N of it
    rows = torch.linalg.vector_norm(classifier.module[1].weight, dim=1) / 0.5
    torch.testing.assert_close(jacobian_norms(classifier, batch.images)[0], rows.max().expand(N))


@pytest.mark.parametrize(
    ("objective", "order", "factor"),
    [
        (J1(eps="1/100000"), 1, 1 / math.sqrt(D)),
        (J1(eps="1/100000", length="linf"), 1, 1.0),
        (J2(eps="1/100000"), 2, 1.0),
        (JP(eps="1/100000", p=3), 1.5, 1.0),
        (JP(eps="1/100000", p=1), math.inf, 1.0),
    ],
    ids=["j1", "j1-linf", "j2", "jp-3", "jp-1"],
)
def test_a_small_step_adds_eps_times_the_dual_norm_of_the_gradient(batch, objective, order, factor):
    classifier = network(nn.Linear(D, 9), nn.Softplus(), nn.Linear(9, K))
    leaf = batch.images.clone().requires_grad_(True)
    clean = cross_entropy(classifier(leaf), batch.labels)
    (gradient,) = torch.autograd.grad(clean.sum(), leaf)
    dual = torch.linalg.vector_norm(gradient.flatten(1), ord=order, dim=1).mean()
    added = objective.loss(classifier, batch, {}).total - clean.mean()
    torch.testing.assert_close(added / (1e-5 * factor), dual, rtol=1e-3, atol=0)


def test_j1_and_j2_have_the_same_euclidean_length_and_jp_contains_both(batch):
    classifier = network(nn.Linear(D, 9), nn.Tanh(), nn.Linear(9, K))
    moved = {
        objective.name: objective.moved(classifier, batch.images, batch.labels) - batch.images
        for objective in (J1(eps="1/4"), J2(eps="1/4"), JP(eps="1/4", p=2))
    }
    for name in ("j1", "j2"):
        torch.testing.assert_close(moved[name].flatten(1).norm(dim=1), torch.full((N,), 0.25).double())
    torch.testing.assert_close(moved["jp"], moved["j2"])
    gradient = moved["j2"] / 0.25
    torch.testing.assert_close(moved["j1"], 0.25 / math.sqrt(D) * steepest_in(gradient, math.inf))


def test_clamping_is_off_unless_asked_for(batch):
    classifier = network()
    assert J2(eps=5).moved(classifier, batch.images, batch.labels).abs().max() > 1
    inside = J2(eps=5, clamp=True).moved(classifier, batch.images, batch.labels)
    assert inside.min() >= 0
    assert inside.max() <= 1


def test_the_step_is_taken_in_eval_mode_and_leaves_averages_alone(batch):
    classifier = network(nn.Linear(D, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, K)).train()
    before = classifier.module[2].running_mean.clone()
    whole = J2().moved(classifier, batch.images, batch.labels)
    assert torch.equal(classifier.module[2].running_mean, before)
    assert classifier.module[2].training
    torch.testing.assert_close(J2().moved(classifier, batch.images[:2], batch.labels[:2]), whole[:2])


def test_tulip_is_j2_plus_lambda_times_the_largest_norm(batch):
    classifier = network()
    largest = linear_norms(classifier, batch).max()
    plain = J2(eps=0).loss(classifier, batch, {}).total
    paper = Tulip(eps=0, penalty=0.7).loss(classifier, batch, {})
    torch.testing.assert_close(paper.total - plain, 0.7 * largest)
    torch.testing.assert_close(paper.terms["largest_loss_gradient"], largest.detach())
    assert paper.terms["batch_size"] == N
    code = Tulip(eps=0, penalty=0.7, scaling="code").loss(classifier, batch, {}).total
    torch.testing.assert_close(code - plain, 0.7 / N * largest)


def test_the_codes_scaling_is_the_gradient_of_the_mean_loss(batch):
    classifier = network(nn.Linear(D, 9), nn.Tanh(), nn.Linear(9, K))
    leaf = batch.images.clone().requires_grad_(True)
    loss = F.cross_entropy(classifier(leaf), batch.labels)
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    expected = loss + 0.1 * gradient.flatten(1).norm(dim=1).max()
    torch.testing.assert_close(Tulip(eps=0, scaling="code").loss(classifier, batch, {}).total, expected)


def test_where_the_norm_is_taken(batch):
    classifier = network(nn.Linear(D, 9), nn.Tanh(), nn.Linear(9, K))
    moved = J2(eps=1).moved(classifier, batch.images, batch.labels)
    fit = F.cross_entropy(classifier(moved), batch.labels)
    for at, points in (("moved", moved), ("images", batch.images)):
        norms, _, _ = loss_gradient_norms(classifier, points, batch.labels)
        found = Tulip(eps=1, penalty=2, at=at).loss(classifier, batch, {}).total
        torch.testing.assert_close(found, fit + 2 * norms.max())


@pytest.mark.parametrize(
    "objective",
    [
        Tulip(eps=0, penalty=3),
        LipschitzExcess(penalty=3),
        LipschitzExcess(penalty=3, estimate="logits", allowance=0.1),
    ],
    ids=["tulip", "excess-loss", "excess-logits"],
)
def test_double_backpropagation_equals_finite_differences(batch, objective):
    classifier = network(nn.Linear(D, 9), nn.Softplus(), nn.Linear(9, K))
    parameters = list(classifier.parameters())
    gradients = torch.autograd.grad(objective.loss(classifier, batch, {}).total, parameters)
    directions = [torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).double() for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))

    def at(step: float) -> Tensor:
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=step)
        found = objective.loss(classifier, batch, {}).total.detach()
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.sub_(direction, alpha=step)
        return found

    torch.testing.assert_close(slope, (at(1e-5) - at(-1e-5)) / 2e-5, rtol=1e-6, atol=1e-8)


def test_excess_is_free_up_to_the_allowance_and_priced_beyond(batch):
    classifier = network()
    constant = float(torch.linalg.vector_norm(classifier.module[1].weight.detach(), dim=1).max() / 0.5)
    fit = F.cross_entropy(classifier(batch.images), batch.labels)
    for allowance in (0.5 * constant, 2 * constant):
        found = LipschitzExcess(penalty=0.7, allowance=allowance, estimate="logits").loss(classifier, batch, {})
        torch.testing.assert_close(found.total, fit + 0.7 * max(0.0, constant - allowance))
        assert float(found.terms["lipschitz"]) == pytest.approx(constant)


@pytest.mark.parametrize("objective", [J1(eps=0), J2(eps=0), JP(eps=0), Tulip(eps=0, penalty=0)], ids=lambda o: o.name)
def test_without_step_and_price_all_are_standard_training(batch, objective):
    classifier = network(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K))
    found, standard = (o.loss(classifier, batch, {}).total for o in (objective, Standard()))
    torch.testing.assert_close(found, standard)
    found.backward()  # the graph is whole


def test_no_norm_below_one():
    with pytest.raises(ValueError, match="p"):
        JP(p=0.5)
    with pytest.raises(ValueError, match="eps"):
        J2(eps=-1)
