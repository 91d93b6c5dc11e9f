"""Networks that others trained on MNIST, as the attack benchmarks load them from `nets/` under ROBUST_DATA.

`mnist_lenet5_clntrained.pt` and `mnist_lenet5_advtrained.pt` are advertorch's LeNet5 (Ding et al. 2019, arXiv
1902.07623), trained plainly and by PGD at linf 0.3; `mnist_wong_kolter.pth` is the provably trained network of Wong &
Kolter 2018 (arXiv 1711.00851) for linf 0.1. All take images in [0,1] [N,1,28,28] and return logits [N,10].
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from robust.datasets.root import root


def lenet() -> nn.Module:
    """Two 3x3 convolutions of 32 and 64 channels, each pooled by 2, and two linear layers."""
    parts = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*parts, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 200), nn.ReLU(), nn.Linear(200, 10))


def wong_kolter() -> nn.Module:
    """Two 4x4 convolutions of 16 and 32 channels with stride 2, and two linear layers."""
    parts = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))


def path_of(name: str) -> Path:
    """Where the file of this network belongs."""
    return root() / "nets" / name


def load_net(name: str) -> nn.Module:
    """The network in eval mode; the files name their layers in other ways, but keep their order."""
    net = wong_kolter() if "wong" in name else lenet()
    stored = torch.load(path_of(name), weights_only=True, map_location="cpu")
    stored = stored["state_dict"][0] if "state_dict" in stored else stored
    net.load_state_dict(dict(zip(net.state_dict(), stored.values(), strict=True)))
    return net.eval()
