"""What diagnostics of a training's course share: the network at its snapshots, attacked distances, thinned curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from robust.attacks.attack import fooled
from robust.attacks.ddn import DDN
from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.diagnostics.diagnostic import Row, Subject
from robust.randomness import Randomness

Series = dict[str, Any]


def stages(subject: Subject) -> list[tuple[int, Callable[[], Classifier]]]:
    """(epoch, network after it) in order; without snapshots the network with its best weights, under the last epoch."""
    if subject.snapshots:
        return sorted(subject.snapshots.items())
    return [(len(subject.history), lambda: subject.classifier)]


def history_row(subject: Subject, epoch: int) -> Row:
    """The history's row of an epoch (from 1); empty where there is none."""
    return subject.history[epoch - 1] if 1 <= epoch <= len(subject.history) else {}


def batch_of(classifier: Classifier, dataset: Dataset, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first samples as the classifier takes them: images [n,C,H,W], labels [n], ids [n]."""
    images, labels, ids = dataset.batch(slice(0, samples))
    return images.to(classifier.device, classifier.dtype), labels.to(classifier.device), ids


def l2_distances(
    classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness, steps: int, size: int = 250
) -> Tensor:
    """Smallest l2 perturbation that DDN on the margin loss finds, [N] float64 on the CPU.

    0 for misclassified images and infinity where the attack fails, so that neither biases a median unseen. The margin
    loss, because cross-entropy has no gradient left at the margins that long trainings reach.

    Args:
        classifier: frozen.
        images: [N,C,H,W] in [0,1]; labels: [N].
        rng: randomness of these samples.
        steps: DDN's iterations.
        size: images attacked at once; the result does not depend on it.
    """
    attack, found = DDN(steps=steps, loss="margin"), []
    for rows in torch.arange(len(labels), device=images.device).split(size):
        origin, truth = images[rows], labels[rows]
        moved = attack.minimise(classifier, origin, truth, rng.select(rows.cpu()))
        with torch.no_grad():
            wrong, broken = fooled(classifier(origin), truth), fooled(classifier(moved), truth)
        distance = (moved - origin).flatten(1).double().norm(dim=1)
        found.append(distance.masked_fill(~broken, torch.inf).masked_fill(wrong, 0.0).cpu())
    return torch.cat(found)


def finite(value: float) -> float | None:
    """The number, or None where it is infinite or NaN: what a row may hold."""
    return float(value) if np.isfinite(value) else None


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rho; None for fewer than three points or a constant series."""
    if len(first) < 3 or min(len(set(first)), len(set(second))) < 2:
        return None
    return finite(float(stats.spearmanr(first, second).statistic))


def line(label: str, x: Sequence[float], y: Sequence[float | None], mark: str = "line", points: int = 400) -> Series:
    """A series of the report, without undefined points and thinned to about `points`, dense where x is small."""
    kept = [(float(a), float(b)) for a, b in zip(x, y) if b is not None and np.isfinite(b)]
    if len(kept) > points:
        places = np.unique(np.geomspace(1, len(kept), points).round().astype(int)) - 1
        kept = [kept[place] for place in places]
    return {"label": label, "x": [a for a, _ in kept], "y": [b for _, b in kept], "mark": mark}


def survival(label: str, distances: Tensor) -> Series:
    """The robustness curve: share of images whose distance is at least x, as steps from x = 0."""
    ordered = distances[distances.isfinite()].sort().values.tolist()
    places = [0.0, *ordered]
    shares = [1.0 - k / len(distances) for k in range(len(ordered) + 1)]
    return {"label": label, "x": places, "y": shares, "mark": "steps"}
