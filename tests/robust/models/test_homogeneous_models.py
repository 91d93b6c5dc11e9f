import math

import pytest
import torch

from robust.datasets.digits import Digits
from robust.diagnostics.homogeneity import homogeneity
from robust.margins import weight_norms
from robust.models.homogeneous_cnn import HomogeneousCNN
from robust.models.homogeneous_mlp import HomogeneousMLP
from robust.models.model import Inputs
from robust.models.vgg16_homogeneous import VGG16Homogeneous
from robust.objectives.loss_based_lr import LossBasedLR
from robust.objectives.margin_tracking import PlainSGD
from robust.training import train

MNIST = Inputs(shape=(1, 28, 28), num_classes=10, mean=(0.13,), std=(0.31,))
CIFAR = Inputs(shape=(3, 32, 32), num_classes=10, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
CASES = [
    (HomogeneousMLP(), MNIST, 3, 784 * 128 + 128 * 128 + 128 * 10),
    (HomogeneousMLP(hidden=()), MNIST, 1, 7840),
    (HomogeneousCNN(), MNIST, 4, 32 * 25 + 64 * 32 * 9 + 3136 * 1024 + 10240),
    (HomogeneousCNN(first=2, second=3, hidden=4), CIFAR, 4, 150 + 54 + 3 * 64 * 4 + 40),
    (VGG16Homogeneous(width=2), CIFAR, 14, None),
]


@pytest.mark.parametrize(("model", "inputs", "degree", "size"), CASES, ids=lambda case: getattr(case, "name", ""))
def test_parameters_and_degree(model, inputs, degree, size):
    images = torch.rand(3, *inputs.shape)
    for bias in ("none", "first"):
        torch.manual_seed(0)
        classifier = model.model_copy(update={"bias": bias}).classifier(inputs)
        biases = [name for name, _ in classifier.module.named_parameters() if name.endswith("bias")]
        assert len(biases) == (bias == "first")
        assert homogeneity(classifier, images).degree == degree
        assert classifier(images).shape == (3, 10)
        if size is not None and bias == "none":
            assert sum(parameter.numel() for parameter in classifier.parameters()) == size


def test_the_cnn_starts_with_the_published_layer_norms():
    torch.manual_seed(0)
    module = HomogeneousCNN().build(MNIST)
    norms = [float(parameter.detach().norm()) for parameter in module.parameters()]
    assert norms == pytest.approx([8.0, 11.3, 45.3, 4.5], rel=0.05)
    log_product, norm = weight_norms(module)
    assert log_product == pytest.approx(sum(map(math.log, norms)), rel=1e-4)
    assert norm == pytest.approx(math.hypot(*norms), rel=1e-4)
    assert norm**4 == pytest.approx(5e6, rel=0.1)


def test_vgg_has_the_published_size():
    with torch.device("meta"):
        module = VGG16Homogeneous().build(CIFAR)
    weights = [parameter for parameter in module.parameters() if parameter.dim() > 1]
    assert len(weights) == 14
    assert sum(parameter.numel() for parameter in weights) == 14_714_688 - 4224 + 5120


def test_images_enter_as_they_are():
    classifier = HomogeneousMLP(hidden=(4,)).classifier(MNIST)
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(classifier(images), classifier.module(images))


def test_sides_that_are_too_short_are_refused():
    with pytest.raises(ValueError, match="use homogeneous-mlp"):
        HomogeneousCNN().build(Inputs(shape=(1, 3, 9), num_classes=2, mean=(0.0,), std=(1.0,)))
    with pytest.raises(ValueError, match="use homogeneous-cnn"):
        VGG16Homogeneous().build(MNIST)


@pytest.mark.parametrize("model", [HomogeneousMLP(hidden=(32,)), HomogeneousCNN(first=4, second=8, hidden=32)])
def test_they_learn(model):
    spec = Digits(train=300, select=100)
    objective = LossBasedLR(training=PlainSGD(epochs=60, batch_size=50, lr=0.1))
    trained = train(model, objective, spec.load("train"), spec.load("select"), device="cpu", threads=1)
    assert trained.history[-1]["train_accuracy"] > 0.8
    assert trained.history[-1]["select_accuracy"] > 0.7


def test_vgg_learns_two_patterns():
    torch.manual_seed(0)
    classifier = VGG16Homogeneous(width=4).classifier(CIFAR)
    images = torch.stack([torch.zeros(3, 32, 32), torch.rand(3, 32, 32)])
    optimizer = torch.optim.SGD(classifier.parameters(), 0.05)
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(classifier(images), torch.tensor([0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert classifier(images)[1].argmax() == 1
    assert torch.equal(classifier(images)[0], torch.zeros(10))  # no bias: black is mapped to 0
