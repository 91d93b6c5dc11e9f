"""A contact sheet of every corruption: photographs at the severities 1, 3 and 5, digits at all five.

Run it as `python benchmarks/corruption_sheet.py [picture]`; the default picture is docs/corruptions.png. Photographs
(224 pixels, the constants of ImageNet-C) and digits come from ROBUST_DATA (`imagenet_samples`, `mnist`). Where the
public per-image implementation `imagecorruptions` is installed, its version of each photograph stands beside ours.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from corruption_peer import peer_image, peer_names
from matplotlib import pyplot as plt
from PIL import Image
from torch import Tensor

from robust.corruptions.suites import COMMON, MNIST_C, WITHOUT_TABLE
from robust.datasets.root import root
from robust.randomness import Randomness
from robust.registry import create

SIDE = 224
EXTRA = ("translate", "crop", "colour-cast")


def photographs(count: int) -> Tensor:
    """The first sample photographs, cut to squares: [count,3,224,224] in [0,1]."""
    files = sorted(
        path for path in (root() / "imagenet_samples").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    images = []
    for path in files[:count]:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        side = min(picture.size)
        left, top = ((length - side) // 2 for length in picture.size)
        picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
        images.append(np.asarray(picture, dtype=np.float32) / 255)
    return torch.as_tensor(np.stack(images)).permute(0, 3, 1, 2)


def digits() -> Tensor:
    """One handwritten digit, [1,1,28,28]."""
    return create("dataset", "mnist").load("test").batch(slice(0, 1))[0]


def worn(name: str, severity: int, images: Tensor, **settings: object) -> Tensor:
    corruption = create("corruption", {"name": name, "severity": severity, **settings})
    return corruption.apply(images, Randomness.of(0, range(len(images)), name))


def rows() -> list[tuple[str, list[np.ndarray]]]:
    """A row of pictures [H,W,3] for each corruption: photographs for the common ones, then digits."""
    found = []
    image = photographs(1)
    public = peer_names()
    for name in (*COMMON, *EXTRA):
        strips = []
        for severity in (1, 3, 5):
            strips.append(_shown(worn(name, severity, image)))
            theirs = peer_image(name, severity, _shown(image)) if name in public else np.full((SIDE, SIDE, 3), 255)
            strips.append(np.asarray(theirs, dtype=np.uint8))
        found.append((name, strips))
    digit = digits()
    for name in MNIST_C:
        settings = {} if name in WITHOUT_TABLE else {"table": "imagenet"}
        strips = [_shown(worn(name, severity, digit, **settings)) for severity in range(1, 6)]
        found.append((f"{name} (digit)", [_shown(digit), *strips]))
    return found


def _shown(images: Tensor) -> np.ndarray:
    pixels = (images[0].permute(1, 2, 0) * 255).round().byte().numpy()
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def draw(path: Path) -> None:
    matplotlib.use("Agg")
    table = rows()
    half = (len(table) + 1) // 2
    figure, axes = plt.subplots(half, 12, figsize=(15, 1.32 * half), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for k, (name, pictures) in enumerate(table):
        across = axes[k % half, 6 * (k // half) : 6 * (k // half) + 6]
        across[0].set_title(name, fontsize=7, loc="left", pad=2)
        for axis, picture in zip(across, pictures):
            axis.imshow(picture)
    figure.suptitle("Severity 1, 3, 5: ours, then imagecorruptions'; digits: clean, then severity 1 to 5", fontsize=9)
    figure.subplots_adjust(left=0.005, right=0.995, top=0.96, bottom=0.005, wspace=0.03, hspace=0.16)
    figure.savefig(drawn := io.BytesIO(), dpi=80)
    Image.open(drawn).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "docs" / "corruptions.png")
