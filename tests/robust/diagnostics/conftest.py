"""Digits, and nets trained on them once a session, that the zoos share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robust.datasets.digits import Digits

Data = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="session")
def digits() -> tuple[Data, Data]:
    """(train, test) of scikit-learn's digits: images [N,1,8,8], labels, ids; 250 test images."""
    spec = Digits()
    train, test = spec.load("train"), spec.load("test")
    return train.batch(slice(None, 1000)), test.batch(slice(0, 250))


@pytest.fixture(scope="session")
def fitted(digits) -> Callable[..., nn.Module]:
    """Train a module on digits: `fitted(module, loss=cross-entropy, epochs=8)`; leaves it in eval mode."""

    def fit(module: nn.Module, loss=nn.functional.cross_entropy, epochs: int = 8, seed: int = 0) -> nn.Module:
        images, labels, _ = digits[0]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for layer in module.modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
            optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
            module.train()
            for _ in range(epochs):
                for rows in torch.randperm(len(labels)).split(64):
                    optimiser.zero_grad()
                    loss(module(images[rows]), labels[rows]).backward()
                    optimiser.step()
        return module.eval()

    return fit


@pytest.fixture(scope="session")
def plain(fitted) -> nn.Module:
    """An undefended perceptron 64 - 64 - 64 - 10 of about 96 %."""
    hidden = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    return fitted(nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10)))
