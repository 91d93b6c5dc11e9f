"""The neural-ODE family: published sizes, the solver against closed forms and torchdiffeq, what it declares."""

import math

import pytest
import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

from robust.diagnostics.loops import checks, refined
from robust.models.denoising import FeatureDenoising
from robust.models.model import Inputs
from robust.models.ode_blocks import Derivative, map_network
from robust.models.ode_cnn import ODECNN
from robust.models.ode_solver import IntegralCurve, SolverError
from robust.models.odenet import ODENet
from robust.models.tisode import TisODENet
from robust.randomness import Randomness
from robust.registry import create

MNIST = Inputs(shape=(1, 28, 28), num_classes=10, mean=(0.1307,), std=(0.3081,))
TINY = Inputs(shape=(1, 8, 8), num_classes=10, mean=(0.5,), std=(0.5,))


class Linear(nn.Module):
    """dz/dt = rate z + slope t."""

    def __init__(self, rate: float, slope: float = 0.0) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, dtype=torch.float64))
        self.slope = slope

    def forward(self, time, state):
        return self.rate * state + self.slope * time


def start(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


@pytest.mark.parametrize(("model", "weights"), [(ODENet, 142_410), (TisODENet, 141_130), (ODECNN, 141_130)])
def test_the_published_sizes_and_one_step_of_each(model, weights):
    torch.manual_seed(0)
    classifier = model().classifier(MNIST)
    network = classifier.module
    assert sum(p.numel() for p in network.parameters()) == weights
    images, labels = torch.rand(4, 1, 28, 28), torch.tensor([0, 1, 2, 3])
    assert network.extractor(images).shape == (4, 64, 13, 13)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=5e-4)
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(classifier(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]


def test_the_cpu_size_is_the_pilots():
    assert sum(p.numel() for p in ODECNN(channels=16, pool=4).build(MNIST).parameters()) == 11_578


@pytest.mark.parametrize(("shape", "side"), [((3, 32, 32), 15), ((3, 128, 128), 15), ((1, 8, 8), 3), ((3, 64, 64), 15)])
@pytest.mark.parametrize("name", ["odenet", "tisode", "ode-cnn"])
def test_other_image_sizes(name, shape, side):
    inputs = Inputs(shape=shape, num_classes=7, mean=(0.5,) * shape[0], std=(0.5,) * shape[0])
    network = create("model", {"name": name, "channels": 8}).build(inputs)
    images = torch.rand(2, *shape)
    assert network(images).shape == (2, 7)
    assert network.extractor(images).shape[2:] == (side, side)


def test_images_enter_unnormalised_and_tiny_ones_are_refused():
    classifier = ODECNN(channels=4).classifier(MNIST)
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(classifier(images), classifier.module(images))
    with pytest.raises(ValueError, match="at least 4 x 4"):
        ODENet().build(Inputs(shape=(1, 3, 9), num_classes=2, mean=(0.0,), std=(1.0,)))


def test_without_normalisation_and_with_repeats():
    torch.manual_seed(0)
    bare = ODECNN(channels=4, norm="none").build(TINY)
    assert not any(isinstance(layer, nn.GroupNorm) for layer in bare.modules())
    deep = ODECNN(channels=4, repeats=3).build(TINY)
    z = torch.rand(2, 4, 3, 3)
    f = deep.mapping.derivative
    with torch.no_grad():
        by_hand = z
        for _ in range(3):
            by_hand = by_hand + f(0.0, by_hand)
        torch.testing.assert_close(deep.mapping(z), by_hand)


def test_the_time_channel_reaches_f_only_where_it_is_wanted():
    torch.manual_seed(0)
    z = torch.rand(2, 4, 5, 5)
    with torch.no_grad():
        timed, free = Derivative(4, "group", timed=True), Derivative(4, "group", timed=False)
        assert not torch.equal(timed(0.0, z), timed(1.0, z))
        assert torch.equal(free(0.0, z), free(1.0, z))


@pytest.mark.parametrize(("solver", "error"), [("euler", 0.02), ("rk4", 1e-7), ("dopri5", 1e-5)])
def test_exponential_growth(solver, error):
    curve = IntegralCurve(Linear(0.7), solver, step_size=0.02, final_time=1.5, rtol=1e-8, atol=1e-8)
    found = curve(start(1.0, -2.0))
    torch.testing.assert_close(found, start(1.0, -2.0) * math.exp(0.7 * 1.5), rtol=error, atol=error)


@torch.no_grad()
def test_euler_is_the_compound_interest_formula_and_rk4_has_order_four():
    assert float(IntegralCurve(Linear(1.0), "euler", 0.1)(start(1.0))) == pytest.approx(1.1**10, rel=1e-12)
    errors = [abs(float(IntegralCurve(Linear(1.0), "rk4", h)(start(1.0))) - math.e) for h in (0.2, 0.1)]
    assert 12 < errors[0] / errors[1] < 20
    # dz/dt = t: exact for rk4, late by half a step for Euler
    clock = Linear(0.0, slope=1.0)
    assert float(IntegralCurve(clock, "rk4", 0.5)(start(0.0))) == pytest.approx(0.5, abs=1e-12)
    assert float(IntegralCurve(clock, "euler", 0.1)(start(0.0))) == pytest.approx(0.45, abs=1e-12)


@pytest.mark.parametrize("solver", ["euler", "rk4", "dopri5"])
def test_the_integral_of_the_speed(solver):
    # z = exp(-t) z0: the integral of |f| over [1, 2] is |z0| (exp(-1) - exp(-2)); z(1) does not see the window
    curve = IntegralCurve(Linear(-1.0), solver, step_size=1e-3, rtol=1e-9, atol=1e-9, max_evaluations=10_000)
    z0 = start(3.0, -2.0)
    final, mass = curve.with_mass(z0, 1.0, 2.0)
    torch.testing.assert_close(final, z0 * math.exp(-1), rtol=2e-3, atol=0)
    torch.testing.assert_close(mass, z0.abs() * (math.exp(-1) - math.exp(-2)), rtol=2e-3, atol=0)
    torch.testing.assert_close(final, curve(z0), rtol=1e-7, atol=0)
    # a window that begins before T, as in the authors' logged run, and one that ends before it
    torch.testing.assert_close(
        curve.with_mass(z0, 0.9, 1.5)[1], z0.abs() * (math.exp(-0.9) - math.exp(-1.5)), rtol=2e-3, atol=0
    )
    early, mass = curve.with_mass(z0, 0.0, 0.5)
    torch.testing.assert_close(mass, z0.abs() * (1 - math.exp(-0.5)), rtol=2e-3, atol=0)
    torch.testing.assert_close(early, final, rtol=1e-7, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("solver", ["euler", "rk4", "dopri5"])
def test_where_f_is_never_negative_the_way_travelled_is_the_integral_of_the_speed(solver):
    torch.manual_seed(0)
    curve = ODENet(channels=4, solver=solver).build(TINY).double().mapping
    z = torch.rand(2, 4, 3, 3, dtype=torch.float64)
    final, way = curve.with_mass(z, 0.9, 1.5)
    curve.derivative.nonnegative = False
    slow, mass = curve.with_mass(z, 0.9, 1.5)
    assert curve.derivative(0.3, z).min() >= 0
    torch.testing.assert_close(final, slow, rtol=1e-2, atol=1e-2)  # dopri5 weighs the error of the integral as well
    torch.testing.assert_close(way, mass, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["odenet", "tisode"])
@pytest.mark.parametrize("solver", ["euler", "rk4", "dopri5"])
def test_values_and_gradients_are_torchdiffeqs(name, solver):
    torch.manual_seed(0)
    curve = create("model", {"name": name, "channels": 4, "solver": solver}).build(TINY).double().mapping
    z = torch.rand(3, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    options = {} if solver == "dopri5" else {"options": {"step_size": curve.step_size}}
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    theirs = odeint(curve.derivative, z, times, method=solver, rtol=1e-3, atol=1e-3, **options)[-1]
    ours = curve(z)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), [z, *curve.parameters()]),
        torch.autograd.grad(theirs.square().sum(), [z, *curve.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_the_adjoint_is_torchdiffeqs_and_comes_near_the_exact_gradient(solver):
    torch.manual_seed(0)
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    settings = {"solver": solver, "channels": 4, **tolerance, "adjoint": True, "max_evaluations": 10_000}
    curve = TisODENet(**settings).build(TINY).double().mapping
    z = torch.rand(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    found = torch.autograd.grad(curve(z).square().sum(), [z, *curve.parameters()])
    times, options = torch.tensor([0.0, 1.0], dtype=torch.float64), {"step_size": curve.step_size}
    fixed = {} if solver == "dopri5" else {"options": options}
    theirs = odeint_adjoint(curve.derivative, z, times, method=solver, **tolerance, **fixed)[-1]
    expected = torch.autograd.grad(theirs.square().sum(), [z, *curve.parameters()])
    curve.adjoint = False
    exact = torch.autograd.grad(curve(z).square().sum(), [z, *curve.parameters()])
    for ours, adjoint in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, adjoint, rtol=1e-9, atol=1e-9)
    ours, plain = (torch.cat([part.flatten() for part in parts]) for parts in (found, exact))
    assert torch.cosine_similarity(ours, plain, dim=0) > 0.95  # f has kinks, where the way back goes astray


def test_evaluations_are_counted_and_capped():
    z = torch.rand(2, 4, 3, 3)
    for name, solver, count in (("odenet", "euler", 10), ("tisode", "euler", 20), ("tisode", "rk4", 80)):
        curve = create("model", {"name": name, "channels": 4, "solver": solver}).build(TINY).mapping
        runs = []
        curve.derivative.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        curve(z)
        assert curve.evaluations == len(runs) == count
    curve.solver = "euler"
    curve.with_mass(z, 1.0, 2.0)
    assert curve.evaluations == 40
    capped = TisODENet(channels=4, max_evaluations=5).build(TINY)
    with pytest.raises(SolverError, match="max_evaluations = 5"):
        capped(torch.rand(1, 1, 8, 8))
    stiff = IntegralCurve(Linear(-1e6), "dopri5", rtol=1e-9, atol=1e-9, max_evaluations=200)
    with pytest.raises(SolverError, match="dopri5 needs more than max_evaluations = 200"):
        stiff(start(1.0))
    with pytest.raises(SolverError, match="dopri5 failed after"):
        IntegralCurve(Linear(math.nan), "dopri5")(start(1.0))


def test_recording_keeps_what_train_mode_passes_leave_and_nothing_afterwards():
    torch.manual_seed(0)
    network = TisODENet(channels=4).build(TINY)
    images = torch.rand(2, 1, 8, 8)
    plain = network(images)
    with network.mapping.recording(1.0, 2.0) as recorded:
        torch.testing.assert_close(network(images), plain)
        network.eval()
        network(images)
        network.train()
    assert len(recorded) == 1
    torch.testing.assert_close(recorded[0], network.mapping.with_mass(network.extractor(images), 1.0, 2.0)[1])
    network(images)
    assert network.mapping.recorded == []


def test_a_sample_does_not_depend_on_its_batch_under_fixed_steps():
    torch.manual_seed(0)
    network = ODENet(channels=4, denoising="gaussian").build(TINY).double()
    images = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(network(images)[2:3], network(images[2:3]), rtol=1e-12, atol=1e-12)


def test_adaptive_solvers_declare_a_fixed_step_substitute_that_shares_the_weights():
    torch.manual_seed(0)
    assert ODENet(channels=4).classifier(TINY).views() == {}
    classifier = ODENet(channels=4, solver="dopri5", rtol=1e-6, atol=1e-6).classifier(TINY)
    substitute = classifier.views()["substitute"]
    assert substitute.module.mapping.solver == "rk4"
    assert classifier.module.mapping.solver == "dopri5"
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(substitute(images), classifier(images), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        next(classifier.parameters()).add_(1.0)
    torch.testing.assert_close(substitute(images), classifier(images), rtol=1e-3, atol=1e-3)
    labels = classifier(images).argmax(1)
    attack = create("attack", {"name": "substitute", "attack": {"name": "pgd", "eps": "1/10", "steps": 2}})
    moved = attack.perturb(classifier, images, labels, Randomness.of(0, range(3)))
    assert (moved - images).abs().max() <= 0.1 + 1e-6


def test_the_masking_checks_find_and_refine_the_solver():
    torch.manual_seed(0)
    classifier = ODENet(channels=4, solver="dopri5").classifier(TINY).eval()
    twins = dict(refined(classifier))
    assert set(twins) == {"tolerances / 100", "step size / 4", "a fixed-step solver"}
    assert twins["step size / 4"].module.mapping.step_size == pytest.approx(0.025)
    images = torch.rand(12, 1, 8, 8)
    found = {check.check: check for check in checks(classifier, images, shared=False, model="m")}
    assert not found["a fixed number of steps"].passed
    assert "step sizes" in found


@pytest.mark.parametrize("kind", ["gaussian", "dot-product", "mean"])
def test_feature_denoising_against_a_plain_loop(kind):
    torch.manual_seed(0)
    block = FeatureDenoising(kind, 3).double()
    z = torch.rand(2, 3, 2, 2, dtype=torch.float64)
    flat = z.flatten(2)
    expected = torch.zeros_like(flat)
    for n in range(2):
        for i in range(4):
            if kind == "mean":  # on 2 x 2 pixels every 3 x 3 window holds all four
                weights = torch.full((4,), 0.25, dtype=torch.float64)
            elif kind == "dot-product":
                weights = torch.stack([flat[n, :, i] @ flat[n, :, j] for j in range(4)]) / 4
            else:
                theta, phi = block.embed(z).flatten(2).chunk(2, 1)
                scores = torch.stack([theta[n, :, i] @ phi[n, :, j] for j in range(4)])
                weights = torch.softmax(scores / math.sqrt(3), 0)
            expected[n, :, i] = sum(weights[j] * flat[n, :, j] for j in range(4))
    torch.testing.assert_close(block.denoised(z), expected.view_as(z))
    torch.testing.assert_close(block(z), z + block.project(expected.view_as(z)))
    network = TisODENet(channels=4, denoising=kind).build(TINY)
    assert any(isinstance(layer, FeatureDenoising) for layer in network.extractor)


def test_the_network_is_found_behind_a_defence():
    classifier = ODENet(channels=4).classifier(TINY)
    defended = create("defence", "random-resize-pad").wrap(classifier)
    assert map_network(defended) is classifier.module
    assert map_network(create("model", "mlp").classifier(TINY)) is None
    assert defended(torch.rand(2, 1, 8, 8)).shape == (2, 10)
