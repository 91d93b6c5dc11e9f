"""What people said about CIFAR-10: how sure they were of the test images, how wrong about the training images."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np

from robust.datasets.dataset import Dataset, DatasetError
from robust.datasets.root import root

Annotation = Literal["aggre", "random1", "random2", "random3", "worse"]


def human_probabilities(dataset: Dataset) -> np.ndarray:
    """CIFAR-10H: the share of people who chose each class, [N,10] float64, rows sum to 1, for loaded test images.

    Source: Peterson et al., Human uncertainty makes classification more robust (arXiv 1908.07086): some fifty
    judgements for each of the 10,000 test images, file `cifar10h/cifar10h-probs.npy`.

    Raises:
        DatasetError: if the dataset is no CIFAR-10 test split, or the file is missing or damaged.
    """
    path = root() / "cifar10h" / "cifar10h-probs.npy"
    _require(dataset, ("test",), "CIFAR-10H")
    values = _array(path, "")
    if values.ndim != 2 or values.shape[1] != 10 or len(values) <= dataset.ids.max() or values.dtype.kind != "f":
        raise DatasetError(f"{path} is damaged: expected probabilities [10000,10], found {values.dtype}{values.shape}")
    if values.min() < 0 or np.abs(values.sum(1) - 1).max() > 1e-6:
        raise DatasetError(f"{path} is damaged: its rows are not probabilities; replace it by the published file")
    return values[dataset.ids].astype(np.float64)


def noisy_labels(dataset: Dataset, annotation: Annotation = "worse") -> np.ndarray:
    """CIFAR-10N: what people labelled the training images as, [N] int64, for a loaded train, select or calibrate split.

    Source: Wei et al., Learning with Noisy Labels Revisited (arXiv 2110.12088), file `cifar10n/cifar10n_labels.npz`.
    `random1`, `random2` and `random3` are one person's label each, `aggre` their majority, `worse` a wrong one of the
    three where there is one; 17.23, 18.12, 17.64, 9.01 and 40.21 % are wrong. To train on them:
    `dataclasses.replace(dataset, labels=noisy_labels(dataset))`.

    Raises:
        DatasetError: if the dataset is no CIFAR-10 training split, or the file is missing, damaged or of other images.
    """
    path = root() / "cifar10n" / "cifar10n_labels.npz"
    _require(dataset, ("train", "select", "calibrate"), "CIFAR-10N")
    clean, noisy = _array(path, "clean"), _array(path, annotation)
    if clean.shape != noisy.shape or clean.ndim != 1 or len(clean) <= dataset.ids.max():
        raise DatasetError(f"{path} is damaged: expected labels [50000], found {clean.shape} and {noisy.shape}")
    if not np.array_equal(clean[dataset.ids], dataset.labels):
        raise DatasetError(f"{path} does not belong to these images: its clean labels differ from the dataset's")
    return noisy[dataset.ids].astype(np.int64)


def _require(dataset: Dataset, splits: tuple[str, ...], what: str) -> None:
    if dataset.name != "cifar10" or dataset.split not in splits:
        raise DatasetError(f"{what} labels {' and '.join(splits)} of cifar10, not {dataset.split} of {dataset.name}")


def _array(path: Path, member: str) -> np.ndarray:
    """An array of an .npy file, or a member of an .npz file; never a pickle."""
    if not path.is_file():
        raise DatasetError(f"{path} is missing; put the published labels there")
    try:
        loaded = np.load(path, allow_pickle=False)
        return np.asarray(loaded[member] if member else loaded)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} is damaged: {error}; replace it by the published file") from error
