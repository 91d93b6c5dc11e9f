"""The interval certificate: exact on one linear layer, never contradicted by an attack."""

import pytest
import torch
from torch import nn

from robust.attacks.pgd import PGD
from robust.certificates.bounds import Unsupported
from robust.certificates.certificate import FALSIFIED, UNKNOWN, VERIFIED
from robust.certificates.interval import Interval
from robust.classifier import Classifier
from robust.judging import judge
from robust.models.mlp import MLP
from robust.models.model import Inputs
from robust.randomness import Randomness


def linear(classes: int = 4, dtype: torch.dtype = torch.float64) -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, classes)), mean=(0.5,), std=(0.5,)).to(dtype)


def exact_radii(net: Classifier, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """min_j (z_y - z_j) / |w_y - w_j|_1 in image units: the distance to the boundary of a linear classifier."""
    logits, weight = net(images).detach(), net.module[1].weight.detach() / 0.5
    gaps = logits.gather(1, labels[:, None]) - logits
    ratio = gaps / (weight[labels][:, None] - weight).abs().sum(2)
    return ratio.scatter(1, labels[:, None], torch.inf).amin(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_linear_layer_is_decided_exactly(dtype):
    net = linear(dtype=dtype)
    images = 0.3 + 0.4 * torch.rand(300, 1, 4, 4, dtype=dtype)  # the box [0,1] is out of reach
    labels = net(images).argmax(1)
    labels[:10] = (labels[:10] + 1) % 4
    radii = exact_radii(net, images, labels)
    eps = 0.05
    clear = (radii - eps).abs() > 1e-4  # tolerance and rounding belong to the claim
    found = Interval(norm="linf", eps=eps).certify(net, images, labels, Randomness.of(0, range(300)))
    expected = torch.where(radii > eps, VERIFIED, UNKNOWN).masked_fill(radii < 0, FALSIFIED)
    assert torch.equal(found.verdict[clear], expected[clear])
    assert (found.verdict == VERIFIED).sum() > 20
    assert (found.verdict == UNKNOWN).sum() > 20
    assert torch.equal(found.radius, eps * (found.verdict == VERIFIED).double())


def test_bisection_finds_the_largest_radius():
    net = linear()
    images = 0.3 + 0.4 * torch.rand(40, 1, 4, 4, dtype=torch.float64)
    labels = net(images).argmax(1)
    found = Interval(norm="linf", eps="1/50", bisections=20).certify(net, images, labels, Randomness.of(0, range(40)))
    inside = exact_radii(net, images, labels)
    inside = inside[inside < 0.3]
    radius = found.radius[exact_radii(net, images, labels) < 0.3]
    torch.testing.assert_close(radius, inside, atol=2e-5, rtol=1e-4)
    assert (radius <= inside).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_verified_is_never_falsified_by_pgd(norm):
    torch.manual_seed(1)
    net = MLP(hidden=(12,)).classifier(Inputs(shape=(1, 4, 4), num_classes=3, mean=(0.5,), std=(0.5,)))
    images = torch.rand(200, 1, 4, 4)
    labels = net(images).argmax(1)
    rng = Randomness.of(0, range(200))
    for eps in ("1/100", "1/30", "1/10"):
        found = Interval(norm=norm, eps=eps).certify(net, images, labels, rng)
        attack = PGD(norm=norm, eps=eps, steps=20, loss="margin")
        rows = judge(net, images, labels, torch.arange(200), attack, 0, certify_first=False).rows
        assert not (rows["success"].to_numpy() & (found.verdict == VERIFIED).numpy()).any()
    assert (Interval(norm=norm, eps="1/1000").certify(net, images, labels, rng).verdict == VERIFIED).any()


def test_no_images_no_verdicts():
    found = Interval(norm="linf", eps="1/10").certify(
        linear(), torch.rand(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64), Randomness.of(0, [])
    )
    assert found.verdict.shape == found.radius.shape == (0,)


def test_a_radius_is_needed():
    with pytest.raises(ValueError, match="needs a radius"):
        Interval()


def test_a_network_that_draws_is_refused():
    net = Classifier(lambda x: (x + 0.1 * torch.randn(1, 1, 4, 4)).flatten(1))
    images = torch.rand(4, 1, 4, 4)
    with pytest.raises(Unsupported, match="draw at random"):
        Interval(norm="linf", eps="1/10").certify(net, images, torch.zeros(4, dtype=torch.int64), Randomness.of(0, [0]))
