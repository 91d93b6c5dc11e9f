import pytest
import torch
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.diagnostics.diagnostic import Subject
from robust.diagnostics.homogeneity import HomogeneityCheck, degree, homogeneity
from robust.models.homogeneous_mlp import HomogeneousMLP
from robust.models.mlp import MLP


def chain(*middle: nn.Module, bias: bool = False) -> Classifier:
    torch.manual_seed(1)
    layers = [nn.Flatten(), nn.Linear(16, 8, bias=bias), *middle, nn.Linear(8, 3, bias=False)]
    return Classifier(nn.Sequential(*layers), num_classes=3)


class Residual(nn.Module):
    """x + W x: degrees d and d + 1."""

    def __init__(self, gain: bool) -> None:
        super().__init__()
        self.inside = nn.Linear(8, 8, bias=False)
        self.skip = nn.Linear(8, 8, bias=False) if gain else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.inside(x)


IMAGES = torch.rand(5, 1, 4, 4)
HOMOGENEOUS = [
    ((nn.ReLU(),), 2),
    ((nn.LeakyReLU(0.1), nn.Linear(8, 8, bias=False), nn.ReLU()), 3),
    ((nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.MaxPool2d(1), nn.Flatten()), 3),
    ((Residual(gain=True),), 3),
    ((nn.Dropout(0.5),), 2),
]
BROKEN = [
    ((nn.Tanh(),), "2 (Tanh) is not positively homogeneous"),
    ((nn.GELU(),), "2 (GELU) is not positively homogeneous"),
    ((nn.BatchNorm1d(8),), "2 (BatchNorm1d) normalises"),
    ((nn.GroupNorm(2, 8),), "2 (GroupNorm) normalises"),
    ((nn.LayerNorm(8),), "2 (LayerNorm) normalises"),
    ((nn.ReLU(), nn.Linear(8, 8)), "3 (Linear) has a bias behind other layers: W x is of degree 2"),
    ((nn.PReLU(),), "2 (PReLU) has a slope among the weights"),
    ((Residual(gain=False),), "what reaches 3 (Linear) mixes degrees"),
]


@pytest.mark.parametrize(("middle", "expected"), HOMOGENEOUS)
@pytest.mark.parametrize("bias", [False, True])
def test_finds_the_degree(middle, expected, bias):
    found = homogeneity(chain(*middle, bias=bias), IMAGES)
    assert (found.degree, found.breaks) == (expected, "")
    assert found.error < 1e-12


@pytest.mark.parametrize(("middle", "reason"), BROKEN, ids=[reason for _, reason in BROKEN])
def test_names_the_layer_that_breaks_it(middle, reason):
    classifier = chain(*middle)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    found = homogeneity(classifier, IMAGES)
    assert found.degree is None
    assert reason in found.breaks
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_a_bias_that_is_zero_by_chance_is_found_too():
    classifier = chain(nn.ReLU(), nn.Linear(8, 8))
    nn.init.zeros_(classifier.module[3].bias)
    assert "3 (Linear) has a bias" in homogeneity(classifier, IMAGES).breaks
    assert degree(chain(nn.ReLU()), IMAGES) == 2


def test_scaling_is_exact_for_powers_of_two():
    classifier = chain(nn.ReLU(), nn.Linear(8, 8, bias=False), nn.ReLU()).double()
    logits = classifier(IMAGES.double())
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.mul_(4)
    assert torch.equal(classifier(IMAGES.double()), 64 * logits)


def test_a_network_that_ignores_its_weights_is_no_homogeneous_one():
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :3]

    assert "do not depend on the weights" in homogeneity(Classifier(Constant()), IMAGES).breaks


@pytest.mark.parametrize(
    ("model", "met"),
    [
        (HomogeneousMLP(hidden=(8,)), {"homogeneous": 1.0, "no bias": 1.0, "twice differentiable": 0.0}),
        (MLP(hidden=(8,)), {"homogeneous": 0.0, "no bias": 0.0, "twice differentiable": 0.0}),
    ],
)
def test_the_table_says_which_assumptions_hold(model, met):
    train = Digits(train=50, select=20).load("train")
    torch.manual_seed(0)
    classifier = model.classifier(train.inputs())
    rows = HomogeneityCheck().measure(Subject(classifier, train, train)).rows
    table = {row["of"]: row["value"] for row in rows if row["quantity"] == "assumption"}
    assert {name: table[name] for name in met} == met
    assert table["separated"] == 0.0
    reasons = {row["of"]: row["detail"] for row in rows if row["quantity"] == "assumption"}
    assert ("has a bias" in reasons["homogeneous"]) == isinstance(model, MLP)
