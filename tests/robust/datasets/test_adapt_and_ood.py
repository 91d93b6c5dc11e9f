import numpy as np
import pytest
import torch
from PIL import Image

from robust.datasets.adapt import adapt
from robust.datasets.dataset import Dataset, DatasetError
from robust.datasets.digits import Digits
from robust.datasets.folder import Folder
from robust.datasets.ood import NEAR_AND_FAR, ood_sets, shift_sets
from robust.datasets.uniform_noise import UniformNoise
from robust.registry import entries


@pytest.fixture(scope="module")
def digits():
    return Digits(test=20).load("test")


def test_the_same_shape_is_the_same_dataset(digits):
    assert adapt(digits, (1, 8, 8)) is digits


def test_grey_becomes_colour_and_back(digits):
    colour = adapt(digits, (3, 8, 8))
    images = colour.batch(slice(None))[0]
    assert torch.equal(images, digits.batch(slice(None))[0].expand(-1, 3, -1, -1))
    assert torch.equal(adapt(colour, (1, 8, 8)).batch(slice(None))[0], digits.batch(slice(None))[0])


def test_resizing_is_pillows_antialiased_bilinear(digits):
    larger = adapt(digits, (1, 28, 28))
    assert len({larger.digest, digits.digest, adapt(digits, (1, 27, 28)).digest}) == 3
    np.testing.assert_array_equal(larger.ids, digits.ids)
    one = Image.fromarray(digits.pixels[np.array([3])][0, 0]).resize((28, 28), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(larger.pixels[np.array([3])][0, 0], np.asarray(one))
    stripes = np.tile(np.array([0, 255], np.uint8), (2, 1, 16, 8))
    striped = Dataset("s", "test", stripes, np.zeros(2, np.int64), np.arange(2), ("x",), "")
    smaller = adapt(striped, (1, 4, 4)).batch([0])[0]
    assert (smaller - 0.5).abs().max() < 0.1  # without antialiasing it would be black or white


def test_subsets_and_order_do_not_matter(digits):
    whole = adapt(digits, (3, 10, 9)).batch(slice(None))[0]
    part = adapt(digits.subset([5, 2]), (3, 10, 9)).batch([0, 1])[0]
    assert torch.equal(part, whole[[5, 2]])


def test_noise_stays_noise():
    noise = adapt(UniformNoise(test=50).load("test"), (3, 40, 40)).batch(slice(None))[0]
    assert abs(noise.std().item() - 12**-0.5) < 0.01
    assert not torch.equal(noise[:, 0], noise[:, 1])


def test_folders_are_decoded_at_the_new_size(tmp_path):
    for i, size in enumerate(((20, 30), (40, 40))):
        Image.new("RGB", size, (255, 0, 0)).save(tmp_path / f"{i}.png")
    images = adapt(Folder(path=str(tmp_path)).load("test"), (1, 16, 16)).batch(slice(None))[0]
    assert images.shape == (2, 1, 16, 16)
    assert (images * 255 - 76).abs().max() < 1e-3  # red's luma


def test_other_channel_counts_are_refused(digits):
    with pytest.raises(DatasetError, match="channels must be 1 or 3"):
        adapt(digits, (4, 8, 8))


def test_named_sets_exist_and_are_other_sets():
    names = {entry.name for entry in entries("dataset")}
    for name, (near, far) in NEAR_AND_FAR.items():
        assert {name, *near, *far} <= names
        assert name not in (*near, *far)
        assert not set(near) & set(far)
        assert far
    assert ood_sets("somebody-elses") == ((), ("uniform-noise",))


def test_shift_sets_share_their_classes():
    assert shift_sets("mnist") == ("usps", "svhn", "digits")
    assert shift_sets("cifar10") == ()
    assert not set(shift_sets("mnist")) & {name for sets in ood_sets("mnist") for name in sets}
