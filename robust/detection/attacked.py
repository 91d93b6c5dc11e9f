"""Attacks on a detection score: outliers moved inside a ball until they look like the data, not until they are misread.

A detector is only as good as its worst case: AUROC is also reported on out-of-distribution images that were moved by
projected ascent on the score itself (as Sehwag et al. 2019, arXiv 1905.01726, and Bitterwolf et al. 2020, arXiv
2007.08473, measure it). The ascent is the attacker's lower bound: a score whose gradient is masked looks better here.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from robust.attacks.survivors import Ball
from robust.classifier import Classifier
from robust.detection.detector import Detector, Fitted, ImageDetector
from robust.randomness import Randomness
from robust.threat import ThreatModel


class ScoreAttack(BaseModel):
    """Projected ascent on a detector's score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threat: ThreatModel = Field(description="norm and eps, for example {norm: linf, eps: 8/255}")
    steps: int = Field(default=40, ge=1, description="gradient steps")
    samples: int = Field(default=500, ge=1, description="first images of each set that are attacked")

    def raised(
        self,
        classifier: Classifier,
        detector: Detector | ImageDetector,
        fitted: Fitted,
        images: Tensor,
        rng: Randomness,
    ) -> tuple[Tensor, Tensor]:
        """Images [N,C,H,W] in the ball with the highest scores found, and these scores [N] float64.

        The best iterate counts, the original among them, so no score falls.
        """
        ball = Ball(self.threat, images)
        size = 2.5 * self.threat.radius / self.steps
        best, highest = images.clone(), _score(classifier, detector, fitted, images, rng).detach()
        x = self.threat.random_start(images, rng.fork("start"))
        for _ in range(self.steps):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_(True)
                scores = _score(classifier, detector, fitted, leaf, rng)
                finite = torch.where(scores.isfinite(), scores, 0.0).sum()
                found = torch.autograd.grad(finite, leaf, allow_unused=True)[0] if finite.requires_grad else None
            best, highest = _better(best, highest, x, scores.detach())
            gradient = torch.zeros_like(x) if found is None else torch.nan_to_num(found, 0.0, 0.0, 0.0)
            x = ball.step(x.clone(), gradient, size)
        with torch.no_grad():
            return _better(best, highest, x, _score(classifier, detector, fitted, x, rng))


def _better(best: Tensor, highest: Tensor, images: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    risen = scores > highest
    return torch.where(risen.view(-1, 1, 1, 1), images.detach(), best), torch.where(risen, scores, highest)


def _score(
    classifier: Classifier, detector: Detector | ImageDetector, fitted: Fitted, images: Tensor, rng: Randomness
) -> Tensor:
    if isinstance(detector, ImageDetector):
        return detector.score_images(classifier, images, fitted, rng)
    features = classifier.features(images) if detector.needs_features else images.new_zeros(len(images), 0)
    return detector.score_features(features, classifier(images), fitted)
