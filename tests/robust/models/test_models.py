import pytest
import torch
from torch import nn

from robust.datasets.digits import Digits
from robust.models.mlp import MLP
from robust.models.model import Inputs
from robust.models.resnet18 import ResNet18
from robust.models.small_cnn import SmallCNN
from robust.objectives.objective import Training
from robust.objectives.standard import Standard
from robust.training import train

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 224, 224), (2, 9, 13), (3, 33, 50)]
MODELS = [MLP(hidden=(8,)), SmallCNN(width=4), *(ResNet18(width=4, norm=norm) for norm in ("batch", "group", "none"))]


def inputs(shape: tuple[int, int, int], classes: int = 7) -> Inputs:
    return Inputs(shape=shape, num_classes=classes, mean=(0.5,) * shape[0], std=(0.25,) * shape[0])


def weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.name}-{getattr(model, 'norm', '')}")
def test_every_model_serves_every_size(model, shape):
    torch.manual_seed(0)
    classifier = model.classifier(inputs(shape))
    images = torch.rand(2, *shape, requires_grad=True)
    logits = classifier(images)
    assert logits.shape == (2, 7)
    assert logits.std() > 0
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    assert gradient.isfinite().all()
    assert gradient.any()
    assert classifier.features(images).shape[0] == 2


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.name}-{getattr(model, 'norm', '')}")
def test_logits_of_a_sample_do_not_depend_on_its_batch_in_eval_mode(model):
    torch.manual_seed(0)
    classifier = model.classifier(inputs((3, 16, 16))).double().eval()
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(classifier(images)[2:3], classifier(images[2:3]), rtol=0, atol=1e-12)


def test_initialisation_follows_the_global_generator():
    built = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        built.append(torch.cat([p.flatten() for p in ResNet18(width=4).build(inputs((3, 32, 32))).parameters()]))
    assert torch.equal(built[0], built[1])
    assert not torch.equal(built[0], built[2])


def test_published_sizes():
    # He et al.'s ResNet-18: 11.17 M weights in the CIFAR form, 11.69 M on ImageNet with its stem
    assert weights(ResNet18().build(inputs((3, 32, 32), 10))) == 11_173_962
    assert weights(ResNet18().build(inputs((3, 224, 224), 1000))) == 11_689_512
    # Wong & Kolter's MNIST network
    assert weights(SmallCNN().build(inputs((1, 28, 28), 10))) == 166_406
    assert weights(MLP(hidden=(5,)).build(inputs((1, 2, 2), 3))) == (4 + 1) * 5 + (5 + 1) * 3
    assert weights(MLP(hidden=()).build(inputs((1, 2, 2), 3))) == 15


@pytest.mark.parametrize("shape", [(1, 3, 3), (1, 1, 28), (3, 4, 64)], ids=str)
def test_small_cnn_refuses_what_it_cannot_halve_by_name(shape):
    with pytest.raises(ValueError, match=f"small-cnn cannot halve images of {shape[1]} x {shape[2]}"):
        SmallCNN().build(inputs(shape))


def test_resnet_without_normalisation_starts_as_its_stem():
    torch.manual_seed(0)
    block = ResNet18(width=4, norm="none").build(inputs((3, 8, 8)))[1]
    seen = torch.rand(2, 4, 8, 8)
    assert torch.equal(block(seen), seen)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_resnet_learns(norm):
    spec = Digits(train=250, select=100)
    objective = Standard(training=Training(epochs=6, batch_size=25, lr=3e-3))
    trained = train(ResNet18(width=8, norm=norm), objective, spec.load("train"), spec.load("select"), device="cpu")
    assert max(row["select_accuracy"] for row in trained.history) > 0.7
