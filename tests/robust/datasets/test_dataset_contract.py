import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from robust.datasets.dataset import SPLITS, Dataset, DatasetError, split_rows
from robust.datasets.digits import Digits
from robust.datasets.uniform_noise import UniformNoise
from robust.registry import create, entries


@pytest.fixture(scope="module")
def splits():
    return {split: Digits().load(split) for split in SPLITS}


def test_digits_keep_the_published_levels(splits):
    published = load_digits()
    for data in splits.values():
        pixels = data.pixels[np.arange(len(data))]
        assert pixels.dtype == np.uint8
        assert pixels.shape == (len(data), 1, 8, 8)
        levels = np.rint(pixels.astype(float) * 16 / 255)
        np.testing.assert_array_equal(levels[:, 0], published.images[data.ids])
        np.testing.assert_array_equal(data.labels, published.target[data.ids])


def test_splits_are_disjoint_and_complete(splits):
    assert [len(splits[split]) for split in SPLITS] == [1037, 200, 200, 360]
    ids = np.concatenate([data.ids for data in splits.values()])
    assert sorted(ids) == list(range(1797))


def test_a_smaller_study_takes_a_part_of_a_larger_ones_samples(splits):
    small = Digits(train=50, test=30)
    np.testing.assert_array_equal(small.load("train").ids, splits["train"].ids[:50])
    np.testing.assert_array_equal(small.load("test").ids, splits["test"].ids[:30])


def test_the_first_test_samples_are_a_fair_sample(splits):
    counts = np.bincount(splits["test"].subset(slice(0, 100)).labels, minlength=10)
    assert counts.min() >= 3


@pytest.mark.parametrize("sizes", [{"train": 1200, "select": 200, "calibrate": 200}, {"select": 1000}])
def test_too_many_samples_are_refused(sizes):
    with pytest.raises(DatasetError, match=r"1437 training samples.*lower dataset\.train"):
        Digits(**{"select": 500, "calibrate": 500, **sizes}).load("train")
    with pytest.raises(DatasetError, match=r"360 test samples.*asks for 361"):
        Digits(test=361).load("test")


def test_an_unknown_split_is_refused():
    with pytest.raises(DatasetError, match="no split 'valid'"):
        Digits().load("valid")


def test_batches_are_floats_of_the_bytes(splits):
    data = splits["test"]
    images, labels, ids = data.batch(slice(5, 9))
    assert images.dtype == torch.float32
    assert labels.dtype == ids.dtype == torch.int64
    assert torch.equal((images * 255).round().byte(), torch.from_numpy(data.pixels[np.arange(5, 9)]))
    assert images.min() >= 0
    assert images.max() <= 1
    joined = torch.cat([batch[0] for batch in data.batches(7)])
    assert torch.equal(joined, data.batch(slice(None))[0])
    assert torch.equal(data.batch([3, 1])[2], torch.from_numpy(data.ids[[3, 1]]))


def test_subsets_nest_and_take_masks(splits):
    data = splits["test"]
    ones = data.subset(data.labels == 1)
    assert set(ones.labels) == {1}
    np.testing.assert_array_equal(ones.subset([2, 0]).ids, ones.ids[[2, 0]])
    assert torch.equal(ones.subset([2]).batch([0])[0], ones.batch([2])[0])
    with pytest.raises(DatasetError, match="at least one image"):
        data.subset([])
    with pytest.raises(IndexError):
        data.batch([len(data)])


def test_digests_tell_splits_apart_and_stay_the_same(splits):
    digests = [data.digest for data in splits.values()]
    assert len(set(digests)) == len(SPLITS)
    assert Digits().load("test").digest == splits["test"].digest
    assert splits["test"].subset([0, 1]).digest != splits["test"].subset([1, 0]).digest


def test_pixels_are_held_once(splits):
    parts = [Digits().whole("train"), Digits(train=10).whole("train"), Digits().whole("test")]
    assert len({id(part.pixels.source) for part in parts}) == 1
    assert len(repr(splits["train"])) < 300  # a failure's message does not print the pixels


def test_download_changes_no_digest():
    off, on = (create("dataset", {"name": "mnist", "download": flag}) for flag in (False, True))
    assert off.digest() == on.digest()
    assert off.digest() != create("dataset", {"name": "mnist", "train": 5}).digest()


def test_inputs_match_numpy(splits):
    data = splits["train"]
    pixels = data.pixels[np.arange(len(data))] / 255
    inputs = data.inputs()
    assert inputs.shape == (1, 8, 8)
    assert inputs.num_classes == 10
    assert inputs.mean == (pytest.approx(pixels.mean(), abs=1e-4),)
    assert inputs.std == (pytest.approx(pixels.std(), abs=1e-4),)


def test_what_does_not_belong_together_is_refused():
    pixels, one = np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 1])
    Dataset("x", "test", pixels, one, one, ("a", "b"), "")
    with pytest.raises(DatasetError, match="2 images, 1 labels"):
        Dataset("x", "test", pixels, one[:1], one, ("a", "b"), "")
    with pytest.raises(DatasetError, match="labels run from 0 to 1, for 1 classes"):
        Dataset("x", "test", pixels, one, one, ("a",), "")


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 200), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60) | st.none())
def test_training_rows_never_overlap(count, select, calibrate, train):
    spec = Digits(train=train, select=select, calibrate=calibrate)
    if select + calibrate + (train or 1) > count:
        with pytest.raises(DatasetError, match="lower dataset"):
            split_rows(count, spec, "x")
        return
    rows = split_rows(count, spec, "x")
    together = np.concatenate(list(rows.values()))
    assert len(set(together)) == len(together)
    assert [len(rows[s]) for s in ("select", "calibrate")] == [select, calibrate]
    assert len(rows["train"]) == (train or count - select - calibrate)


def test_noise_belongs_to_the_sample():
    noise = UniformNoise(test=200).load("test")
    assert not noise.labelled
    images = noise.batch(slice(None))[0]
    assert abs(images.mean().item() - 0.5) < 0.01
    assert abs(images.std().item() - 12**-0.5) < 0.01
    assert torch.equal(noise.batch([7])[0][0], images[7])
    with pytest.raises(DatasetError, match="has no labels"):
        UniformNoise().load("train")
    with pytest.raises(ValueError, match="no image shape"):
        UniformNoise(shape=(2, 8, 8))


def test_every_dataset_is_registered_and_described():
    found = {entry.name: entry for entry in entries("dataset")}
    assert set(found) >= {
        "digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "svhn", "folder", "emnist-letters",
        "usps", "notmnist", "omniglot", "uniform-noise", "tiny-imagenet-10",
    }  # fmt: skip
    assert all(entry.summary and entry.family for entry in found.values())


@pytest.mark.parametrize(
    "name", ["mnist", "kmnist", "cifar10", "cifar100", "svhn", "emnist-letters", "usps", "notmnist", "tiny-imagenet-10"]
)
def test_missing_files_say_where_they_belong(name, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=f"{name}: test files are missing; put them at {tmp_path}") as caught:
        create("dataset", name).load("test")
    offers = name not in ("usps", "notmnist", "tiny-imagenet-10")
    assert ("set dataset.download: true" in str(caught.value)) == offers
