"""Label noise: a share of the training labels replaced, so that a method can be judged on partly wrong data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robust.datasets.dataset import Dataset
from robust.randomness import generator


def with_label_noise(dataset: Dataset, share: float, seed: int) -> Dataset:
    """The dataset with each label replaced, with probability `share`, by another class drawn uniformly.

    The draws belong to (seed, sample id): a higher share flips the same samples and more, and a subset keeps its
    labels. The digest changes with the labels.

    Raises:
        ValueError: if share is outside [0,1], or there is no other class to draw.
    """
    classes = len(dataset.classes)
    if not 0 <= share <= 1 or classes < 2:
        raise ValueError(f"label noise needs a share in [0,1] and two classes, got {share} and {classes}")
    labels = dataset.labels.copy()
    for row, sample in enumerate(dataset.ids):
        draws = generator(seed, "label-noise", int(sample))
        if draws.random() < share:
            labels[row] = (labels[row] + draws.integers(1, classes)) % classes
    return replace(dataset, labels=labels.astype(np.int64))
