"""Peak memory of attacking 1,000 and 60,000 samples: it should grow with the batch, not with the data set.

Run it as `python benchmarks/memory.py`: MNIST's training images where ROBUST_DATA has them, else uint8 noise of that
shape. Each size runs PGD in a process of its own, one thread, and reports its peak resident memory, imports and data
included; the goal is a ratio of at most 1.2. A third process does nothing but import and load.
"""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import torch
from torch import nn

from robust.attacks.pgd import PGD
from robust.classifier import Classifier
from robust.datasets.dataset import Dataset, DatasetError
from robust.registry import create
from robust.streaming import evaluate_dataset

SIZES = (0, 1_000, 60_000)


def images(count: int) -> Dataset:
    """The first `count` of 60,000 training images, or as much noise."""
    try:
        spec = create("dataset", {"name": "mnist", "select": 1, "calibrate": 1})
        return spec.load("train").subset(slice(0, max(count, 1)))  # type: ignore[attr-defined]
    except DatasetError:
        draw = np.random.default_rng(0)
        pixels = draw.integers(0, 256, (60_000, 1, 28, 28), dtype=np.uint8)
        labels = draw.integers(0, 10, 60_000)
        whole = Dataset("noise", "train", pixels, labels, np.arange(60_000), tuple("0123456789"), "noise")
        return whole.subset(slice(0, max(count, 1)))


def attack(count: int) -> None:
    """Evaluate, and print the peak in MiB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = images(count)
    if count:
        layers = [nn.Conv2d(1, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)]
        classifier = Classifier(nn.Sequential(*layers), num_classes=10)
        evaluate_dataset(classifier, dataset, [PGD.model_validate({"eps": "1/10", "steps": 3})])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """One process a size."""
    peaks = []
    for count in SIZES:
        command = [sys.executable, __file__, str(count)]
        peaks.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(f"{count:>7,} samples  {peaks[-1]:7.0f} MiB  {peaks[-1] / peaks[min(1, len(peaks) - 1)]:5.3f} x")
    print(f"60,000 need {peaks[2] / peaks[1]:.3f} x what 1,000 need (goal 1.2)")


if __name__ == "__main__":
    attack(int(sys.argv[1])) if len(sys.argv) > 1 else main()
