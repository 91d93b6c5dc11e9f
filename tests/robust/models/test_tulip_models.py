"""The Tulip networks: sizes, the tanh logit layer, and that they learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robust.datasets.digits import Digits
from robust.models.model import Inputs
from robust.models.resnext34 import ResNeXt34
from robust.models.small_cnn import SmallCNN
from robust.models.tanh_logits import TanhLogits
from robust.models.tulip_cnn import TulipCNN
from robust.objectives.objective import Training
from robust.objectives.standard import Standard
from robust.training import train


def inputs(shape: tuple[int, int, int], classes: int = 10) -> Inputs:
    return Inputs(shape=shape, num_classes=classes, mean=(0.5,) * shape[0], std=(0.25,) * shape[0])


def weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 50)], ids=str)
@pytest.mark.parametrize("logits", ["plain", "tanh"])
@pytest.mark.parametrize(
    "kind", [lambda **k: ResNeXt34(blocks=(1, 1, 1), width=4, **k), lambda **k: TulipCNN(width=4, **k)]
)
def test_serves_every_size_in_eval_mode_by_the_sample(kind, logits, shape):
    torch.manual_seed(0)
    classifier = kind(logits=logits).classifier(inputs(shape)).double()
    images = torch.rand(6, *shape, dtype=torch.float64)
    classifier.train()(images)
    classifier.eval()
    found = classifier(images)
    assert found.shape == (6, 10)
    torch.testing.assert_close(classifier(images[2:3]), found[2:3], rtol=0, atol=1e-12)
    assert classifier.features(images).shape[0] == 6


def test_sizes():
    plain, tanh = (TulipCNN(logits=logits).build(inputs((1, 28, 28))) for logits in ("plain", "tanh"))
    assert weights(plain) == weights(SmallCNN().build(inputs((1, 28, 28))))
    assert weights(tanh) == weights(plain) + 1  # t

    def convolutions(width: int, blocks: int) -> int:
        return blocks * (9 * width * 2 * width + 9 * 2 * width * width)  # one 3 x 3 to both branches, one in each

    expected = 3 * 32 * 9 + 32 + sum(convolutions(width, 5) for width in (32, 64, 128))
    expected += 32 * 64 + 64 * 128 + 128 * 10 + 10
    network = ResNeXt34().build(inputs((3, 32, 32)))
    assert weights(network) == expected
    assert not any(p.dim() == 1 for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    affine = ResNeXt34(affine=True).build(inputs((3, 32, 32)))
    assert weights(affine) == expected + 2 * (5 * 4 * (32 + 64 + 128) + 64 + 128)


def test_tanh_layer_bounds_the_logits_and_keeps_the_decisions():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    layer = TanhLogits(body, 4).double()
    images = 5 * torch.randn(200, 1, 4, 4, dtype=torch.float64)
    for _ in range(50):
        layer.train()(images)
    layer.eval()
    with torch.no_grad():
        layer[2].scale.fill_(-1.5)  # its absolute value counts
        plain = layer.gradient_views()["substitute"].eval()(images)
        found = layer(images)
    assert found.abs().max() < 1.5
    torch.testing.assert_close(found, 1.5 * torch.tanh(plain / 1.5))
    assert torch.equal(found.argmax(1), plain.argmax(1))
    torch.testing.assert_close(plain.mean(0), torch.zeros(4).double(), rtol=0, atol=0.05)


def test_the_substitute_of_a_tanh_network_is_a_declared_view_with_the_same_normalisation():
    torch.manual_seed(0)
    classifier = TulipCNN(logits="tanh").classifier(inputs((1, 8, 8))).eval()
    images = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        before = classifier.views()["substitute"].eval()(images)
        torch.testing.assert_close(classifier(images), torch.tanh(before))


@pytest.mark.parametrize(
    "model",
    [TulipCNN(dropout=0.2), TulipCNN(logits="tanh"), ResNeXt34(blocks=(1, 1, 1), width=8, logits="tanh")],
    ids=["plain", "tanh", "resnext"],
)
def test_it_learns(model):
    spec = Digits(train=300, select=100)
    objective = Standard(training=Training(epochs=8, batch_size=25, lr=4e-3))
    trained = train(model, objective, spec.load("train"), spec.load("select"), device="cpu")
    assert max(row["select_accuracy"] for row in trained.history) > 0.7


def test_images_too_small_to_halve_twice_are_refused():
    with pytest.raises(ValueError, match="resnext34-2x32"):
        ResNeXt34().build(inputs((1, 3, 3)))
