import pytest
import torch
from pydantic import ValidationError
from torch import nn

from robust.datasets.digits import Digits
from robust.models.model import Inputs
from robust.models.wrn import WideResNet
from robust.objectives.objective import Training
from robust.objectives.standard import Standard
from robust.training import train

SMALL = [
    WideResNet(depth=10, widen=1),
    WideResNet(depth=16, widen=1, norm="none", activation="leaky-relu"),
]


def inputs(shape: tuple[int, int, int], classes: int = 10) -> Inputs:
    return Inputs(shape=shape, num_classes=classes, mean=(0.5,) * shape[0], std=(0.25,) * shape[0])


def weights(model: WideResNet, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> int:
    with torch.device("meta"):  # counts need no numbers
        return sum(parameter.numel() for parameter in model.build(inputs(shape, classes)).parameters())


def test_published_sizes():
    # Zagoruyko & Komodakis 2016, table 4: 36.5 M, 11.0 M and 8.9 M; 36,479,194 is their code's own count
    assert weights(WideResNet()) == 36_479_194
    assert round(weights(WideResNet(depth=16, widen=8)) / 1e6, 1) == 11.0
    assert round(weights(WideResNet(depth=40, widen=4)) / 1e6, 1) == 8.9
    assert weights(WideResNet(dropout=0.3)) == weights(WideResNet())


def test_without_normalisation_each_convolution_has_a_bias_instead():
    plain = WideResNet(norm="none")
    module = plain.build(inputs((3, 8, 8)))
    assert not [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(layer.bias is not None for layer in module.modules() if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 9, 13), (1, 1, 28)], ids=str)
@pytest.mark.parametrize("model", SMALL, ids=["batch", "none"])
def test_serves_every_size_with_a_gradient(model, shape):
    torch.manual_seed(0)
    classifier = model.classifier(inputs(shape, 7))
    images = torch.rand(2, *shape, requires_grad=True)
    logits = classifier(images)
    assert logits.shape == (2, 7)
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    assert gradient.isfinite().all()
    assert gradient.any()
    assert classifier.features(images).shape == (2, 64)


@pytest.mark.parametrize("model", SMALL, ids=["batch", "none"])
def test_a_sample_does_not_depend_on_its_batch_in_eval_mode(model):
    torch.manual_seed(0)
    classifier = model.classifier(inputs((3, 16, 16))).double().eval()
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(classifier(images)[2:3], classifier(images[2:3]), rtol=0, atol=1e-12)


def test_without_normalisation_not_even_in_train_mode():
    torch.manual_seed(0)
    classifier = SMALL[1].classifier(inputs((3, 16, 16))).double().train()
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(classifier(images)[2:3], classifier(images[2:3]), rtol=0, atol=1e-12)


def test_depth_28_starts_at_a_sane_scale():
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32)
    for norm in ("batch", "none"):
        logits = WideResNet(widen=1, norm=norm).classifier(inputs((3, 32, 32))).train()(images)
        assert 1e-3 < logits.abs().mean() < 10


def test_a_block_is_the_identity_plus_its_residual():
    torch.manual_seed(0)
    block = WideResNet(depth=10, widen=1).build(inputs((3, 8, 8)))[1].eval()  # 16 -> 16 channels: no shortcut
    images = torch.randn(2, 16, 8, 8)
    assert block.shortcut is None
    torch.testing.assert_close(block(images) - images, block.residual(block.before(images)))


def test_slope_reaches_the_activation():
    module = WideResNet(depth=10, widen=1, activation="leaky-relu", slope=0.1).build(inputs((1, 8, 8)))
    slopes = {layer.negative_slope for layer in module.modules() if isinstance(layer, nn.LeakyReLU)}
    assert slopes == {0.1}
    assert not [layer for layer in module.modules() if isinstance(layer, nn.ReLU)]


def test_dropout_acts_in_train_mode_only():
    torch.manual_seed(0)
    classifier = WideResNet(depth=10, widen=1, norm="none", dropout=0.5).classifier(inputs((1, 8, 8)))
    images = torch.rand(2, 1, 8, 8)
    assert not torch.equal(classifier.train()(images), classifier(images))
    assert torch.equal(classifier.eval()(images), classifier(images))


@pytest.mark.parametrize("depth", [9, 12, 20])
def test_depths_without_whole_blocks_are_refused(depth):
    with pytest.raises(ValidationError, match="depth"):
        WideResNet(depth=depth)


@pytest.mark.parametrize("model", SMALL, ids=["batch", "none"])
def test_it_learns(model):
    digits = Digits(train=600, select=100, calibrate=1)
    training = Training(epochs=4, batch_size=50, lr=3e-3)
    trained = train(model, Standard(training=training), digits.load("train"), digits.load("select"), threads=1)
    assert max(row["select_accuracy"] for row in trained.history) > 0.8
