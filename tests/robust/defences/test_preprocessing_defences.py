"""Preprocessing defences: what they do to an image, what they declare, and that their draws can be repeated."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robust.classifier import Classifier
from robust.defences.gaussian_input_noise import GaussianInputNoise
from robust.defences.input_quantisation import InputQuantisation
from robust.defences.random_resize_pad import RandomResizePad
from robust.randomness import generator

DEFENCES = [InputQuantisation(), GaussianInputNoise(), RandomResizePad()]


def classifier() -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), num_classes=3)


def images(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda d: d.name)
def test_draws_differ_between_calls_and_repeat_between_runs(defence):
    defended = defence.wrap(classifier())
    assert defended.random == defence.random
    runs = []
    for _ in range(2):
        with defended.frozen(), torch.no_grad():
            runs.append([defended(images()), defended(images())])
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert torch.equal(runs[0][0], runs[0][1]) != defence.random


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda d: d.name)
def test_processed_images_stay_in_the_box_and_keep_shape_and_dtype(defence):
    for dtype in (torch.float32, torch.float64):
        found = defence.process(images().to(dtype), generator(0, "test"))
        assert found.shape == (4, 1, 8, 8)
        assert found.dtype == dtype
        assert found.min() >= 0
        assert found.max() <= 1
    assert defence.process(images(0), generator(0, "test")).shape == (0, 1, 8, 8)


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda d: d.name)
def test_declared_backward_has_the_true_values_and_the_identity_gradient(defence):
    defended = defence.wrap(classifier())
    with defended.frozen():
        plain = defended(images())
    with defended.frozen():
        leaf = images().requires_grad_(True)
        logits = defended.views()["bpda"](leaf)
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf)
    torch.testing.assert_close(logits, plain)
    weight = defended.module[-1].weight[0].view(1, 1, 8, 8)
    torch.testing.assert_close(gradient, weight.expand_as(gradient))


def test_quantisation_has_two_to_the_bits_levels_and_no_gradient():
    ramp = torch.linspace(0, 1, 1001).view(1, 1, 1, -1)
    assert len(InputQuantisation(bits=2).process(ramp, generator(0)).unique()) == 4
    leaf = ramp.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(InputQuantisation(bits=2).process(leaf, generator(0)).sum(), leaf)
    assert not gradient.any()


def test_noise_has_the_declared_deviation_away_from_the_walls():
    grey = torch.full((50, 1, 20, 20), 0.5)
    found = GaussianInputNoise(sigma=0.05).process(grey, generator(0))
    assert float(found.std()) == pytest.approx(0.05, rel=0.05)


def test_resized_images_lie_whole_on_a_black_canvas():
    white = torch.ones(200, 1, 20, 20)
    found = RandomResizePad(smallest=0.5).process(white, generator(0))
    area = found.mean((1, 2, 3))
    assert 0.2 < area.min() < 0.4  # 0.5^2 at least, up to the blur of the edge
    assert 0.8 < area.max() <= 1.0
    column = found.mean(2)[:, 0]
    assert (column[:, 0] < column[:, -1]).any()
    assert (column[:, 0] > column[:, -1]).any()
