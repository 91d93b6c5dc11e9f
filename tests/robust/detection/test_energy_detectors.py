"""Detectors of the energy family: refinement drop against closed forms, the flow against numerical integration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robust.classifier import Classifier
from robust.detection.flow_likelihood import FlowLikelihood
from robust.detection.metrics import auroc
from robust.detection.refinement_drop import RefinementDrop
from robust.randomness import Randomness


def score(detector, classifier, images, fitted=None, start=0) -> Tensor:
    rng = Randomness.of(0, range(start, start + len(images)))
    with classifier.frozen():
        found: Tensor = detector.score_images(classifier, images, fitted or {}, rng)
    return found


def test_refinement_drop_of_a_quadratic_energy_is_known():
    # log p = -|u|^2 / 2 in u = 2 x - 1: n steps multiply u by (1 - alpha)^n
    classifier = Classifier(lambda x: -0.5 * (2 * x - 1).flatten(1).square().sum(1, keepdim=True))
    images = torch.rand(6, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    size = (2 * images - 1).flatten(1).norm(dim=1)
    left = 0.8**4
    settings = {"steps": 4, "step_size": 0.2, "sigma": 0.0}
    expected = {
        "log-px": size**2 / 2 * (left**2 - 1),
        "gradient": 2 * size * (left - 1),  # d/dx = 2 d/du
        "distance": -size / 2 * (1 - left),
    }
    for quantity, value in expected.items():
        found = score(RefinementDrop(quantity=quantity, **settings), classifier, images)
        torch.testing.assert_close(found, value)


def test_refinement_drop_tells_noise_from_digits_and_walks_by_the_samples_own_draws(digits):
    images = digits.test.images[:200]
    for quantity in ("distance", "log-px"):
        detector = RefinementDrop(quantity=quantity, steps=3)
        whole = score(detector, digits.classifier, images)
        assert whole.dtype == torch.float64
        torch.testing.assert_close(score(detector, digits.classifier, images[20:], start=20), whole[20:])
        noise = score(detector, digits.classifier, digits.far.images, start=2000)
        assert auroc(whole, noise) > 0.6


FLOW = FlowLikelihood(couplings=4, hidden=64, epochs=15, batch_size=50)


@pytest.fixture(scope="module")
def flow(digits):
    fitted = FLOW.fit_images(digits.classifier, digits.train.images, digits.train.labels, Randomness.of(0, range(1000)))
    return FLOW, fitted


def test_the_flow_gives_digits_a_higher_likelihood_than_noise_and_than_it_gave_them_unfitted(digits, flow):
    detector, fitted = flow
    inside = score(detector, digits.classifier, digits.test.images, fitted)
    fresh = score(detector, digits.classifier, digits.test.images, detector.flow(digits.test.images).state_dict())
    assert inside.mean() > fresh.mean() + 20
    assert auroc(inside, score(detector, digits.classifier, digits.far.images, fitted)) > 0.95
    assert inside.isfinite().all()


def test_the_flow_is_one_function_of_its_seed_and_leaves_torchs_generator_alone(digits, flow):
    detector, fitted = flow
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    brief = FLOW.model_copy(update={"epochs": 1})
    first, second = (
        brief.fit_images(digits.classifier, digits.train.images[:200], digits.train.labels[:200], Randomness.of(s, [0]))
        for s in (0, 9)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.rand(2), expected)
    other = brief.model_copy(update={"seed": 1}).fit_images(
        digits.classifier, digits.train.images[:200], digits.train.labels[:200], Randomness.of(0, [0])
    )
    assert any(not torch.equal(first[name], other[name]) for name in first)
    whole = score(detector, digits.classifier, digits.test.images[:300], fitted)
    torch.testing.assert_close(score(detector, digits.classifier, digits.test.images[100:110], fitted), whole[100:110])
    assert score(detector, digits.classifier, digits.test.images[:0], fitted).shape == (0,)


def test_the_flows_density_integrates_to_one():
    # two pixels: a grid over the unit square, where the density is that of one moved into the logit's safe range
    detector = FlowLikelihood(couplings=3, hidden=8)
    with torch.no_grad():
        flow = detector.flow(torch.zeros(1, 1, 1, 2, dtype=torch.float64))
        draws = torch.Generator().manual_seed(0)
        for weight in flow.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=draws, dtype=weight.dtype)
        cells = 800
        line = (torch.arange(3 * cells, dtype=torch.float64) + 0.5) / cells - 1  # squeezing leaves mass outside [0,1]
        line = line[(line > -0.05) & (line < 1.05)]
        grid = torch.cartesian_prod(line, line)
        # undo the dequantisation: values v in [0,1] are (255 x + 1/2) / 256
        images = ((grid * 256 - 0.5) / 255).view(-1, 1, 1, 2)
        inside = ((grid >= 0) & (grid <= 1)).all(1)
        mass = flow(images[inside], torch.full_like(images[inside], 0.5)).exp().sum() / cells**2
        # the squeezed square [0.05, 0.95]^2 holds less than all of the mass of z
        z = torch.randn(400_000, 2, generator=draws, dtype=torch.float64)
        share = _pulled_back(flow, z)
    assert float(mass) == pytest.approx(share, abs=0.01)
    assert share < 1


def _pulled_back(flow, z: Tensor) -> float:
    """Share of z that the inverse flow puts into the squeezed unit square."""
    for layer in reversed(range(len(flow.networks))):
        given, moved = (flow.halves[(layer + side) % 2] for side in (0, 1))
        log_scale, shift = flow.networks[layer](z[:, given]).chunk(2, dim=1)
        log_scale = 2 * torch.tanh(log_scale / 2)
        z = z.index_copy(1, moved, (z[:, moved] - shift) * (-log_scale).exp())
    squeezed = (z * (-flow.log_scale).exp() - flow.shift).sigmoid()
    edge = 0.05
    return float(((squeezed >= edge) & (squeezed <= 1 - edge)).all(1).double().mean())


def test_bits_per_dimension_of_digits_are_below_those_of_a_uniform_density(digits, flow):
    detector, fitted = flow
    nats = float(score(detector, digits.classifier, digits.test.images, fitted).mean())
    assert nats / 64 / math.log(2) > 0.5  # more than half a bit above the uniform density's 0
