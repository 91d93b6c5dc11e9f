"""Interval arithmetic: sound on random networks of every supported operation, refused by name on all others."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robust.attacks.pgd import PGD
from robust.certificates.bounds import Unsupported, logit_box, margin_bounds, reproduces
from robust.classifier import Classifier
from robust.models.model import Inputs
from robust.models.resnet18 import ResNet18
from robust.models.wrn import WideResNet
from robust.randomness import Randomness


class Residual(nn.Module):
    """A branch, a scaled sum, functional calls, and a normalisation written out by hand."""

    def __init__(self):
        super().__init__()
        self.stem, self.branch = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 5)
        self.register_buffer("centre", torch.full((1, 2, 1, 1), 0.4))

    def forward(self, x):
        x = (x - self.centre) / 0.5
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        x = x + 0.3 * self.branch(x)
        return self.head(F.adaptive_avg_pool2d(torch.relu(x), 1).view(x.size(0), -1)) * 2.0 - 1


class LateActivation(nn.Module):
    """Logits behind a tanh: no last linear layer to take differences of."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 5)

    def forward(self, x):
        return 3 * torch.tanh(self.layer(x.flatten(1)))


def layers(kind: str) -> nn.Module:
    stacks = {
        "linear": [nn.Flatten(), nn.Linear(32, 5)],
        "mlp": [nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 5)],
        "conv": [
            nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(4, 6, 2, groups=2), nn.Sigmoid(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
        ],
        "pools": [
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.AvgPool2d(2, padding=1), nn.Identity(), nn.Flatten(), nn.Linear(16, 5),
        ],
        "residual": [Residual()],
        "tanh last": [LateActivation()],
    }  # fmt: skip
    return nn.Sequential(*stacks[kind])


def classifier(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Classifier:
    torch.manual_seed(seed)
    found = Classifier(layers(kind), mean=(0.3, 0.5), std=(0.2, 0.4)).to(dtype)
    for module in found.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return found.eval().requires_grad_(False)


KINDS = ["linear", "mlp", "conv", "pools", "residual", "tanh last"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**20), eps=st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_the_box_holds_what_the_network_does_in_the_ball(kind, dtype, seed, eps):
    net = classifier(kind, seed, dtype)
    images, labels = torch.rand(3, 2, 4, 4, dtype=dtype), torch.randint(5, (3,))
    assert reproduces(net, images, net(images))
    box, apart = logit_box(net, images, eps), margin_bounds(net, images, labels, eps)
    corners = (torch.rand(60, 3, 2, 4, 4) < 0.5).to(dtype) * 2 - 1
    inner = 2 * torch.rand(60, 3, 2, 4, 4, dtype=dtype) - 1
    for step in (*corners, *inner):
        logits = net((images + eps * step).clamp(0, 1))
        assert (logits >= box.ends[0]).all()
        assert (logits <= box.ends[1]).all()
        assert (logits.gather(1, labels[:, None]) - logits >= apart - 1e-12).all()


@pytest.mark.parametrize("kind", KINDS)
def test_pgd_stays_above_the_bound(kind):
    net = classifier(kind)
    images = torch.rand(20, 2, 4, 4)
    labels = net(images).argmax(1)
    attacked = PGD(eps="1/10", steps=20, loss="margin").perturb(net, images, labels, Randomness.of(0, range(20)))
    logits = net(attacked)
    assert (logits.gather(1, labels[:, None]) - logits >= margin_bounds(net, images, labels, 0.1)).all()


def test_differences_of_the_last_layer_are_tighter_than_the_box():
    net = classifier("mlp")
    images, labels = torch.rand(10, 2, 4, 4), torch.arange(10) % 5
    box, apart = logit_box(net, images, 0.1), margin_bounds(net, images, labels, 0.1)
    plain = box.ends[0].gather(1, labels[:, None]) - box.ends[1]
    others = torch.arange(5) != labels[:, None]
    assert (apart >= plain - 1e-5)[others].all()
    assert (apart - plain)[others].max() > 0.01
    assert (apart.gather(1, labels[:, None]) == 0).all()


def test_bounds_do_not_depend_on_the_company_and_take_a_radius_each():
    net = classifier("conv", dtype=torch.float64)
    images, labels = torch.rand(6, 2, 4, 4, dtype=torch.float64), torch.arange(6) % 5
    radii = torch.linspace(0, 0.2, 6, dtype=torch.float64)
    whole = margin_bounds(net, images, labels, radii)
    for i in range(6):
        alone = margin_bounds(net, images[i : i + 1], labels[i : i + 1], float(radii[i]))
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "model", [ResNet18(width=4), ResNet18(width=4, norm="none"), WideResNet(depth=10, widen=1, dropout=0.1)]
)
def test_residual_networks_of_the_library_are_bounded(model):
    torch.manual_seed(0)
    net = model.classifier(Inputs(shape=(3, 16, 16), num_classes=4, mean=(0.5,) * 3, std=(0.2,) * 3)).eval()
    images, labels = torch.rand(2, 3, 16, 16), torch.tensor([0, 3])
    with torch.no_grad():
        assert reproduces(net, images, net(images))
        apart = margin_bounds(net, images, labels, 0.01)
        for _ in range(20):
            logits = net((images + 0.01 * (2 * torch.rand_like(images) - 1)).clamp(0, 1))
            assert (logits.gather(1, labels[:, None]) - logits >= apart).all()


def test_a_change_in_place_is_seen_by_every_holder():
    class Shared(nn.Module):
        def forward(self, x):
            x = x - 0.5
            y = F.relu(x, inplace=True)
            return (x + y).flatten(1)

    net, images = Classifier(Shared()), torch.rand(4, 1, 2, 2)
    assert reproduces(net, images, net(images))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Softmax(1)), "softmax"),
        (nn.Sequential(nn.GroupNorm(1, 2), nn.Flatten()), "group_norm"),
        (nn.Sequential(nn.BatchNorm2d(2), nn.Flatten()).train(), "BatchNorm in eval"),
        (nn.Sequential(nn.Dropout(), nn.Flatten()).train(), "dropout in eval"),
        (nn.Sequential(nn.Flatten(), nn.LeakyReLU(-0.5)), "slope"),
        (nn.Flatten(0), "apart"),
        (lambda x: (x - x.mean(0)).flatten(1), "over the samples"),
        (lambda x: x.flatten(1)[:, :3], "does not run on intervals"),
        (lambda x: (x * x).flatten(1), "arithmetic with Box"),
        (lambda x: x.sort().values, "Tensor.sort"),
        (lambda x: x, "logits"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(module, message):
    with pytest.raises(Unsupported, match=message):
        logit_box(Classifier(module), torch.rand(3, 2, 4, 4), 0.1)


def test_a_network_that_draws_is_found_out():
    net = Classifier(lambda x: (x + 0.1 * torch.randn(1, 2, 4, 4)).flatten(1))
    images = torch.rand(3, 2, 4, 4)
    assert not reproduces(net, images, net(images))


def test_half_precision_is_refused():
    with pytest.raises(Unsupported, match="float32 or float64"):
        logit_box(classifier("linear", dtype=torch.bfloat16), torch.rand(3, 2, 4, 4).bfloat16(), 0.1)


def test_classifiers_that_do_more_than_normalise_are_refused():
    class Defended(Classifier):
        def forward(self, images):
            return super().forward(images.round())

    with pytest.raises(Unsupported, match="Defended"):
        logit_box(Defended(nn.Flatten()), torch.rand(3, 2, 4, 4), 0.1)
