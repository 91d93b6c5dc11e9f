"""Which output of a network belongs to which class of the data, read from labelled images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@dataclass(frozen=True)
class Matching:
    """A hypothesis about the classes: output `columns[k]` is class k; `name` is empty where nothing is out of place."""

    name: str
    columns: tuple[int, ...]


def matchings(logits: Tensor, labels: Tensor, num_classes: int) -> list[Matching]:
    """Hypotheses, the simplest first: the same order, shifted by one, and the assignment that fits best.

    Args:
        logits: [N,K'] of images whose labels are known.
        labels: [N], 0 <= label < num_classes.
        num_classes: K of the data; at most K'.
    """
    outputs = logits.shape[1]
    straight = tuple(range(num_classes))
    found = [Matching("", straight)]
    if outputs > num_classes:
        found.append(Matching("off by one", tuple(k + 1 for k in straight)))
    else:
        found += [Matching("off by one", tuple((k + step) % outputs for k in straight)) for step in (1, -1)]
    found.append(Matching("class order", best_assignment(logits, labels, num_classes)))
    return found


def best_assignment(logits: Tensor, labels: Tensor, num_classes: int) -> tuple[int, ...]:
    """The output of each class under the one-to-one assignment that gets most samples right (Kuhn 1955).

    -1 for classes that are left over where there are fewer outputs than classes.
    """
    columns = [-1] * num_classes
    for row, column in zip(*linear_sum_assignment(counts(logits, labels, num_classes), maximize=True)):
        columns[int(row)] = int(column)
    return tuple(columns)


def counts(logits: Tensor, labels: Tensor, num_classes: int) -> np.ndarray:
    """votes[k, j]: how often samples of class k have output j on top, plus less than one in all of their softmax."""
    votes = np.zeros((num_classes, logits.shape[1]))
    shares = torch.softmax(logits.double(), 1).numpy()
    for label, top, share in zip(labels.tolist(), logits.argmax(1).tolist(), shares):
        votes[label] += share / (100 * len(labels))
        votes[label, top] += 1
    return votes
