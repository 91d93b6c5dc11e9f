"""Corruptions against closed forms and against other implementations: Pillow, scipy, colorsys."""

from __future__ import annotations

import colorsys
import hashlib
import io
import math

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from PIL import Image
from scipy import ndimage, stats

from robust.corruptions import draws, filters, warps
from robust.corruptions.banded import Band
from robust.corruptions.canny_edges import edges
from robust.corruptions.plasma import plasma
from robust.corruptions.sequences import NOISES, SEQUENCES, frame, frames
from robust.randomness import Randomness
from robust.registry import create

RNG = Randomness.of(0, [4], "oracle")


def photo(side: int = 64) -> torch.Tensor:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    return torch.as_tensor(smooth / 255, dtype=torch.float32).permute(2, 0, 1)[None]


def test_noise_has_the_published_spread():
    grey = torch.full((1, 3, 128, 128), 0.5)
    for name, expected in (("gaussian-noise", 0.18), ("speckle-noise", 0.35 / 2), ("shot-noise", math.sqrt(0.5 / 12))):
        worn = create("corruption", {"name": name, "severity": 3}).apply(grey, RNG)
        inside = expected * math.sqrt(1 - 0.02)  # a little is lost to the box
        assert float(worn.std()) == pytest.approx(inside, rel=0.05), name
        assert float(worn.mean()) == pytest.approx(0.5, abs=0.01), name
    fallen = create("corruption", {"name": "impulse-noise", "severity": 3}).apply(grey, RNG)
    assert float((fallen == 1).float().mean()) == pytest.approx(0.045, rel=0.1)
    assert float((fallen == 0).float().mean()) == pytest.approx(0.045, rel=0.1)


def test_a_given_sigma_draws_exact_normals():
    image = torch.full((1, 1, 28, 28), 0.5)
    worn = create("corruption", {"name": "gaussian-noise", "sigma": "1/100"}).apply(image, RNG)
    assert torch.equal(worn, (image + 0.01 * RNG.fork("noise").normal((1, 28, 28))).clamp(0, 1))


def test_draws_are_uniform_and_normal():
    image = torch.zeros(1, dtype=torch.float64)
    assert stats.kstest(draws.uniform(RNG, (20000,), image)[0].numpy(), "uniform").pvalue > 0.001
    assert stats.kstest(draws.normal(RNG, (20000,), image)[0].numpy(), "norm").pvalue > 0.001


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0])
def test_gaussian_blur_equals_scipy(sigma):
    image = photo().double()
    expected = ndimage.gaussian_filter(image[0].numpy(), (0, sigma, sigma), mode="nearest")
    np.testing.assert_allclose(filters.gaussian_blur(image, sigma)[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("radius", [0.5, 1.5, 4, 10])
def test_disc_blur_equals_correlation_with_a_disc(radius):
    image, r = photo().double(), int(radius)
    y, x = np.mgrid[-r : r + 1, -r : r + 1]
    disc = (x**2 + y**2 <= radius**2) / (x**2 + y**2 <= radius**2).sum()
    expected = ndimage.correlate(image[0].numpy(), disc[None], mode="mirror")
    np.testing.assert_allclose(filters.disc_blur(image, radius)[0].numpy(), expected, atol=1e-12)


def test_motion_blur_smears_a_point_along_its_line():
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    smeared = filters.motion_blur(point, 5, 2.0, [0.0])[0, 0]
    assert float(smeared.sum()) == pytest.approx(1)
    assert smeared[:20].sum() == 0
    weights = np.exp(-0.5 * (np.arange(11) / 2) ** 2)
    np.testing.assert_allclose(smeared[20, 10:21].flip(0).numpy(), weights / weights.sum(), atol=1e-6)


def test_identity_maps_and_zoom_by_one_change_nothing():
    image = photo(33)
    assert torch.allclose(warps.affine(image, [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)]), image, atol=1e-5)
    assert torch.equal(warps.clipped_zoom(image, 1.0), image)
    quarter = warps.affine(image, [warps.rotation(image, math.pi / 2)])
    assert torch.allclose(quarter, image.rot90(-1, (2, 3)), atol=1e-4) or torch.allclose(
        quarter, image.rot90(1, (2, 3)), atol=1e-4
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [28, 61, 96])
def test_jpeg_equals_pillow_to_a_level(channels, side):
    image = photo(side)[:, :channels]
    levels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy().squeeze()
    for severity, quality in ((1, 80), (5, 40)):
        file = io.BytesIO()
        Image.fromarray(levels).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file), dtype=float).reshape(side, side, channels)
        corruption = create("corruption", {"name": "jpeg-compression", "severity": severity, "table": "cifar"})
        found = corruption.apply(image, RNG)[0].permute(1, 2, 0).numpy() * 255
        # blocks that stick out of the image are completed differently, which shows in small ones
        assert np.abs(found - expected).mean() < (1 if side >= 61 else 2)


def test_pixelate_equals_pillow():
    image = photo(96)
    picture = Image.fromarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy())
    small = picture.resize((38, 38), Image.Resampling.BOX)
    expected = np.asarray(small.resize((96, 96), Image.Resampling.NEAREST), dtype=float) / 255
    found = create("corruption", {"name": "pixelate", "severity": 3}).apply(image, RNG)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).mean() < 1 / 255


@pytest.mark.parametrize(("name", "change"), [("brightness", (0.15, 0)), ("saturate", (0, 1.5))])
def test_light_and_colour_equal_hsv(name, change):
    image = photo(8)
    found = create("corruption", {"name": name, "severity": 3}).apply(image, RNG)[0].flatten(1).T
    for pixel, seen in zip(image[0].flatten(1).T.tolist(), found.tolist()):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        saturation = min(1.0, saturation * change[1]) if change[1] else saturation
        assert seen == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + change[0])), abs=1e-5)


def test_contrast_keeps_the_mean():
    image = photo(32).double()
    worn = create("corruption", {"name": "contrast", "severity": 3}).apply(image, RNG)
    assert torch.allclose(worn.mean((2, 3)), image.mean((2, 3)))
    assert torch.allclose(worn.std((2, 3)), 0.4 * image.std((2, 3)))


def test_plasma_spans_the_unit_interval_and_is_rougher_with_slower_decay():
    like = torch.zeros(1)
    smooth, rough = (plasma(RNG, 64, 64, decay, like) for decay in (3.0, 1.3))
    assert (float(smooth.min()), float(smooth.max())) == (0, 1)
    assert rough.diff(dim=-1).abs().mean() > 3 * smooth.diff(dim=-1).abs().mean()


def test_glass_blur_only_moves_pixels():
    image = photo(32)
    corruption = create("corruption", {"name": "glass-blur", "severity": 1})  # its blur of 0.05 pixels does nothing
    worn = corruption.apply(image, RNG)
    assert torch.equal(worn.flatten(2).sort(dim=2).values, image.flatten(2).sort(dim=2).values)
    assert (worn != image).float().mean() > 0.3


def test_translation_moves_by_the_pixels_asked_for():
    image = photo(30)
    for pixels in (0, 1, 4):
        worn = create("corruption", {"name": "translate", "pixels": pixels, "outside": "edge"}).apply(image, RNG)
        moved = [image.roll((dy, dx), (2, 3)) for dy in (-pixels, pixels) for dx in (-pixels, pixels)]
        inside = slice(pixels, 30 - pixels)
        assert any(torch.equal(worn[..., inside, inside], m[..., inside, inside]) for m in moved)


def test_stripe_inverts_the_published_quarters():
    image = photo(28)
    worn = create("corruption", {"name": "stripe", "severity": 3}).apply(image, RNG)
    assert torch.equal(worn[..., 7:21], image[..., 7:21])
    assert torch.equal(worn[..., :7], 1 - image[..., :7])


def test_canny_finds_the_outline_of_a_square_and_nothing_else():
    image = torch.zeros(1, 1, 28, 28)
    image[..., 8:20, 8:20] = 1
    found = edges(image)[0, 0]
    assert not found[:6].any()
    assert not found[11:17, 11:17].any()
    assert found[12:16, 6:10].any(dim=1).all()  # the left side, in every row
    assert found[12:16].sum(dim=1).max() <= 4  # and thin
    assert not edges(torch.full((1, 1, 28, 28), 0.4)).any()


def test_elastic_transform_of_a_constant_is_the_constant():
    flat = torch.full((1, 3, 32, 32), 0.3)
    for severity in range(1, 6):
        worn = create("corruption", {"name": "elastic-transform", "severity": severity}).apply(flat, RNG)
        assert torch.allclose(worn, flat, atol=1e-6)


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_change_little_by_little(name):
    image = photo(40)
    film = frames(name, image, RNG)
    assert film.shape == (1, 31, 3, 40, 40)
    assert film.min() >= 0
    assert film.max() <= 1
    steps = (film[:, 1:] - film[:, :-1]).abs().mean((2, 3, 4))
    assert (steps > 0).float().mean() > 0.8  # a turn of 4 degrees may move no pixel
    assert float(steps.max()) < 0.12
    if name in NOISES:
        assert torch.equal(film[:, 0], image)
    middle = {"brightness": 15, "translate": 15, "rotate": 15, "tilt": 15, "scale": 24}
    if name in middle:  # where the path passes the image itself
        assert torch.allclose(film[:, middle[name]], image, atol=1e-4)
    assert frames(name, image, RNG, 2).shape[1] == (31 if name in NOISES else 16)
    corruption = create("corruption", {"name": "sequence-frame", "sequence": name, "frame": 9})
    assert torch.equal(corruption.apply(image, RNG), film[:, 9])
    with pytest.raises(ValueError, match="no frame 31"):
        frame(name, image, RNG, 31)


def test_draws_are_aes_of_the_sample_and_the_position():
    rng = Randomness.of(3, [7, 2**63 + 5, -1], "noise")
    drawn = draws.levels(rng, (2, 9), torch.zeros(1))
    key = hashlib.blake2b(b"3\x1fnoise", digest_size=16).digest()
    for row, sample in zip(drawn, rng.ids):
        blocks = b"".join((sample % 2**64).to_bytes(8, "little") + k.to_bytes(8, "little") for k in range(3))
        expected = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks)
        assert row.flatten().tolist() == np.frombuffer(expected, "<u2")[:18].tolist()
    other = draws.levels(rng.fork("other"), (2, 9), torch.zeros(1))
    assert not (drawn == other).all(dim=(1, 2)).any()
    assert len({tuple(row.flatten().tolist()) for row in drawn}) == 3


@pytest.mark.parametrize("sides", [(5, 5), (33, 70), (96, 41)])
def test_a_band_is_the_matrix_and_planes_do_not_feel_each_other(sides):
    generator = np.random.default_rng(1)
    matrix = np.triu(np.tril(generator.random((sides[0], sides[1])), 3), -2)
    images = torch.as_tensor(generator.random((5, 2, sides[1], sides[1])))
    band = Band.of(matrix, images)
    np.testing.assert_allclose(band.rows(images).numpy(), matrix @ images.numpy(), atol=1e-12)
    np.testing.assert_allclose(band.columns(images).numpy(), images.numpy() @ matrix.T, atol=1e-12)
    single, narrow = images.float(), Band.of(matrix, images.float())
    for k in range(5):
        for part in (single[k : k + 1], single[k : k + 1, 1:]):
            assert torch.equal(narrow.rows(part), narrow.rows(single)[k : k + 1, -part.shape[1] :])
            assert torch.equal(narrow.columns(part), narrow.columns(single)[k : k + 1, -part.shape[1] :])
