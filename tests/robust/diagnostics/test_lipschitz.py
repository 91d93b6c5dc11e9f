import copy
import math

import pytest
import torch
from torch import nn

from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.diagnostics.diagnostic import Subject
from robust.diagnostics.lipschitz import (
    certified_distance,
    gradient_norms,
    jacobian_rows,
    layer_constants,
    local_lipschitz,
    product_bound,
    spectral_norm,
)
from robust.diagnostics.local_lipschitz import LocalLipschitz
from robust.diagnostics.margin_lipschitz_bound import MarginLipschitzBound
from robust.diagnostics.stages import l2_distances
from robust.models.mlp import MLP
from robust.models.wrn import WideResNet
from robust.objectives.objective import Training
from robust.objectives.standard import Standard
from robust.randomness import Randomness
from robust.training import train


def matrix_of(layer: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """The layer's linear part as a matrix, column by column."""
    layer = copy.deepcopy(layer).double()
    basis = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        return (layer(basis) - layer(torch.zeros(1, *shape, dtype=torch.float64))).flatten(1).T


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Linear(7, 4), (7,)),
        (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 6, 5)),
        (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 9, 8)),
        (lambda: nn.Conv2d(2, 3, 4, stride=2, padding=1, bias=False), (2, 6, 6)),
        (lambda: nn.ConvTranspose2d(2, 3, 4, stride=2), (2, 4, 4)),
        (lambda: nn.ConvTranspose2d(2, 3, 4, stride=2), (2, 8, 8)),
        (lambda: nn.AvgPool2d(2), (1, 6, 6)),
        (lambda: nn.AvgPool2d(2), (1, 10, 10)),  # all singular values are one
        (lambda: nn.AvgPool2d(3, stride=1), (1, 9, 9)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_spectral_norms_equal_the_largest_singular_value(layer, shape, seed):
    torch.manual_seed(seed)
    layer = layer()
    exact = float(torch.linalg.matrix_norm(matrix_of(layer, shape), ord=2))
    assert spectral_norm(layer, shape) == pytest.approx(exact, rel=1e-9)


def test_a_layer_without_weight_has_norm_0():
    layer = nn.Conv2d(2, 3, 3, padding=1)
    nn.init.zeros_(layer.weight)
    assert spectral_norm(layer, (2, 9, 9)) == 0.0


def linear_net() -> tuple[Classifier, torch.Tensor]:
    """A linear map of two layers, logits = A x, behind a normalisation with std 1/2."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 6, bias=False), nn.Linear(6, 3, bias=False))
    classifier = Classifier(module, mean=(0.5,), std=(0.5,), num_classes=3).requires_grad_(False)
    return classifier, (2 * module[2].weight @ module[1].weight).double()


def test_constants_of_a_linear_net_in_closed_form():
    classifier, matrix = linear_net()
    images, labels = torch.rand(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    constants = layer_constants(classifier, images[0])
    assert [each.type for each in constants] == ["Classifier", "Flatten", "Linear", "Linear"]
    assert constants[0].constant == 2.0
    assert product_bound(constants) >= float(torch.linalg.matrix_norm(matrix, ord=2))
    logits = classifier(images)
    second = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    expected = (matrix[labels] - matrix[second]).norm(dim=1)
    assert torch.allclose(gradient_norms(classifier, images, labels), expected, rtol=1e-5)
    rng = Randomness.of(0, range(6))
    around = local_lipschitz(classifier, images, labels, rng, radius=0.3, draws=4)
    assert (around >= gradient_norms(classifier, images, labels)).all()  # another runner-up may be steeper
    assert torch.allclose(jacobian_rows(classifier, images), matrix.norm(dim=1).expand(6, 3), rtol=1e-5)


def test_what_is_no_chain_has_no_bound():
    inputs = Digits(train=30, select=20).load("train").inputs()
    classifier = WideResNet(depth=10, widen=1).classifier(inputs)
    constants = layer_constants(classifier, torch.rand(1, 8, 8))
    assert product_bound(constants) is None
    assert constants[-1].type == "_Block"


def test_rules_of_the_elementwise_layers_and_of_pooling():
    module = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2), nn.LeakyReLU(2.0), nn.MaxPool2d(3, 2),
                           nn.Sigmoid(), nn.Flatten(), nn.Linear(2, 2))  # fmt: skip
    module[1].running_var.fill_(4.0)
    found = [each.constant for each in layer_constants(Classifier(module).eval(), torch.rand(1, 3, 3))]
    assert found[2:6] == pytest.approx([0.5, 2.0, 2.0, 0.25], rel=1e-4)


@pytest.fixture(scope="module")
def digits_net() -> tuple[Subject, Classifier]:
    spec = Digits(train=300, select=50, test=100)
    objective = Standard(training=Training(epochs=8, batch_size=50, lr=5e-3))
    splits = spec.load("train"), spec.load("select")
    trained = train(MLP(hidden=(32,)), objective, *splits, device="cpu", threads=1)
    classifier = trained.classifier.requires_grad_(False)
    return Subject(classifier, splits[0], spec.load("test"), history=trained.history), classifier


def test_no_attack_undercuts_the_certified_distance(digits_net):
    subject, classifier = digits_net
    images, labels, ids = subject.test.batch(slice(0, 60))
    bound = product_bound(layer_constants(classifier, images[0]))
    certified = certified_distance(classifier, images, labels, bound)
    attacked = l2_distances(classifier, images, labels, Randomness.of(0, ids, "test"), steps=60)
    assert (certified <= attacked * (1 + 1e-6)).all()
    assert ((certified == 0) == (attacked == 0)).all()
    assert float(certified.median()) > 0.02 * float(attacked.median())


def test_for_a_linear_net_the_attacked_distance_is_the_distance():
    classifier, _ = linear_net()
    images = 0.3 + 0.4 * torch.rand(8, 1, 4, 4)
    labels = classifier(images).argmax(1)
    logits = classifier(images).double()
    matrix = linear_net()[1]
    gaps = logits.gather(1, labels[:, None]) - logits
    apart = (matrix[labels][:, None] - matrix[None]).norm(dim=2)
    exact = (gaps / apart.clamp_min(1e-30)).scatter(1, labels[:, None], math.inf).amin(1)
    attacked = l2_distances(classifier, images, labels, Randomness.of(0, range(8)), steps=300)
    assert (attacked >= exact * (1 - 1e-4)).all()
    assert (attacked <= exact * 1.1).all()


def test_rows_of_local_lipschitz(digits_net):
    subject, _ = digits_net
    measured = LocalLipschitz(samples=20, draws=2).measure(subject)
    found = {(row["quantity"], row.get("of")): row["value"] for row in measured.rows}
    bound = found["product bound", None]
    assert 0 < found["local lipschitz, median", "test"] <= found["local lipschitz, largest", "test"]
    assert found["local lipschitz, largest", "test"] <= math.sqrt(2) * bound
    assert found["jacobian 2-inf", "test"] <= bound
    assert measured.rows == LocalLipschitz(samples=20, draws=2).measure(subject).rows


def test_rows_of_the_bound(digits_net):
    subject, _ = digits_net
    measured = MarginLipschitzBound(samples=40, steps=40, draws=2).measure(subject)
    found = {(row["quantity"], row.get("of")): row["value"] for row in measured.rows}
    assert found["share undercut by the attack", "certified"] == 0
    assert 0 < found["gap / L, median", "certified"] < found["gap / L, median", "estimate"]
    assert found["spearman with distance", "estimate"] > 0.5
    assert all(row["value"] is None or math.isfinite(row["value"]) for row in measured.rows)
    assert [series["label"] for series in measured.figures[0]["series"]] == ["estimate", "certified"]
