"""Defences known to be broken: each in three strengths, each found out, and for its own reason."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchdiffeq import odeint

from robust.attacks.pgd import PGD
from robust.classifier import Classifier
from robust.defences.input_quantisation import InputQuantisation
from robust.defences.random_resize_pad import RandomResizePad
from robust.diagnostics.masking import diagnose
from robust.diagnostics.verdict import verdict_for
from robust.threat import ThreatModel

LINF = ThreatModel(norm="linf", eps="1/10")


class Scaled(nn.Module):
    def __init__(self, net, factor):
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x):
        return self.factor * self.net(x)


class Saturating(nn.Module):
    """Hidden units tanh(gain z)."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.gain = gain

    def forward(self, x):
        z = torch.tanh(self.gain * self.first(x.flatten(1)))
        return self.last(torch.tanh(self.gain * self.second(z)))


class WinnersTakeAll(nn.Module):
    """k-winners-take-all instead of ReLU (Xiao et al. 2019, arXiv 1905.10510)."""

    def __init__(self, share):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(64, 256), nn.Linear(256, 256), nn.Linear(256, 10)
        self.share = share

    def sparse(self, z):
        kept = z.topk(int(self.share * z.shape[1]), dim=1).values[:, -1:]
        return z * (z >= kept)

    def forward(self, x):
        return self.last(self.sparse(self.second(self.sparse(self.first(x.flatten(1))))))


class Solver(nn.Module):
    """dz/dt = tanh(W z), solved with an adaptive step."""

    def __init__(self, rtol):
        super().__init__()
        self.stem, self.field, self.last = nn.Linear(64, 48), nn.Linear(48, 48), nn.Linear(48, 10)
        self.rtol, self.atol = rtol, rtol

    def forward(self, x):
        times = torch.tensor([0.0, 3.0])
        rate = lambda _, z: 2 * torch.tanh(self.field(z))  # noqa: E731
        z = odeint(rate, self.stem(x.flatten(1)), times, rtol=self.rtol, atol=self.atol, method="dopri5")[-1]
        return self.last(z)


class CrossMax(nn.Module):
    """Heads on every layer, robustly aggregated (Fort & Lakshminarayanan 2024, arXiv 2408.05446, algorithm 1)."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 64) for _ in range(layers)])
        self.heads = nn.ModuleList([nn.Linear(64, 10) for _ in range(layers)])

    def outputs(self, x):
        z, found = x.flatten(1), []
        for layer, head in zip(self.layers, self.heads):
            z = F.relu(layer(z))
            found.append(head(z))
        return torch.stack(found, 1)

    def forward(self, x):
        z = self.outputs(x)
        if self.training:
            return z
        z = z - z.amax(2, keepdim=True)
        z = z - z.amax(1, keepdim=True)
        return z.median(1).values


class Turncoat(nn.Module):
    """Honest while it is trained, quantising when it is evaluated."""

    def __init__(self, net, levels):
        super().__init__()
        self.net, self.levels = net, levels

    def forward(self, x):
        return self.net(x if self.training else (x * self.levels).round() / self.levels)


class BatchStatistics(nn.Module):
    """BatchNorm that mixes the statistics of the batch into those it has learnt, in eval mode as well."""

    def __init__(self, share):
        super().__init__()
        self.first, self.second, self.share = nn.Linear(64, 64), nn.Linear(64, 10), share
        self.norm = nn.BatchNorm1d(64)

    def forward(self, x):
        z = self.first(x.flatten(1))
        learnt = F.batch_norm(z, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)
        batch = F.batch_norm(z, None, None, self.norm.weight, self.norm.bias, training=True)
        z = self.norm(z) if self.training else self.share * batch + (1 - self.share) * learnt
        return self.second(F.relu(z))


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    """Smoothed labels and a price on the logits' size (Kannan et al. 2018, arXiv 1803.06373)."""
    return F.cross_entropy(logits, labels, label_smoothing=0.5) + 0.2 * logits.square().sum(1).mean()


def perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def several(outputs: Tensor, labels: Tensor) -> Tensor:
    return sum(F.cross_entropy(outputs[:, head], labels) for head in range(outputs.shape[1]))


def sharpened(module: Saturating, gain: float) -> Saturating:
    module.gain = gain
    return module


ZOO = {
    "logit scale": ((1e2, 1e3, 1e4), lambda s, fit, net: Scaled(net, s), {"logit scale", "gradient of cross-entropy"}),
    "saturated tanh": (
        (30.0, 100.0, 300.0),
        lambda s, fit, net: sharpened(fit(Saturating()), s),
        {"gradient of the margin", "slopes as the gradient says", "not beaten by square"},
    ),
    "quantised": (
        (3, 2, 1),
        lambda s, fit, net: InputQuantisation(bits=s).wrap(Classifier(net, num_classes=10)),
        {"gradient of the margin"},
    ),
    "resized": (
        (0.9, 0.8, 0.7),
        lambda s, fit, net: RandomResizePad(smallest=s).wrap(Classifier(net, num_classes=10)),
        {"random, so averaged"},
    ),
    "k winners": (
        (0.2, 0.1, 0.05),
        lambda s, fit, net: fit(WinnersTakeAll(s)),
        {"slopes as the gradient says"},
    ),
    "adaptive solver": (
        (1e-3, 1e-2, 1e-1),
        lambda s, fit, net: fit(Solver(s), epochs=4),
        {"a fixed number of steps"},
    ),
    "squeezed": (
        (1e-1, 1e-2, 1e-4),
        lambda s, fit, net: Scaled(fit(perceptron(), smoothed), s),
        {"logit scale", "confidence"},
    ),
    "crossmax": (
        (3, 5, 7),
        lambda s, fit, net: fit(CrossMax(s), several),
        {"falls with steps", "not beaten by smoothed gradient", "not beaten by long steps"},
    ),
    "turncoat": ((15, 7, 3), lambda s, fit, net: Turncoat(net, s), {"evaluated as trained"}),
    "batch statistics": ((0.2, 0.5, 1.0), lambda s, fit, net: fit(BatchStatistics(s)), {"alone as in a batch"}),
}


class Through(nn.Module):
    """An undefended net between two functions: of its images, of its logits."""

    def __init__(self, net, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x):
        return self.after(self.net(self.before(x)))


class Flipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Poisoned(Flipped):
    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.nan


class Shuffled(Flipped):
    @staticmethod
    def backward(ctx, gradient):
        return gradient.roll(3, 3)


def one_hot(z):
    return F.one_hot(z.argmax(1), z.shape[1]).float()


def by_position(x):
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return x + 0.1 * noise


def by_content(x):
    # noise drawn from the bytes of each image
    def noise(image):
        seed = hash(image.detach().numpy().tobytes()) % 2**31
        return torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))

    return x + 0.15 * torch.stack([noise(image) for image in x])


def denoised(x):
    with torch.no_grad():
        z = x
        for _ in range(3):
            z = 0.5 * z + 0.5 * F.avg_pool2d(z, 3, 1, 1)
    return z


def pruned(z):
    return z * (torch.rand_like(z) < 0.9)


def watched(x):
    return x + 0.1 if x.requires_grad else x


def low_bits(x):
    # the picture is kept to 4 bits, the rest is folded up and down: gradients without a meaning
    return (x * 15).round() / 15 + 0.02 * torch.sin(400 * x)


OTHERS = {
    "one-hot outputs": lambda net: Through(net, after=one_hot),
    "cold softmax": lambda net: Through(net, after=lambda z: (z / 1e-3).softmax(1)),
    "clipped log-probabilities": lambda net: Through(net, after=lambda z: z.softmax(1).clamp(1e-2, 0.8).log()),
    "flipped gradient": lambda net: Through(net, before=Flipped.apply),
    "NaN gradient": lambda net: Through(net, before=Poisoned.apply),
    "wrong gradient": lambda net: Through(net, before=Shuffled.apply),
    "noise by position": lambda net: Through(net, before=by_position),
    "noise by content": lambda net: Through(net, before=by_content),
    "detached denoiser": lambda net: Through(net, before=denoised),
    "pruned at random": lambda net: Through(net, before=pruned),
    "sees the attacker": lambda net: Through(net, before=watched),
    "sine in the low bits": lambda net: Through(net, before=low_bits),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_ways_to_hide_a_gradient_are_found_out(name, digits, plain):
    images, labels, ids = digits[1]
    found = diagnose(Classifier(OTHERS[name](plain), num_classes=10), images, labels, ids, [LINF], seed=0, samples=96)
    verdict, _ = verdict_for("pgd", PGD(threat=LINF), [], found.checks)
    assert verdict != "trusted"


CASES = [(name, strength) for name, (strengths, _, _) in ZOO.items() for strength in strengths]


@pytest.mark.parametrize(("name", "strength"), CASES, ids=[f"{name}-{strength}" for name, strength in CASES])
def test_a_broken_defence_is_found_out(name, strength, digits, fitted, plain):
    _, build, own = ZOO[name]
    built = build(strength, fitted, plain)
    classifier = built if isinstance(built, Classifier) else Classifier(built, num_classes=10)
    images, labels, ids = digits[1]
    found = diagnose(classifier, images, labels, ids, [LINF], seed=0, samples=96)
    failed = {check.check for check in found.checks if not check.passed}
    verdict, reasons = verdict_for("pgd", PGD(threat=LINF), [], found.checks)
    assert verdict != "trusted"
    assert failed & own, failed
    assert reasons
