import dataclasses

import numpy as np
import pytest

from robust.datasets.cifar10_human import human_probabilities, noisy_labels
from robust.datasets.dataset import Dataset, DatasetError


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUST_DATA", str(tmp_path))
    for name in ("cifar10h", "cifar10n"):
        (tmp_path / name).mkdir()
    return tmp_path


def split(name, labels=(3, 1)):
    labels = np.array(labels)
    return Dataset(
        "cifar10", name, np.zeros((2, 3, 32, 32), np.uint8), labels, np.array([4, 0]), tuple("abcdefghij"), ""
    )


def test_human_probabilities_follow_ids(data):
    rows = np.random.default_rng(0).dirichlet(np.ones(10), 5)
    np.save(data / "cifar10h" / "cifar10h-probs.npy", rows)
    np.testing.assert_array_equal(human_probabilities(split("test")), rows[[4, 0]])
    with pytest.raises(DatasetError, match="CIFAR-10H labels test of cifar10, not train"):
        human_probabilities(split("train"))
    for bad, message in ((rows[:3], "expected probabilities"), (rows * 2, "not probabilities")):
        np.save(data / "cifar10h" / "cifar10h-probs.npy", bad)
        with pytest.raises(DatasetError, match=message):
            human_probabilities(split("test"))


def test_noisy_labels_follow_ids(data):
    path = data / "cifar10n" / "cifar10n_labels.npz"
    with pytest.raises(DatasetError, match="is missing"):
        noisy_labels(split("train"))
    clean, worse = np.array([1, 0, 0, 0, 3], np.uint8), np.array([7, 0, 0, 0, 5], np.uint8)
    np.savez(path, clean=clean, worse=worse)
    train = split("select")
    labels = noisy_labels(train)
    assert labels.tolist() == [5, 7]
    assert dataclasses.replace(train, labels=labels).digest != train.digest
    with pytest.raises(DatasetError, match="does not belong"):
        noisy_labels(split("train", (3, 2)))
    with pytest.raises(DatasetError, match="is damaged"):
        noisy_labels(train, "aggre")
    np.savez(path, clean=clean, worse=np.array([object()] * 5))
    with pytest.raises(DatasetError, match="is damaged"):
        noisy_labels(train)
