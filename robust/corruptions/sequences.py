"""The perturbation sequences of ImageNet-P: one image, 31 frames, each a little different from the one before.

Frame i of a sequence is a pure function of (image, i, randomness), so that a frame can be judged by itself and the
flips counted afterwards (`robust.shift.flip_probability`). Published for 224 pixels; lengths are scaled to the side.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from robust.corruptions import draws, filters, warps
from robust.corruptions.brightness import brighter
from robust.corruptions.colour import luminance
from robust.corruptions.shot_noise import photons
from robust.randomness import Randomness

FRAMES = 31
NOISES = ("gaussian-noise", "shot-noise")  # frames are compared with the first, the clean image, not with the last
Sequence = Callable[[Tensor, Randomness, int, int], Tensor]


def frames(name: str, images: Tensor, rng: Randomness, difficulty: int = 1) -> Tensor:
    """All frames of a sequence: [N,T,C,H,W] of images [N,C,H,W], with T = 31, 16 or 11 at difficulty 1, 2 or 3."""
    count = FRAMES if name in NOISES else (FRAMES - 1) // difficulty + 1
    return torch.stack([frame(name, images, rng, i, difficulty) for i in range(count)], dim=1)


def frame(name: str, images: Tensor, rng: Randomness, number: int, difficulty: int = 1) -> Tensor:
    """Frame `number` [N,C,H,W] in [0,1]; the difficulty is the noise's strength, or how many frames a step takes.

    Raises:
        ValueError: if there is no such sequence or frame.
    """
    if name not in SEQUENCES:
        raise ValueError(f"no perturbation sequence is called {name!r}; there are {', '.join(SEQUENCES)}")
    position = number if name in NOISES else number * difficulty
    if not 0 <= position < FRAMES:
        raise ValueError(f"{name} has no frame {number} at difficulty {difficulty}; its last is at position 30")
    return SEQUENCES[name](images, rng, position, difficulty).clamp(0, 1)


def _gaussian_noise(images: Tensor, rng: Randomness, i: int, difficulty: int) -> Tensor:
    noise = draws.normal(rng.fork("frame", i), tuple(images.shape[1:]), images)
    return images.add(noise, alpha=(0.03, 0.05, 0.08)[difficulty - 1]) if i else images


def _shot_noise(images: Tensor, rng: Randomness, i: int, difficulty: int) -> Tensor:
    return photons(images, rng.fork("frame", i), (300, 120, 60)[difficulty - 1]) if i else images


def _motion_blur(images: Tensor, rng: Randomness, i: int, difficulty: int) -> Tensor:
    radius, sigma = (10, 3.0) if _large(images) else (6, 1.0)
    return filters.motion_blur(images, radius, sigma, [4.0 * (i - 30)] * len(images))


def _zoom_blur(images: Tensor, rng: Randomness, i: int, difficulty: int) -> Tensor:
    total = images.clone()
    for k in range(1, i + 1):
        total += warps.clipped_zoom(images, 1 + 0.004 * k)
    return total / (i + 1)


def _snow(images: Tensor, rng: Randomness, i: int, difficulty: int) -> Tensor:
    zoom, radius, sigma = (3.0, 14, 4.0) if _large(images) else (1.0, 8, 3.0)
    drawn = draws.normal(rng.fork("flakes"), (1, *images.shape[-2:]), images)  # the flakes stay, the wind turns
    flakes = warps.clipped_zoom(0.05 + 0.3 * drawn, zoom)
    flakes = flakes.masked_fill(flakes < 0.5, 0).clamp(0, 1)
    flakes = filters.motion_blur(flakes, radius, sigma, [4.0 * i - 150] * len(images))
    return 0.85 * images + 0.15 * (1.5 * luminance(images) + 0.5).maximum(images) + (flakes + flakes.flip(2, 3))


def _brightness(images: Tensor, rng: Randomness, i: int, difficulty: int) -> Tensor:
    return brighter(images, (i - 15) * 0.02)


def _translate(images: Tensor, rng: Randomness, i: int, difficulty: int) -> Tensor:
    move = (i - 15) * images.shape[-1] / 224
    return warps.affine(images, [(1.0, 0.0, -move, 0.0, 1.0, 0.0)] * len(images))


def _rotate(images: Tensor, rng: Randomness, i: int, difficulty: int) -> Tensor:
    return warps.affine(images, [warps.rotation(images, math.radians(i - 15))] * len(images))


def _scale(images: Tensor, rng: Randomness, i: int, difficulty: int) -> Tensor:
    step = 1 / (0.4 + 0.025 * i)
    return warps.affine(images, [warps.about_centre(images, step, 0, 0, step)] * len(images))


def _tilt(images: Tensor, rng: Randomness, i: int, difficulty: int) -> Tensor:
    """The image on a board that turns about both axes by i - 15 degrees, seen from its diagonal's length away."""
    height, width = images.shape[-2:]
    angle, far = math.radians(i - 15), math.hypot(width, height)
    sin, cos = math.sin(angle), math.cos(angle)
    board = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]])
    about_y = np.array([[cos, 0, -sin, 0], [0, 1, 0, 0], [sin, 0, cos, 0], [0, 0, 0, 1]])
    eye = np.array(
        [[far, 0, (width - 1) / 2, far * (width - 1) / 2], [0, far, (height - 1) / 2, far * (height - 1) / 2]]
    )
    seen = np.vstack([eye, [0, 0, 1, far]]) @ about_x @ about_y @ board
    a, b, c, d, e, f, g, h, k = np.linalg.inv(seen).flatten().tolist()
    x, y = warps.pixel_grid(images)
    depth = x * g + y * h + k
    spread = [(n / depth).expand(len(images), -1, -1) for n in (x * a + y * b + c, x * d + y * e + f)]
    return warps.read_at(images, *spread)


def _large(images: Tensor) -> bool:
    return max(images.shape[-2:]) > 64


SEQUENCES: dict[str, Sequence] = {
    "gaussian-noise": _gaussian_noise,
    "shot-noise": _shot_noise,
    "motion-blur": _motion_blur,
    "zoom-blur": _zoom_blur,
    "snow": _snow,
    "brightness": _brightness,
    "translate": _translate,
    "rotate": _rotate,
    "tilt": _tilt,
    "scale": _scale,
}
