"""One small network on digits and one on tinted digits, trained once a session; whatever stands around them varies."""

import numpy as np
import pytest
import torch
from torch import nn

from robust.datasets.dataset import Dataset
from robust.datasets.digits import Digits


class Around(nn.Module):
    """A network behind a function of its images."""

    def __init__(self, before, network, after=None):
        super().__init__()
        self.before, self.network, self.after = before, network, after or (lambda z: z)

    def forward(self, images):
        return self.after(self.network(self.before(images)))


def network(channels=1, classes=10):
    parts = [nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, classes))


def fit(net, data, steps=350):
    images, labels, _ = data.batch(slice(None))
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        rows = torch.randint(len(labels), (64,), generator=generator)
        loss = nn.functional.cross_entropy(net(images[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval().requires_grad_(False)


def tinted(data):
    """Digits 0 to 4 in red (classes 0 to 4) and in green (5 to 9); blue first, red becomes a colour never seen."""
    rows = np.flatnonzero(data.labels < 5)
    images, labels, _ = data.batch(rows)
    green = np.arange(len(rows)) % 2
    pixels = np.zeros((len(rows), 3, 8, 8), np.uint8)
    pixels[np.arange(len(rows)), green] = (images[:, 0] * 255).numpy().astype(np.uint8)
    return Dataset(
        "tinted", data.split, pixels, labels.numpy() + 5 * green, np.arange(len(rows)), tuple("abcdefghij"), "tinted"
    )


@pytest.fixture(scope="session")
def digits():
    return Digits(select=40, calibrate=40).load("test")


@pytest.fixture(scope="session")
def net(digits):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fit(network(), Digits(select=40, calibrate=40).load("train"))


@pytest.fixture(scope="session")
def colours():
    return tinted(Digits(select=40, calibrate=40).load("test"))


@pytest.fixture(scope="session")
def colour_net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fit(network(3), tinted(Digits(select=40, calibrate=40).load("train")))


@pytest.fixture(scope="session")
def around():
    return Around
