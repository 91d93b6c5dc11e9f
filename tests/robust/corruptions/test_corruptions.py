"""What every corruption promises: shape, range, effect, severity, and bytes that depend on the sample alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from robust.corruptions.suites import COMMON, MNIST_C, suite
from robust.randomness import Randomness
from robust.registry import create

NAMES = (
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "speckle-noise",
    "defocus-blur",
    "glass-blur",
    "motion-blur",
    "zoom-blur",
    "gaussian-blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "saturate",
    "elastic-transform",
    "pixelate",
    "jpeg-compression",
    "spatter",
    "shear",
    "scale",
    "rotate",
    "translate",
    "crop",
    "stripe",
    "dotted-line",
    "zigzag",
    "canny-edges",
    "colour-cast",
    "sequence-frame",
)
# the published constants turn at some severity: paler then stronger colours, water then mud, two rounds of a slighter
# blur, blocks that fit the picture, less of the scene behind more ice; SPANS: between which severities distance grows
SPANS = {
    "saturate": ((1, 2), (3, 4), (4, 5)),
    "spatter": ((1, 3), (4, 5)),
    "motion-blur": ((1, 2), (2, 3), (3, 5)),
    "frost": ((1, 2),),
    "glass-blur": ((1, 4), (1, 5), (3, 5)),
    "pixelate": ((1, 3), (1, 4), (1, 5), (3, 5)),
    "snow": ((1, 5), (2, 5)),
    "sequence-frame": ((1, 2), (2, 3)),
}
GOLDEN = Path(__file__).parent / "golden.json"


def pictures(n: int, channels: int, side: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Smooth synthetic pictures with edges, at 8 bits: the same on every machine."""
    generator = np.random.Generator(np.random.Philox(key=7))
    coarse = torch.as_tensor(generator.integers(0, 256, (n, channels, 7, 7)) / 255)
    smooth = F.interpolate(coarse, size=side, mode="nearest")
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (0.8 * smooth + 0.2 * ((x + 2 * y) % side) / side).mul(255).round().div(255).to(dtype)


def draws(n: int) -> Randomness:
    return Randomness.of(3, range(10, 10 + n), "test")


def applied(name: str, images: torch.Tensor, severity: int = 3, **settings: object) -> torch.Tensor:
    return create("corruption", {"name": name, "severity": severity, **settings}).apply(images, draws(len(images)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 45)])
def test_keeps_shape_and_box_and_belongs_to_the_sample(name, channels, side):
    images = pictures(7, channels, side)
    before = images.clone()
    corruption = create("corruption", {"name": name, "severity": 3})
    worn = corruption.apply(images, draws(7))
    assert worn.shape == images.shape
    assert worn.dtype == images.dtype
    assert worn.isfinite().all()
    assert worn.min() >= 0
    assert worn.max() <= 1
    assert torch.equal(images, before)
    if not (name == "saturate" and channels == 1):  # grey has no colour
        assert (worn - images).abs().flatten(1).amax(1).min() > 0.01
    rows = [5, 0, 3]
    assert torch.equal(corruption.apply(images[rows], draws(7).select(rows)), worn[rows])
    assert torch.equal(corruption.apply(images[2:3], draws(7).select([2])), worn[2:3])


@pytest.mark.parametrize("name", NAMES)
def test_photographs_one_by_one_equal_the_batch(name):
    images = pictures(3, 3, 224)
    corruption = create("corruption", {"name": name, "severity": 3})
    whole = corruption.apply(images, draws(3))
    assert (whole.min(), whole.max()) >= (0, 0)
    assert whole.max() <= 1
    assert not torch.equal(whole, images)
    for i in range(3):
        assert torch.equal(corruption.apply(images[i : i + 1], draws(3).select([i])), whole[i : i + 1])


@pytest.mark.parametrize("name", NAMES)
def test_float64_agrees_with_float32(name):
    images = pictures(2, 3, 32, torch.float64)
    worn = applied(name, images)
    assert worn.dtype == torch.float64
    # a threshold may fall the other way for a pixel
    assert (worn - applied(name, images.float())).abs().mean() < 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 96)])
def test_more_severe_is_farther_from_the_clean_image(name, channels, side):
    if name == "saturate" and channels == 1:
        assert torch.equal(applied(name, pictures(2, 1, side)), pictures(2, 1, side))
        return
    # fog of severity 4 is as dense as that of 3, and only on average over its draws a little farther
    images = pictures(200 if name == "fog" else 16 if side < 64 else 6, channels, side)
    last = 3 if name == "sequence-frame" else 5
    settings = {"sequence": "gaussian-noise", "frame": 4} if name == "sequence-frame" else {}
    away = [float((applied(name, images, s, **settings) - images).abs().mean()) for s in range(1, last + 1)]
    spans = SPANS.get(name, ((1, 2), (2, 3), (3, 4), (4, 5)))
    if name == "elastic-transform" and side <= 64:
        spans = ()  # CIFAR-10-C trades wide bends for fine ones, which are nearer to the clean image
    assert all(away[b - 1] > away[a - 1] for a, b in spans), away


@pytest.mark.parametrize("name", COMMON)
def test_the_table_follows_the_size_unless_named(name):
    small = pictures(2, 3, 32)
    auto, cifar, imagenet = (applied(name, small, 5, table=table) for table in ("auto", "cifar", "imagenet"))
    assert torch.equal(auto, cifar)
    assert not torch.equal(auto, imagenet)


def test_golden_bytes():
    # To regenerate after a change that is meant: print(json.dumps(hashes(), indent=1)) into golden.json
    assert hashes() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def hashes() -> dict[str, str]:
    """sha256 of the 8-bit result at severity 3: rounding hides what the last bits of another machine's sums may do."""
    found = {}
    for name in NAMES:
        for channels, side in ((1, 28), (3, 32), (3, 96)):
            levels = (applied(name, pictures(2, channels, side)) * 255).round().to(torch.uint8)
            digest = hashlib.sha256(levels.contiguous().numpy().tobytes()).hexdigest()
            found[f"{name} {channels}x{side}x{side}"] = digest
    return found


def test_suites_name_what_exists():
    assert len(COMMON) == 19
    assert len(MNIST_C) == 15
    for name, count in (("common", 95), ("mnist-c", 15), ("imagenet-p", 310)):
        evaluations = suite(name)
        assert len(evaluations) == count == len({entry["label"] for entry in evaluations})
        for entry in evaluations:
            assert create("corruption", {k: v for k, v in entry.items() if k != "label"}).severity == entry["severity"]
    assert [entry["severity"] for entry in suite("common", [2])] == [2] * 19
    with pytest.raises(ValueError, match="no suite of corruptions"):
        suite("imagenet-c")
    with pytest.raises(ValueError, match="from 1 to 5"):
        suite("common", [0])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"takes images \[N,C,H,W\]"):
        applied("fog", torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match="pixels is 40"):
        applied("translate", pictures(1, 1, 28), pixels=40)
    with pytest.raises(ValueError, match="last frame of tilt is 15"):
        create("corruption", {"name": "sequence-frame", "sequence": "tilt", "severity": 2, "frame": 16})
    empty = torch.zeros(0, 3, 32, 32)
    assert create("corruption", "fog").apply(empty, Randomness.of(0, [])).shape == empty.shape
