"""Mahalanobis distance to the nearest class, in penultimate features with one covariance for all classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robust.detection.detector import Detector, Fitted, Head


class Mahalanobis(Detector):
    """Mahalanobis distance: -min_k (f - mu_k)^T S^+ (f - mu_k), at most 0, S the covariance within classes.

    Source: Lee et al. 2018, arXiv 1807.03888, eq. 2, on the penultimate layer and without the input preprocessing and
    layer ensemble, which need out-of-distribution data to tune. S^+ is the pseudo-inverse: directions in which
    training features never move (dead units) do not count. Classes without a sample have no mean.
    """

    name: ClassVar[str] = "mahalanobis"
    family: ClassVar[str] = "features"
    source: ClassVar[str] = "Lee et al. 2018, arXiv 1807.03888"
    needs_features: ClassVar[bool] = True

    def fit_features(self, features: Tensor, logits: Tensor, labels: Tensor, head: Head | None = None) -> Fitted:
        """`means` [T,D] of the classes that occur, and `whitener` [D,D] with S^+ = whitener whitener^T."""
        f = features.double()
        means, centred = class_means(f, labels)
        return {"means": means, "whitener": whitener(centred)}

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Negative squared distance to the nearest class mean, [N]."""
        return -nearest_distance(features.double(), fitted["means"], fitted["whitener"])


def class_means(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Means [T,D] of the T classes that occur, and features less the mean of their class [N,D]."""
    _, index = labels.unique(return_inverse=True)
    count = torch.bincount(index).to(features)
    means = features.new_zeros(len(count), features.shape[1]).index_add_(0, index, features) / count[:, None]
    return means, features - means[index]


def whitener(centred: Tensor) -> Tensor:
    """A matrix [D,D] whose product with its transpose is the pseudo-inverse of the covariance of centred rows [N,D]."""
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    seen = values > values.amax() * len(values) * torch.finfo(values.dtype).eps
    scale = torch.where(seen, values.clamp(min=torch.finfo(values.dtype).tiny).rsqrt(), 0.0)
    white: Tensor = vectors * scale
    return white


def nearest_distance(features: Tensor, means: Tensor, white: Tensor) -> Tensor:
    """Squared Mahalanobis distance [N] of features [N,D] to the nearest of means [T,D]."""
    points, centres = features @ white.to(features), means.to(features) @ white.to(features)
    return torch.stack([(points - centre).square().sum(1) for centre in centres]).amin(0)
