"""Typicality: an image is unusual also where the model finds it too likely."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from robust.detection.detector import Detector, Fitted, Head


class Typicality(Detector):
    """Typicality of log p(x): -|log p(x) - mean over training data of log p|, at most 0, in nats.

    Source: Nalisnick et al. 2019, arXiv 1906.02994, the test of section 3 for one sample: deep generative models give
    simple images of other data sets a higher likelihood than their own. log p(x) is the logsumexp of the logits, up to
    a constant that cancels; for a joint energy model (Grathwohl et al. 2020) that is its density.
    """

    name: ClassVar[str] = "typicality"
    family: ClassVar[str] = "logits"
    source: ClassVar[str] = "Nalisnick et al. 2019, arXiv 1906.02994"

    def fit_features(self, features: Tensor, logits: Tensor, labels: Tensor, head: Head | None = None) -> Fitted:
        """`mean` log p of the training data, 0-dimensional."""
        return {"mean": logits.double().logsumexp(1).mean()}

    def score_features(self, features: Tensor, logits: Tensor, fitted: Fitted) -> Tensor:
        """Negative distance from the typical log p, [N]."""
        log_p = logits.double().logsumexp(1)
        return -(log_p - fitted["mean"].to(log_p)).abs()
