"""Relative Mahalanobis distance: how much nearer a class is than the data as a whole."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.detection.detector import Detector, Fitted, Head
from robust.detection.mahalanobis import class_means, nearest_distance, whitener


class RelativeMahalanobis(Detector):
    """Relative Mahalanobis distance: -(min_k MD_k(f) - MD_0(f)), MD_0 from one Gaussian over all training features.

    Source: Ren et al. 2021, arXiv 2106.09022, eq. 5. Subtracting what features of any image share makes near sets
    visible that plain Mahalanobis distance misses.
    """

    name: ClassVar[str] = "relative-mahalanobis"
    family: ClassVar[str] = "features"
    source: ClassVar[str] = "Ren et al. 2021, arXiv 2106.09022"
    needs_features: ClassVar[bool] = True

    def fit_features(self, features: Tensor, logits: Tensor, labels: Tensor, head: Head | None = None) -> Fitted:
        """`means` [T,D] and `whitener` [D,D] of the classes, `mean` [1,D] and `background` [D,D] of all the data."""
        f = features.double()
        means, centred = class_means(f, labels)
        mean = f.mean(0, keepdim=True)
        return {"means": means, "whitener": whitener(centred), "mean": mean, "background": whitener(f - mean)}

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Distance to all the data less distance to the nearest class, [N]."""
        f = features.double()
        nearest = nearest_distance(f, fitted["means"], fitted["whitener"])
        return nearest_distance(f, fitted["mean"], fitted["background"]) - nearest
