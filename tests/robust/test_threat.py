import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from robust.randomness import Randomness
from robust.threat import ThreatModel, norm_of, project_l1_box, steepest, steepest_in

NORMS = ("linf", "l2", "l1")
torch.manual_seed(0)


@pytest.mark.parametrize(
    ("written", "exact", "shown"),
    [
        ("8/255", Fraction(8, 255), "8/255"),
        ("3/255", Fraction(1, 85), "3/255"),
        (0.3, Fraction(3, 10), "3/10"),
        ("0.2", Fraction(1, 5), "1/5"),
        (1, Fraction(1), "1"),
        (0, Fraction(0), "0"),
    ],
)
def test_eps_is_the_fraction_that_was_written(written, exact, shown):
    threat = ThreatModel(norm="linf", eps=written)
    assert threat.eps == exact
    assert threat.model_dump(mode="json")["eps"] == shown


@pytest.mark.parametrize("eps", ["8", 1.5, "-1/255", "1/0", "lots", True, "1" * 50, float("nan"), "1e999"])
def test_impossible_eps_is_refused(eps):
    with pytest.raises(ValidationError):
        ThreatModel(norm="linf", eps=eps)


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 1000), radius=st.floats(0, 4), spread=st.floats(0.01, 10))
@settings(max_examples=30, deadline=None)
def test_projection_lands_in_ball_and_box_and_is_idempotent(norm, seed, radius, spread):
    g = torch.Generator().manual_seed(seed)
    origin = torch.rand(3, 2, 4, 4, generator=g, dtype=torch.float64)
    point = origin + spread * torch.randn(3, 2, 4, 4, generator=g, dtype=torch.float64)
    threat = ThreatModel(norm=norm)
    once = threat.project(point, origin, radius)
    assert (once >= 0).all()
    assert (once <= 1).all()
    assert (norm_of(once - origin, norm) <= radius + 1e-9).all()
    torch.testing.assert_close(threat.project(once, origin, radius), once, atol=1e-9, rtol=0)


def test_l1_box_projection_is_the_nearest_feasible_point():
    # oracle: projected points must satisfy the variational inequality <p - z, q - z> <= 0 for all feasible q
    g = torch.Generator().manual_seed(1)
    origin = torch.rand(5, 12, generator=g, dtype=torch.float64)
    point = 2 * torch.randn(5, 12, generator=g, dtype=torch.float64)
    radius = torch.full((5,), 0.7, dtype=torch.float64)
    nearest = project_l1_box(point, origin, radius)
    for trial in range(200):
        g = torch.Generator().manual_seed(trial)
        other = torch.randn(5, 12, generator=g, dtype=torch.float64)
        other = ((origin + other).clamp(0, 1) - origin) * torch.rand(5, 1, generator=g, dtype=torch.float64)
        other = other * (0.7 / other.abs().sum(1, keepdim=True)).clamp_max(1)
        assert (((point - nearest) * (other - nearest)).sum(1) <= 1e-9).all()


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_step_is_the_dual_norm_maximiser(norm):
    gradient = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    step = steepest(gradient, norm)
    dual = {"linf": 1.0, "l2": 2.0, "l1": math.inf}[norm]
    torch.testing.assert_close(norm_of(step, norm), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(
        (step * gradient).flatten(1).sum(1), torch.linalg.vector_norm(gradient.flatten(1), ord=dual, dim=1)
    )


@pytest.mark.parametrize("p", [1, 1.2, 1.5, 2, 3, 10, torch.inf])
def test_steepest_step_of_any_norm_reaches_the_dual_norm(p):
    gradient = torch.randn(6, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = steepest_in(gradient, p)
    conjugate = torch.inf if p == 1 else 1 / (1 - 1 / p)
    torch.testing.assert_close(torch.linalg.vector_norm(step.flatten(1), ord=p, dim=1), torch.ones(6).double())
    reached = (gradient * step).flatten(1).sum(1)
    torch.testing.assert_close(reached, torch.linalg.vector_norm(gradient.flatten(1), ord=conjugate, dim=1))


def test_steepest_step_of_any_norm_is_known_by_hand_and_needs_a_norm():
    gradient = torch.tensor([[[[3.0, -4.0, 0.0]]]])  # p = 3: q = 3/2, so |d| goes as the square root of |g|
    expected = torch.tensor([[[[3**0.5, -2.0, 0.0]]]]) / (3**1.5 + 8) ** (1 / 3)
    torch.testing.assert_close(steepest_in(gradient, 3), expected)
    torch.testing.assert_close(steepest_in(1e-30 * gradient, 3), expected)
    assert not steepest_in(0 * gradient, 1.5).any()
    with pytest.raises(ValueError, match="p >= 1"):
        steepest_in(gradient, 0.5)


def test_steepest_survives_tiny_and_zero_gradients():
    tiny = torch.full((1, 1, 2, 2), 1e-30)
    torch.testing.assert_close(norm_of(steepest(tiny, "l2"), "l2"), torch.ones(1))
    assert (steepest(torch.zeros(1, 1, 2, 2), "l2") == 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_is_inside_and_belongs_to_the_sample(norm):
    origin = torch.rand(6, 1, 7, 7)
    threat = ThreatModel(norm=norm, eps="1/2")
    starts = threat.random_start(origin, Randomness.of(3, range(6), "pgd"))
    assert threat.contains(starts, origin).all()
    alone = threat.random_start(origin[4:5], Randomness.of(3, [4], "pgd"))
    assert torch.equal(starts[4:5], alone)
    assert not torch.equal(starts, threat.random_start(origin, Randomness.of(4, range(6), "pgd")))


@pytest.mark.parametrize("norm", NORMS)
def test_rounding_stays_inside_the_ball_and_on_the_grid(norm):
    origin = (torch.rand(8, 1, 6, 6) * 255).round() / 255
    threat = ThreatModel(norm=norm, eps="8/255" if norm == "linf" else "1/2")
    images = threat.project(origin + 0.2 * torch.randn_like(origin), origin)
    rounded = threat.round_inside(images, origin)
    assert threat.contains(rounded, origin).all()
    torch.testing.assert_close((rounded * 255).round(), rounded * 255, atol=1e-4, rtol=0)


def test_contains_refuses_what_leaves_the_ball_the_box_or_the_numbers():
    origin = torch.full((4, 1, 2, 2), 0.5)
    images = origin.clone()
    images[1, 0, 0, 0] += 0.11
    images[2, 0, 0, 0] = float("nan")
    assert ThreatModel(eps="1/10").contains(images, origin).tolist() == [True, False, False, True]
    assert not ThreatModel().contains(torch.full((1, 1, 1, 1), 1.1), torch.ones(1, 1, 1, 1)).any()


def test_eps_zero_and_empty_batches_are_right():
    threat, origin = ThreatModel(eps=0), torch.rand(2, 1, 3, 3)
    assert torch.equal(threat.project(origin + 1, origin), origin)
    for norm in NORMS:
        empty = torch.zeros(0, 1, 3, 3)
        ball = ThreatModel(norm=norm, eps="1/4")
        assert ball.project(empty, empty).shape == empty.shape
        assert ball.contains(empty, empty).shape == (0,)
        assert ball.random_start(empty, Randomness.of(0, [], "x")).shape == empty.shape
