"""RSCP+: conformal sets that keep their coverage under every l2 attack up to eps, by randomised smoothing of the score.

The smoothed score after the normal quantile function, s~ = Phi^-1(E s(x + noise)), moves by at most eps / sigma when x
moves by eps in l2. The expectation is estimated from M noisy copies; the estimate itself is what is calibrated, and
two Monte Carlo bounds, each failing with probability beta, are paid for in the level and in the comparison.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from robust.calibration.calibrator import Fitted, SmoothedSetPredictor, checked
from robust.calibration.conformal import aps_scores, lac_scores, own, threshold
from robust.classifier import Classifier
from robust.method import Exact
from robust.randomness import Randomness

DRAWN_AT_ONCE = 16  # copies of noise a sample; a generator for each single copy would cost more than the passes
SCORES = {"lac": lac_scores, "aps": aps_scores}


class RSCPPlus(SmoothedSetPredictor):
    """Robust conformal sets (RSCP+): coverage at least 1 - alpha under any l2 perturbation of norm at most eps.

    Source: Yan, Romano & Weng 2024, arXiv 2404.19651, section 3, which repairs Gendler et al. 2022 (RSCP). With
    m_k the mean score of class k over M noisy copies, tau the conformal quantile of m_y at level 1 - alpha + 2 beta,
    and Hoeffding's b = sqrt(ln(1 / beta) / (2 M)), the set of an attacked image is

        {k : Phi^-1(m_k - b) - eps / sigma <= Phi^-1(tau + b)}.

    On the image's own side b may be the empirical Bernstein bound, which is smaller where scores vary little. Scores
    lie in [0,1]. Costs M forward passes an image, on noisy images that may leave [0,1]; the network should be trained
    under such noise. Sets of raw scores are often all classes: see `rscp-plus-ptt`.
    """

    name: ClassVar[str] = "rscp-plus"
    family: ClassVar[str] = "robust-conformal"
    source: ClassVar[str] = "Yan et al. 2024, arXiv 2404.19651"

    alpha: float = Field(default=0.1, gt=0, lt=1, description="miscoverage allowed under attack")
    eps: Exact = Field(default=Fraction(1, 8), description="l2 radius of the attack, in [0,1] pixels")
    sigma: float = Field(default=0.25, gt=0, description="standard deviation of the noise, in [0,1] pixels")
    samples: int = Field(default=256, ge=2, description="M, noisy copies of each image")
    beta: float = Field(default=1e-3, gt=0, lt=0.5, description="failure probability of each Monte Carlo bound")
    score: Literal["lac", "aps"] = Field(default="lac", description="base score")
    bound: Literal["hoeffding", "bernstein"] = Field(default="bernstein", description="bound on the image's own side")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.eps < 0:
            raise ValueError(f"eps must be at least 0, got {self.eps}")
        if 2 * self.beta >= self.alpha:
            raise ValueError(f"beta must be below alpha / 2 = {self.alpha / 2:g}, got {self.beta:g}")
        return self

    @torch.no_grad()
    def noisy_logits(self, classifier: Classifier, images: Tensor, rng: Randomness) -> Tensor:
        """Logits [N,M,K] under Gaussian noise, one copy of the batch at a time."""
        found = []
        for first in range(0, self.samples, DRAWN_AT_ONCE):
            copies = min(DRAWN_AT_ONCE, self.samples - first)
            noise = rng.fork("rscp", first).normal((copies, *images.shape[1:]), like=images)
            found += [classifier(images + self.sigma * noise[:, copy]) for copy in range(copies)]
        return torch.stack(found, 1)

    def fit(self, logits: Tensor, labels: Tensor) -> Fitted:
        """`threshold` tau (above 1 stands for full sets) from noisy logits [N,M,K] of clean images."""
        scores = self._scores(checked_copies(logits, labels), {}).mean(1)
        return {"threshold": threshold(own(scores, labels), self.alpha - 2 * self.beta)}

    def sets(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Prediction sets [N,K] bool, from noisy logits [N,M,K] of images that may have been attacked."""
        scores = self._scores(checked_copies(logits), fitted)
        mean, copies = scores.mean(1), scores.shape[1]
        slack = hoeffding(copies, self.beta)
        low = mean - (slack if self.bound == "hoeffding" else bernstein(scores, self.beta))
        limit = (fitted["threshold"].to(mean) + slack).clamp(max=1.0)
        moved = torch.special.ndtri(low.clamp(0, 1)) - float(self.eps) / self.sigma
        return moved <= torch.special.ndtri(limit)

    def _scores(self, logits: Tensor, fitted: Fitted) -> Tensor:
        """Base scores in [0,1] of every noisy copy and class, [N,M,K]."""
        n, copies, classes = logits.shape
        return SCORES[self.score](logits.reshape(n * copies, classes).softmax(1)).view(n, copies, classes)


def hoeffding(copies: int, beta: float) -> float:
    """How far a mean of values in [0,1] may lie from its expectation, on one side, but for probability beta."""
    return math.sqrt(math.log(1 / beta) / (2 * copies))


def bernstein(scores: Tensor, beta: float) -> Tensor:
    """The same from the values' own variance, [N,K] of [N,M,K] (Maurer & Pontil 2009, arXiv 0907.3740, theorem 4)."""
    copies, term = scores.shape[1], math.log(2 / beta)
    return torch.sqrt(2 * scores.var(1) * term / copies) + 7 * term / (3 * (copies - 1))


def checked_copies(logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """Noisy logits [N,M,K] in float64, after a check of shape, values and labels."""
    if logits.dim() != 3 or logits.shape[1] < 2:
        raise ValueError(f"noisy logits must have the shape [N,M,K] with M >= 2, got {tuple(logits.shape)}")
    n, copies, classes = logits.shape
    checked(logits[:, 0], labels)
    return checked(logits.reshape(n * copies, classes)).view(n, copies, classes)
