"""Nets that the attack tests share: one trained on scikit-learn's digits, and a linear one with known distances."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from robust.classifier import Classifier

Net = tuple[Classifier, Tensor, Tensor]


@pytest.fixture(scope="session")
def digits_net() -> Net:
    """(classifier, images [300,1,8,8], labels) of held-out digits; a small convolutional net of about 97 %."""
    images, labels = _digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(768, 48), nn.ReLU(), nn.Linear(48, 10)
        )
        _fit(net, images[300:], labels[300:], epochs=12)
    return Classifier(net, num_classes=10), images[:300], labels[:300]


@pytest.fixture(scope="session")
def linear_net() -> Net:
    """(classifier, images [60,1,8,8], labels) in float64: logits W x + b, images far from the walls of the box.

    The distance to the boundary is min_j (z_y - z_j) / |w_y - w_j|_q, and no clip disturbs it.
    """
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(64, 4).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 64, generator=generator, dtype=torch.float64))
        layer.bias.zero_()
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    images = (0.5 + 0.1 * torch.randn(60, 1, 8, 8, generator=generator, dtype=torch.float64)).clamp(0.1, 0.9)
    classifier = Classifier(nn.Sequential(nn.Flatten(), layer), num_classes=4).double()
    return classifier, images, classifier(images).argmax(1)


def _digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return images[order], torch.tensor(data.target, dtype=torch.int64)[order]


def _fit(net: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimiser.step()
