"""Diagnostics of neural ODEs and of loss gradients, against maps whose answer is known."""

import json
import math

import pytest
import torch
from torch import nn

from robust.classifier import Classifier
from robust.datasets.digits import Digits
from robust.diagnostics.diagnostic import Measured, Subject
from robust.diagnostics.feature_map_lipschitz import FeatureMapLipschitz, logarithmic_norm, spectral_norm
from robust.diagnostics.integral_curves import IntegralCurves, first_component
from robust.diagnostics.loss_gradient_norms import LossGradientNorms, gradient_norms
from robust.diagnostics.solver_sweep import SolverSweep
from robust.diagnostics.steady_state import SteadyState
from robust.models.mlp import MLP
from robust.models.ode_blocks import MapNetwork
from robust.models.ode_cnn import ODECNN
from robust.models.ode_solver import IntegralCurve
from robust.models.odenet import ODENet
from robust.registry import create

SPEC = Digits(train=50, select=50, test=40)
SWEEP = SolverSweep.model_validate(
    {"steps": (1, 4), "tolerances": (1e-2,), "samples": 12,
     "attack": create("attack", {"name": "pgd", "norm": "linf", "eps": "1/5", "steps": 3})}
)  # fmt: skip
ALL = [
    IntegralCurves(samples=4, drawn=2),
    SteadyState(samples=4),
    SWEEP,
    FeatureMapLipschitz(samples=4, iterations=5),
    LossGradientNorms(samples=20),
]


class Rate(nn.Module):
    """f(z) = rate z."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, time, state):
        return self.rate * state


def subject_of(classifier: Classifier, **extra) -> Subject:
    return Subject(classifier.eval(), SPEC.load("train"), SPEC.load("test"), seed=0, **extra)


def linear_ode(rate: float, gain: float = 2.0) -> Subject:
    """Features gain * x, which grow as exp(rate t)."""
    torch.manual_seed(0)
    extractor = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    extractor[0].weight = nn.Parameter(torch.full((1, 1, 1, 1), gain))
    head = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return subject_of(Classifier(MapNetwork(extractor, IntegralCurve(Rate(rate), "rk4", 0.05), head)))


def values(measured: Measured, quantity: str, **where) -> list[float]:
    return [
        row["value"]
        for row in measured.rows
        if row["quantity"] == quantity and all(row.get(key) == wanted for key, wanted in where.items())
    ]


@pytest.mark.parametrize("diagnostic", ALL, ids=lambda diagnostic: diagnostic.name)
@pytest.mark.parametrize("model", [ODENet(channels=4), ODECNN(channels=4), MLP()], ids=lambda model: model.name)
def test_rows_are_plain_finite_and_repeatable_on_every_network(diagnostic, model):
    torch.manual_seed(0)
    classifier = model.classifier(SPEC.load("train").inputs())
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    subject = subject_of(classifier)
    found = diagnostic.measure(subject)
    assert found.rows
    assert json.dumps([found.rows, found.figures], allow_nan=False)
    assert all({"quantity", "value"} <= row.keys() for row in found.rows)
    assert all(len(line["x"]) == len(line["y"]) for figure in found.figures for line in figure["series"])
    assert diagnostic.measure(subject) == found
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    suits = diagnostic.name == "loss-gradient-norms" or isinstance(model, ODENet)
    suits |= diagnostic.name == "feature-map-lipschitz" and isinstance(model, ODECNN)
    assert any(row["value"] is not None for row in found.rows) == suits


@pytest.mark.parametrize("rate", [-0.8, 0.5])
def test_integral_curves_of_a_linear_ode_part_or_meet_exponentially(rate):
    found = IntegralCurves(samples=10, drawn=2).measure(linear_ode(rate))
    for kind in ("noise", "FGSM"):
        assert values(found, "distance-growth", of=kind)[0] == pytest.approx(math.exp(rate), rel=1e-4)
        start, middle, end = values(found, "neighbour-distance", of=kind)
        assert middle / start == pytest.approx(math.exp(rate), rel=1e-4)
        assert end / start == pytest.approx(math.exp(2 * rate), rel=1e-4)
        assert [row["at"] for row in found.rows if row["quantity"] == "neighbour-distance"][:3] == [0.0, 1.0, 2.0]
    curves, distances = found.figures
    assert [line["label"] for line in curves["series"]] == ["z1", "z2", "z1, noisy", "z2, noisy"]
    assert distances["series"][0]["x"][0] == 0.0
    assert distances["series"][0]["x"][-1] == 2.0


def test_the_first_component_is_the_line_that_the_states_lie_on():
    times = torch.linspace(0, 1, 5)
    states = times.view(5, 1, 1) * torch.tensor([3.0, 4.0]) + torch.zeros(5, 2, 2)
    torch.testing.assert_close(first_component(states), (5 * (times - 0.5)).double()[:, None].expand(5, 2))


def test_steady_state_of_a_linear_ode_and_of_its_snapshots():
    subject = linear_ode(-1.0)
    images = SPEC.load("test").batch(slice(0, 20))[0]
    history = [{"epoch": 1.0, "steady_state_watched": 0.5}, {"epoch": 2.0, "steady_state_watched": 0.25}]
    snapshots = {1: lambda: linear_ode(1.0).classifier, 2: lambda: linear_ode(-2.0).classifier}
    told = SteadyState(samples=20).measure(subject)
    level = 2.0 * float(images.mean())
    factor = math.exp(-1) - math.exp(-2)
    assert values(told, "steady-state-loss", of="l1-mean")[0] == pytest.approx(level * factor, rel=1e-4)
    norm = 2.0 * float(images.flatten(1).norm(dim=1).mean())
    assert values(told, "steady-state-loss", of="l2")[0] == pytest.approx(norm * factor, rel=1e-4)
    assert values(told, "speed") == pytest.approx([level, level / math.e, level / math.e**2], rel=1e-4)
    assert values(told, "speed-ratio")[0] == pytest.approx(math.exp(-2), rel=1e-4)
    assert [figure["id"] for figure in told.figures] == ["speed"]
    assert [line["label"] for line in told.figures[0]["series"]] == ["trained network", "T", "2T"]
    full = SteadyState(samples=20).measure(subject_of(subject.classifier, history=history, snapshots=snapshots))
    assert values(full, "speed-ratio", epoch=2)[0] == pytest.approx(math.exp(-4), rel=1e-4)
    assert full.figures[0]["series"][0]["y"] == [0.5, 0.25]
    lone = SteadyState(samples=20).measure(subject_of(subject.classifier, snapshots=snapshots))
    assert lone.figures[0]["series"][0]["x"] == [1.0, 2.0]


def test_the_sweep_visits_every_solver_and_leaves_the_network_as_it_was():
    torch.manual_seed(0)
    classifier = ODENet(channels=4).classifier(SPEC.load("train").inputs()).eval()
    curve = classifier.module.mapping
    before = {name: value for name, value in vars(curve).items() if not name.startswith("_")} | {"evaluations": 0}
    found = SWEEP.measure(subject_of(classifier))
    assert {k: v for k, v in vars(curve).items() if not k.startswith("_")} | {"evaluations": 0} == before
    assert values(found, "evaluations", of="euler") == [1.0, 4.0]
    assert values(found, "evaluations", of="dopri5")[0] > 6
    for solver, at in (("euler", 1.0), ("euler", 4.0), ("dopri5", 1e-2)):
        clean, attacked, transferred = (
            values(found, "accuracy", of=f"{solver} {kind}", at=at)[0] for kind in ("clean", "attacked", "transferred")
        )
        assert attacked <= clean
        assert transferred <= clean
    assert [figure["id"] for figure in found.figures] == ["euler", "dopri5"]
    curve.max_evaluations = 3
    curve.step_size = 0.5
    capped = SWEEP.measure(subject_of(classifier))
    assert values(capped, "accuracy", of="euler: the solver failed") == [None]
    assert values(capped, "accuracy", of="euler clean", at=1.0)[0] is not None


@pytest.mark.parametrize("rate", [-0.8, 0.5])
def test_lipschitz_quotients_of_a_linear_ode(rate):
    found = FeatureMapLipschitz(samples=10).measure(linear_ode(rate))
    for kind in ("noise", "FGSM"):
        assert values(found, "extractor-quotient", of=kind)[0] == pytest.approx(2.0, rel=1e-4)
        assert values(found, "map-quotient-max", of=kind)[0] == pytest.approx(math.exp(rate), rel=1e-4)
    assert values(found, "spectral-norm", of="max") == pytest.approx([abs(rate)] * 3, rel=1e-4)
    assert values(found, "logarithmic-norm", of="max") == pytest.approx([rate] * 3, rel=1e-4)


def test_power_iterations_against_a_dense_jacobian():
    torch.manual_seed(0)
    matrix = torch.randn(6, 6, dtype=torch.float64)
    start, at = torch.randn(1, 6, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64)

    def function(z):
        return z @ matrix.T

    spectral = spectral_norm(function, at, start, 500)
    assert float(spectral) == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-6)
    symmetric = torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]
    assert float(logarithmic_norm(function, at, start, spectral, 500)) == pytest.approx(float(symmetric), rel=1e-6)


def test_loss_gradient_norms_of_a_linear_model_in_closed_form():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    images, labels, _ = SPEC.load("test").batch(slice(0, 20))
    classifier, images = Classifier(module), images.double()
    weight, logits = module[1].weight, module(images)
    gradient = (logits.softmax(1) - nn.functional.one_hot(labels, 10)) @ weight
    torch.testing.assert_close(gradient_norms(classifier, images, labels, "ce"), gradient.norm(dim=1).detach())
    rival = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    expected = (weight[rival] - weight[labels]).norm(dim=1).detach()
    torch.testing.assert_close(gradient_norms(classifier, images, labels, "margin"), expected)
    found = LossGradientNorms(samples=20).measure(subject_of(classifier.float()))
    assert values(found, "gradient-norm-max", of="margin")[0] == pytest.approx(float(expected.max()), rel=1e-5)
    bars = [line for line in found.figures[0]["series"] if line.get("mark") == "histogram"]
    assert [sum(line["y"]) for line in bars] == pytest.approx([1.0, 1.0])


def test_a_saturated_network_shows_zero_gradients_for_cross_entropy_alone():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    images = SPEC.load("test").batch(slice(None))[0]
    with torch.no_grad():
        module[1].weight.mul_(1e5)
        labels = module(images).argmax(1)
    classifier = Classifier(module)
    assert float((gradient_norms(classifier, images, labels, "ce") == 0).double().mean()) > 0.9
    assert float((gradient_norms(classifier, images, labels, "margin") == 0).double().mean()) == 0.0
