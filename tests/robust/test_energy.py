"""Energies and the Langevin step against closed forms: linear models, quadratic energies, central differences."""

import math

import pytest
import torch
from torch import Tensor

from robust.classifier import Classifier
from robust.energy import Langevin, log_density, score


def quadratic(curvature: float, centre: float = 0.0) -> Classifier:
    """log p(u) = -curvature |u - centre|^2 / 2 in pixels u = 2 x - 1, as a classifier of one class."""
    return Classifier(lambda x: -curvature / 2 * (2 * x - 1 - centre).flatten(1).square().sum(1, keepdim=True))


def test_log_density_is_logsumexp_or_the_own_logit():
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    assert log_density(logits).tolist() == pytest.approx(
        [math.log(math.exp(1) + math.exp(2) + math.exp(3)), math.log(3)]
    )
    assert log_density(logits, torch.tensor([2, 0])).tolist() == [3.0, 0.0]


def test_score_of_a_linear_model_is_the_softmax_mean_of_its_weights():
    weight = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    classifier = Classifier(lambda x: x.flatten(1) @ weight.T)
    images = torch.rand(5, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = classifier(images).softmax(1) @ weight
    torch.testing.assert_close(score(classifier, images).flatten(1), expected)
    labels = torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(score(classifier, images, labels).flatten(1), weight[labels])


def test_one_step_is_the_papers_formula_in_its_own_pixels():
    weight = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    in_u = Classifier(lambda x: (2 * x - 1).flatten(1) @ weight.T)
    images = torch.rand(2, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = torch.ones_like(images)
    u = 2 * images - 1
    gradient = ((u.flatten(1) @ weight.T).softmax(1) @ weight).view_as(u)
    expected = u + 0.7 * gradient + 0.3 * z
    found = Langevin(1, step_size=0.7, sigma=0.3).walk(in_u, images, lambda _: z).images
    torch.testing.assert_close(2 * found - 1, expected)
    bounded = Langevin(1, step_size=0.7, sigma=0.0, gradient_bound=0.1).walk(in_u, images, lambda _: z).images
    torch.testing.assert_close(2 * bounded - 1, u + 0.7 * gradient.clamp(-0.1, 0.1))
    boxed = Langevin(3, step_size=50.0, sigma=0.3, box=True).walk(in_u, images, lambda _: z).images
    assert boxed.min() >= 0
    assert boxed.max() <= 1


@pytest.mark.parametrize(("curvature", "alpha", "sigma"), [(1.0, 0.1, math.sqrt(0.2)), (2.0, 0.25, 0.05)])
def test_the_chain_reaches_the_stationary_law_of_a_quadratic_energy(curvature, alpha, sigma):
    # u' = (1 - alpha c) u + alpha c m + sigma z is autoregressive: mean m, variance sigma^2 / (1 - (1 - alpha c)^2)
    draws = torch.Generator().manual_seed(0)
    start = torch.rand(50, 1, 20, 20, dtype=torch.float64, generator=draws)

    def normals(_: int) -> Tensor:
        return torch.randn(start.shape, dtype=torch.float64, generator=draws)

    found = Langevin(200, alpha, sigma).walk(quadratic(curvature, centre=0.4), start, normals).images
    u = 2 * found - 1
    variance = sigma**2 / (1 - (1 - alpha * curvature) ** 2)
    assert float(u.var()) == pytest.approx(variance, rel=0.05)
    assert float(u.mean()) == pytest.approx(0.4, abs=5 * math.sqrt(variance / u.numel()))


def test_the_graph_of_the_walk_gives_the_derivative_of_the_map():
    # without noise n steps on a quadratic energy multiply u by (1 - alpha c)^n
    images = torch.rand(2, 1, 3, 3, dtype=torch.float64).requires_grad_(True)
    found = Langevin(4, 0.5, 0.0).walk(quadratic(0.6), images, torch.zeros_like, through=True).images
    (gradient,) = torch.autograd.grad(found.sum(), images)
    torch.testing.assert_close(gradient, torch.full_like(gradient, (1 - 0.5 * 0.6) ** 4))
    detached = Langevin(4, 0.5, 0.0).walk(quadratic(0.6), images, torch.zeros_like).images
    assert not detached.requires_grad
    torch.testing.assert_close(detached, found.detach())


def test_no_steps_leave_the_images():
    images = torch.rand(2, 1, 3, 3)
    walk = Langevin(0).walk(quadratic(1.0), images, torch.zeros_like)
    assert torch.equal(walk.images, images)
    assert not walk.gradient.any()
