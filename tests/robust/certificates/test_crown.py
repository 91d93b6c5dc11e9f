"""CROWN: exact on one linear layer, the dual network on toys, never above an attack, never looser than boxes."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmarks.foreign_nets import load_net
from robust.attacks.pgd import PGD
from robust.certificates.affine import steps_of
from robust.certificates.bounds import Unsupported
from robust.certificates.certificate import FALSIFIED, UNKNOWN, VERIFIED
from robust.certificates.crown import Crown
from robust.certificates.interval import Interval, margins_within
from robust.certificates.linear_bounds import margins
from robust.certificates.relaxations import Ball
from robust.classifier import Classifier
from robust.datasets.mnist import MNIST
from robust.randomness import Randomness

CLASSES = 4
DUAL = {"linf": 1, "l2": 2, "l1": float("inf")}
SETTINGS = [(slope, where) for slope in ("parallel", "adaptive") for where in ("backward", "interval")]


def stack(kind: str) -> nn.Sequential:
    layers = {
        "linear": [nn.Flatten(), nn.Linear(72, CLASSES)],
        "mlp": [nn.Flatten(), nn.Linear(72, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, CLASSES)],
        "strided": [
            nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 2, groups=2),
            nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(24, 6), nn.ReLU(), nn.ReLU(), nn.Linear(6, CLASSES),
        ],
        "pooled": [
            nn.Sequential(nn.Conv2d(2, 4, 3, padding="same", bias=False), nn.BatchNorm2d(4), nn.ReLU()),
            nn.AvgPool2d(2, stride=1, padding=1), nn.Conv2d(4, 4, (3, 2), stride=(3, 2), dilation=(1, 2)), nn.ReLU(),
            nn.Identity(), nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, CLASSES),
        ],
    }  # fmt: skip
    return nn.Sequential(*layers[kind])


def classifier(kind: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Classifier:
    torch.manual_seed(seed)
    found = Classifier(stack(kind), mean=(0.3, 0.5), std=(0.2, 0.4), num_classes=CLASSES).to(dtype)
    for module in found.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.3, 1)
    return found.eval().requires_grad_(False)


def apart(net: Classifier, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = net(images).double()
    return logits.gather(1, labels[:, None]) - logits


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.01), ("l2", 0.05), ("l1", 0.2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_linear_layer_is_decided_exactly_in_every_norm(norm, eps, dtype):
    net = classifier("linear", dtype=dtype)
    images = 0.3 + 0.4 * torch.rand(80, 2, 6, 6, dtype=dtype)  # the box [0,1] is out of reach
    labels = net(images).argmax(1)
    weight = net.module[1].weight.double() / net.std.double().expand(1, 2, 6, 6).flatten()
    steep = torch.linalg.vector_norm(weight[labels][:, None] - weight, ord=DUAL[norm], dim=2)
    radii = (apart(net, images, labels) / steep).scatter(1, labels[:, None], torch.inf).amin(1)
    labels[:10] = (labels[:10] + 1) % CLASSES
    found = Crown(norm=norm, eps=eps).certify(net, images, labels, Randomness.of(0, range(80)))
    expected = torch.where(radii > eps, VERIFIED, UNKNOWN)
    expected[:10] = FALSIFIED
    clear = (radii - eps).abs() > 1e-4
    assert torch.equal(found.verdict[clear], expected[clear])
    assert (found.verdict == VERIFIED).sum() > 10
    assert (found.verdict == UNKNOWN).sum() > 10
    sharp = Crown(norm=norm, eps=eps, bisections=14).certify(net, images, labels, Randomness.of(0, range(80)))
    near = (radii < 0.9) & (torch.arange(80) >= 10) & ((radii < eps) | (norm != "linf"))
    torch.testing.assert_close(sharp.radius[near], radii[near], atol=3e-4, rtol=1e-3)
    assert (sharp.radius[near] <= radii[near]).all()


def dual_bound(
    weights: list[torch.Tensor],
    biases: list[torch.Tensor],
    known: list[tuple[torch.Tensor, torch.Tensor]],
    form: torch.Tensor,
    image: torch.Tensor,
    eps: float,
) -> float:
    """Wong & Kolter 2018, arXiv 1711.00851, eq. 5 and 6, for one form of the output and one image, loop by loop."""
    nu, bound = -form, 0.0
    for i in reversed(range(len(weights))):
        bound -= float(nu @ biases[i])
        back = weights[i].T @ nu
        if i == 0:
            return bound - float(image @ back) - eps * float(back.abs().sum())
        lower, upper = known[i - 1]
        nu = torch.zeros_like(back)
        for unit in range(len(back)):
            low, high = float(lower[unit]), float(upper[unit])
            if low >= 0:
                nu[unit] = back[unit]
            elif high > 0:
                nu[unit] = back[unit] * high / (high - low)
                bound += low * max(float(nu[unit]), 0.0)
    raise AssertionError


def known_bounds(
    weights: list[torch.Tensor], biases: list[torch.Tensor], image: torch.Tensor, eps: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of every hidden layer: the box of what the layer before allows, met with the dual where it leaves signs open."""
    known: list[tuple[torch.Tensor, torch.Tensor]] = []
    least, most = image - eps, image + eps
    for layer, (weight, bias) in enumerate(zip(weights, biases)):
        rises, falls = weight.clamp_min(0), weight.clamp_max(0)
        lower, upper = rises @ least + falls @ most + bias, rises @ most + falls @ least + bias
        for unit, row in enumerate(torch.eye(len(bias), dtype=torch.float64)):
            if lower[unit] < 0 < upper[unit]:
                args = weights[: layer + 1], biases, known
                lower[unit] = max(float(lower[unit]), dual_bound(*args, row, image, eps))
                upper[unit] = min(float(upper[unit]), -dual_bound(*args, -row, image, eps))
        known.append((lower, upper))
        least, most = lower.clamp_min(0), upper.clamp_min(0)
    return known


@pytest.mark.parametrize("depth", [2, 3])
def test_parallel_lines_are_the_dual_network_written_out(depth):
    torch.manual_seed(depth)
    sizes = [9, 7, 6, 3] if depth == 3 else [9, 7, 3]
    linear = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    body = [part for layer in linear for part in (layer, nn.ReLU())][:-1]
    net = Classifier(nn.Sequential(nn.Flatten(), *body)).double().eval().requires_grad_(False)
    weights, biases = [layer.weight for layer in linear], [layer.bias for layer in linear]
    images, eps = 0.4 + 0.2 * torch.rand(6, 1, 3, 3, dtype=torch.float64), 0.3
    labels = net(images).argmax(1)
    ball = Ball(images, torch.full((6,), eps, dtype=torch.float64), "linf")
    found = margins(steps_of(net, (1, 3, 3)), ball, labels, "parallel", "backward")
    crossing = 0
    for image, label, bounds in zip(images.flatten(1), labels, found):
        known = known_bounds(weights[:-1], biases[:-1], image, eps)
        crossing += sum(int(((lower < 0) & (upper > 0)).sum()) for lower, upper in known)
        for other in range(3):
            form = F.one_hot(label, 3).double() - F.one_hot(torch.tensor(other), 3).double()
            expected = dual_bound(weights, biases, known, form, image, eps)
            assert float(bounds[other]) == pytest.approx(expected, abs=1e-9)
    assert crossing > 5


@pytest.mark.parametrize("kind", ["mlp", "strided", "pooled"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**20), size=st.sampled_from([0.02, 0.2, 1.0]), dtype=st.sampled_from(["32", "64"]))
def test_no_attack_comes_below_the_bound(kind, norm, seed, size, dtype):
    eps = size * {"linf": 0.2, "l2": 1.0, "l1": 5.0}[norm]
    net = classifier(kind, seed, getattr(torch, f"float{dtype}"))
    images = torch.rand(4, 2, 6, 6, dtype=net.dtype)
    labels, radius = torch.arange(4) % CLASSES, torch.full((6,), eps, dtype=torch.float64)
    attack = PGD(norm=norm, eps=repr(eps), steps=10, loss="margin")
    rng = Randomness.of(seed, range(4))
    attacked = [attack.perturb(net, images, labels, rng), *(attack.threat.random_start(images, rng) for _ in range(5))]
    reached = torch.stack([apart(net, image, labels) for image in attacked]).amin(0)
    boxes = margins_within(net, images, labels, attack.threat).double()
    for slope, intermediate in SETTINGS:
        crown = Crown(norm=norm, eps=repr(eps), slope=slope, intermediate=intermediate)
        bounds = crown.margins(net, images, labels, radius)
        assert (reached >= bounds).all()
        assert (bounds >= boxes).all()
        assert (bounds.gather(1, labels[:, None]) == 0).all()
        assert crown.reproduces(net, images, net(images))


@pytest.mark.parametrize("slope", ["parallel", "adaptive"])
def test_backward_bounds_are_worth_their_cost(slope):
    net = classifier("strided")
    images, labels = torch.rand(8, 2, 6, 6, dtype=torch.float64), torch.arange(8) % CLASSES
    others = torch.arange(CLASSES) != labels[:, None]
    for norm, eps in (("linf", "1/20"), ("l2", "1/2")):
        radius = torch.full((8,), float(Crown(norm=norm, eps=eps).threat.radius))
        dear, cheap = (
            Crown(norm=norm, eps=eps, slope=slope, intermediate=where).margins(net, images, labels, radius)[others]
            for where in ("backward", "interval")
        )
        boxes = margins_within(net, images, labels, Crown(norm=norm, eps=eps).threat)[others]
        assert (dear >= cheap - 1e-9).all()
        assert dear.mean() > cheap.mean() > boxes.mean()


def test_neither_batch_nor_portion_shows_in_the_bounds(monkeypatch):
    net = classifier("strided")
    images, labels = torch.rand(6, 2, 6, 6, dtype=torch.float64), torch.arange(6) % CLASSES
    radii = torch.linspace(0, 0.2, 6, dtype=torch.float64)
    crown = Crown(norm="linf", eps="1/10")
    whole = crown.margins(net, images, labels, radii)
    alone = [crown.margins(net, images[[i]], labels[[i]], radii[[i]]) for i in range(6)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr("robust.certificates.linear_bounds.ELEMENTS", 200)
    monkeypatch.setattr("robust.certificates.crown.WIDTH", 200)
    torch.testing.assert_close(crown.margins(net, images, labels, radii), whole, rtol=1e-12, atol=1e-12)
    rng = Randomness.of(0, range(6))
    once = crown.certify(net, images, labels, rng)
    parts = [crown.certify(net, images[r], labels[r], rng.select(r)) for r in torch.arange(6).split(4)]
    assert torch.equal(torch.cat([part.verdict for part in parts]), once.verdict)


@pytest.mark.parametrize("slope", ["parallel", "adaptive"])
def test_the_rounding_of_a_network_in_float32_is_part_of_the_bound(slope):
    net = classifier("mlp", dtype=torch.float32)
    net.module[1].bias.add_(3e4)  # float32 keeps steps of 0.002 of what follows
    net.module[3].bias.sub_(net.module[3].weight.sum(1) * 3e4)
    images = torch.rand(200, 2, 6, 6)
    labels = torch.arange(200) % CLASSES
    bounds = Crown(norm="linf", eps=0, slope=slope).margins(net, images, labels, torch.zeros(200))
    exact = net.double()
    lost = (apart(exact, images.double(), labels) - apart(exact.float(), images, labels)).abs()
    assert lost.max() > 1e-3
    assert (apart(net, images, labels) >= bounds).all()
    assert (apart(net, images, labels) - bounds).max() < 10


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(2, 2, 3), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), nn.Flatten()),
            r"layer 1.1 \(Max",
        ),
        (nn.Sequential(nn.Flatten(), nn.LeakyReLU()), r"layer 1 \(LeakyReLU\)"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")), "layer 0 .*padding_mode"),
        (nn.Sequential(nn.Conv2d(2, 2, 2, padding="same")), "layer 0 .*odd kernel"),
        (nn.Sequential(nn.Linear(5, 3)), "layer 0 .*shape"),
        (nn.Sequential(nn.BatchNorm2d(2).train()), "layer 0 .*eval"),
        (nn.Sequential(nn.Dropout().train()), "layer 0 .*eval"),
        (nn.Flatten(0), "the network .*apart"),
        (nn.GroupNorm(1, 2), r"the network \(GroupNorm\)"),
        (lambda x: x.flatten(1), "the network"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(module, message):
    with pytest.raises(Unsupported, match=message):
        steps_of(Classifier(module), (2, 6, 6))


def test_classifiers_that_are_not_what_they_seem_are_refused():
    class Defended(Classifier):
        def forward(self, images):
            return super().forward(images.round())

    with pytest.raises(Unsupported, match="Defended"):
        steps_of(Defended(nn.Flatten()), (2, 6, 6))
    with pytest.raises(Unsupported, match="float32 or float64"):
        steps_of(classifier("linear", dtype=torch.bfloat16), (2, 6, 6))
    net = classifier("mlp")
    net.module[1].register_forward_hook(lambda layer, inputs, output: output + 1)
    images = torch.rand(3, 2, 6, 6, dtype=torch.float64)
    with pytest.raises(Unsupported, match="not those of its operations"):
        Crown(norm="linf", eps="1/10").certify(net, images, net(images).argmax(1), Randomness.of(0, range(3)))


def test_a_network_inside_another_classifier_is_read_through():
    inner = classifier("mlp")
    outer = Classifier(nn.Sequential(inner), num_classes=CLASSES)
    images, labels = torch.rand(3, 2, 6, 6, dtype=torch.float64), torch.arange(3)
    crown, radius = Crown(norm="l2", eps="1/10"), torch.full((3,), 0.1)
    torch.testing.assert_close(
        crown.margins(outer, images, labels, radius), crown.margins(inner, images, labels, radius)
    )


@pytest.mark.data("nets", "mnist")
def test_it_proves_what_intervals_cannot_on_a_provably_trained_network():
    net = Classifier(load_net("mnist_wong_kolter.pth"), num_classes=10)
    images, labels, ids = MNIST(test=12).load("test").batch(slice(None))
    claims = [kind(norm="linf", eps="1/10") for kind in (Interval, Crown)]
    proven = [
        int((claim.certify(net, images, labels, Randomness.of(0, ids)).verdict == VERIFIED).sum()) for claim in claims
    ]
    assert proven[0] == 0
    assert proven[1] >= 10
