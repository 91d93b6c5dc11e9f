"""How steep a network is where the data are, and how near data of different classes come to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.diagnostics.diagnostic import Diagnostic, Measured, Row, Subject
from robust.diagnostics.lipschitz import (
    certified_distance,
    gradient_norms,
    jacobian_rows,
    layer_constants,
    product_bound,
)
from robust.losses import cross_entropy, margin
from robust.statistics import bootstrap


class GradientNorms(Diagnostic):
    """Largest and mean gradient norms of loss, margin and logits; the distance that they leave to an adversary.

    The summary statistics of Finlay, Oberman & Abbasi 2018 (arXiv 1810.00953) on test images: |grad_x l|_2 for
    cross-entropy and for the margin, |J|_{2,inf} = max_k |grad_x z_k|_2, the l2 distance to the nearest training image
    of another label, and, where the network is a chain of layers, its product Lipschitz bound with the distance
    within which it proves every image (gap / (sqrt 2 W) at least). The authors' own W is the norm of the product of
    the weights with all nonlinearities left out, which proves nothing; ours bounds.

    Rows: `loss-gradient`, `margin-gradient`, `jacobian` (of: mean, max), `nearest-other-label` (of: median, min),
    `lipschitz-bound`, `certified-distance` (of: median, max), each with n; means and medians with a 95 % bootstrap
    interval. A bound that does not exist is None.
    """

    name: ClassVar[str] = "gradient-norms"
    family: ClassVar[str] = "geometry"
    source: ClassVar[str] = "arXiv 1810.00953"

    samples: int = Field(default=1000, ge=1, description="test images looked at, the first ones")
    train_samples: int = Field(
        default=10_000, ge=1, description="training images among which a neighbour is looked for"
    )

    def measure(self, subject: Subject) -> Measured:
        """The rows, all of one pass over the test images."""
        classifier, n = subject.classifier, min(self.samples, len(subject.test))
        images, labels, _ = subject.test.batch(slice(0, n))
        images, labels = images.to(classifier.device, classifier.dtype), labels.to(classifier.device)
        with classifier.frozen():
            bound = product_bound(layer_constants(classifier, images[0]))
            parts = [
                self._parts(classifier, x, y, bound) for x, y in zip(images.split(250), labels.split(250), strict=True)
            ]
        found = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
        nearest = nearest_other_label(images, labels, subject.train, self.train_samples)
        rows = [row for name in ("loss-gradient", "margin-gradient", "jacobian") for row in _steep(name, found[name])]
        rows += _far("nearest-other-label", nearest, "min", np.min)
        rows.append({"quantity": "lipschitz-bound", "value": bound, "n": n})
        if "certified-distance" in found:
            rows += _far("certified-distance", found["certified-distance"], "max", np.max)
        return Measured(rows)

    def _parts(self, classifier: Classifier, images: Tensor, labels: Tensor, bound: float | None) -> dict[str, Tensor]:
        found = {
            "loss-gradient": gradient_norms(classifier, images, labels, cross_entropy),
            "margin-gradient": gradient_norms(classifier, images, labels, margin),
            "jacobian": jacobian_rows(classifier, images).amax(1),
        }
        return (
            found
            if bound is None
            else {**found, "certified-distance": certified_distance(classifier, images, labels, bound)}
        )


def nearest_other_label(images: Tensor, labels: Tensor, train: Dataset, most: int) -> np.ndarray:
    """l2 distance [N] to the nearest of the first `most` training images with another label, inf where there is none.

    Args:
        images: [N,C,H,W] in [0,1]; labels: [N].
    """
    nearest = torch.full((len(images),), torch.inf, dtype=torch.float64)
    queries, own = images.flatten(1).double().cpu(), labels.cpu()
    for others, theirs, _ in train.subset(slice(0, most)).batches(1000):
        apart = torch.cdist(queries, others.flatten(1).double(), compute_mode="donot_use_mm_for_euclid_dist")
        apart[own[:, None] == theirs[None]] = torch.inf
        nearest = torch.minimum(nearest, apart.amin(1))
    return nearest.numpy()


def _steep(name: str, values: np.ndarray) -> list[Row]:
    mean = bootstrap(lambda drawn: float(np.mean(drawn)), values)
    return [
        {"quantity": name, "of": "mean", "value": mean.estimate, "low": mean.low, "high": mean.high, "n": len(values)},
        {"quantity": name, "of": "max", "value": float(values.max()), "n": len(values)},
    ]


def _far(name: str, values: np.ndarray, of: str, extreme: Callable[[np.ndarray], float]) -> list[Row]:
    values = values[np.isfinite(values)]
    if not len(values):
        return [{"quantity": name, "of": "median", "value": None, "n": 0}]
    middle = bootstrap(lambda drawn: float(np.median(drawn)), values)
    row = {"low": middle.low, "high": middle.high, "n": len(values)}
    return [
        {"quantity": name, "of": "median", "value": middle.estimate, **row},
        {"quantity": name, "of": of, "value": float(extreme(values)), "n": len(values)},
    ]
