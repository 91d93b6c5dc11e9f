"""Networks that others trained, as the benchmarks load them from `nets/` under ROBUST_DATA.

`mnist_lenet5_clntrained.pt` and `mnist_lenet5_advtrained.pt` are advertorch's LeNet5 (Ding et al. 2019, arXiv
1902.07623), trained plainly and by PGD at linf 0.3; `mnist_wong_kolter.pth` is the provably trained network of Wong &
Kolter 2018 (arXiv 1711.00851) for linf 0.1. All take images in [0,1] [N,1,28,28] and return logits [N,10].
`cifar10_resnet20-12fca82f.th` is the CIFAR-10 ResNet-20 of He et al. 2016 (arXiv 1512.03385, section 4.2), trained on
images [N,3,32,32] normalised by ImageNet's mean and standard deviation.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust.datasets.root import root


def lenet() -> nn.Module:
    """Two 3x3 convolutions of 32 and 64 channels, each pooled by 2, and two linear layers."""
    parts = [nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*parts, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 200), nn.ReLU(), nn.Linear(200, 10))


def wong_kolter() -> nn.Module:
    """Two 4x4 convolutions of 16 and 32 channels with stride 2, and two linear layers."""
    parts = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut without weights: every other pixel, new channels empty (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.empty = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] to [N,C',H/stride,W/stride]."""
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.empty, self.empty))
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + shortcut)


class ResNet20(nn.Module):
    """Three stages of three residual blocks with 16, 32 and 64 channels, mean over the pixels, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for stage in (1, 2, 3):
            first = Residual(widths[stage - 1], widths[stage], 1 if stage == 1 else 2)
            rest = [Residual(widths[stage], widths[stage], 1) for _ in range(2)]
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [N,3,32,32] to logits [N,10]."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.linear(x.mean((2, 3)))


def path_of(name: str) -> Path:
    """Where the file of this network belongs."""
    return root() / "nets" / name


def load_net(name: str) -> nn.Module:
    """The network in eval mode; the files name their layers in other ways, but keep their order."""
    net = ResNet20() if "resnet20" in name else wong_kolter() if "wong" in name else lenet()
    stored = torch.load(path_of(name), weights_only=True, map_location="cpu")
    stored = stored.get("state_dict", stored)
    stored = stored[0] if isinstance(stored, list) else stored
    names = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]  # older than that counter
    net.load_state_dict(dict(zip(names, stored.values(), strict=True)))
    return net.eval()
