"""Robust conformal training (RCT): a network trained for small conformal sets that stay valid under attack.

One batch plays both parts of split conformal prediction: its first half sets the threshold, lowered as an attack would
lower the smoothed score, and the soft size of the sets of its second half is what is minimised.
"""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.method import Exact
from robust.objectives.objective import Batch, Loss, Objective, State
from robust.randomness import Randomness

CLIP = 1e-7  # keeps the normal quantile of a probability of 0 or 1 finite, and its gradient usable


class RobustConformalTraining(Objective):
    """Trains for small robust conformal sets: cross-entropy under noise first, then the soft size of RSCP+'s sets.

    Source: Yan, Romano & Weng 2024, arXiv 2404.19651, section 4.2, after Stutz et al. 2022, arXiv 2110.09192; the loss
    is `rct_loss`. The authors fit the last layer of a network that was trained under noise; here the same network goes
    on as a whole, after a share `pretraining` of all steps with cross-entropy on the noisy copies. Serves the
    calibrators `rscp-plus` and `rscp-plus-ptt` with the same eps and sigma. Noisy images may leave [0,1], as theirs do.
    `copies` forward and backward passes an image.
    """

    name: ClassVar[str] = "robust-conformal-training"
    family: ClassVar[str] = "robust-conformal"
    source: ClassVar[str] = "arXiv 2404.19651"

    alpha: float = Field(default=0.1, gt=0, lt=1, description="miscoverage that the sets will be calibrated for")
    eps: Exact = Field(default=Fraction(1, 8), ge=0, description="l2 radius of the attack, in [0,1] pixels")
    sigma: float = Field(default=0.25, gt=0, description="standard deviation of the noise, in [0,1] pixels")
    copies: int = Field(default=8, ge=1, description="noisy copies of each image in a batch")
    temperature: float = Field(default=0.1, gt=0, description="width of the soft sets, in normal quantiles")
    size_weight: float = Field(default=1.0, ge=0, description="price of a class too many against that of a miss")
    free_size: float = Field(default=1.0, ge=0, description="classes in a set that cost nothing")
    pretraining: float = Field(default=0.5, ge=0, le=1, description="share of all steps with cross-entropy")

    @property
    def whole_batch(self) -> str:
        """Half a batch is the calibrate split of the other half."""
        return "one half of it sets the threshold for the other"

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Cross-entropy or `rct_loss` of the noisy copies; terms: accuracy, and the RCT loss."""
        logits = self.noisy(classifier, batch.images, batch.rng)
        right = (logits.detach().softmax(2).mean(1).argmax(1) == batch.labels).float().mean()
        if batch.progress < self.pretraining or len(logits) < 2:
            labels = batch.labels.repeat_interleave(self.copies)
            return Loss(F.cross_entropy(logits.flatten(0, 1), labels), {"accuracy": right})
        total = rct_loss(
            logits,
            batch.labels,
            alpha=self.alpha,
            eps=float(self.eps),
            sigma=self.sigma,
            temperature=self.temperature,
            size_weight=self.size_weight,
            free_size=self.free_size,
        )
        return Loss(total, {"accuracy": right, "conformal": total.detach()})

    def noisy(self, classifier: Classifier, images: Tensor, rng: Randomness) -> Tensor:
        """Logits [N,M,K] of M noisy copies of each image."""
        noise = rng.fork("noise").normal((self.copies, *images.shape[1:]), like=images)
        copies = images[:, None] + self.sigma * noise
        return classifier(copies.flatten(0, 1)).unflatten(0, (len(images), self.copies))

    def selection(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Right by the mean probability of the noisy copies, [N] bool: what the sets are built from."""
        with torch.no_grad():
            right: Tensor = self.noisy(classifier, images, rng).softmax(2).mean(1).argmax(1) == labels
        return right


def rct_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.1,
    eps: float = 0.125,
    sigma: float = 0.25,
    temperature: float = 0.1,
    size_weight: float = 1.0,
    free_size: float = 1.0,
) -> Tensor:
    """Loss of one batch, 0-dimensional: ln(mean miss + size_weight * mean excess size).

    Source: Yan, Romano & Weng 2024, arXiv 2404.19651, section 4.2, after Stutz et al. 2022, arXiv 2110.09192. With
    q = Phi^-1(mean over noise of softmax(z)), and tau the alpha-quantile of q_y in the first half less eps / sigma,
    the soft set of a sample of the second half is c_k = sigmoid((q_k - tau) / temperature); it misses 1 - c_y and
    exceeds max(0, sum_k c_k - free_size). The quantile is the order statistic itself, through which gradients pass to
    one sample, where the paper uses a soft sort.

    Args:
        logits: [N,M,K] of M noisy copies of each image, N >= 2, differentiable.
        labels: [N].
        alpha: miscoverage in (0,1); eps: l2 radius; sigma: noise, both in [0,1] pixels.
        temperature: of the soft sets, in units of q; free_size: classes that cost nothing.
    """
    if logits.dim() != 3 or len(logits) < 2:
        raise ValueError(f"need noisy logits [N,M,K] with N >= 2, got {tuple(logits.shape)}")
    q = torch.special.ndtri(logits.softmax(2).mean(1).clamp(CLIP, 1 - CLIP))
    half = len(q) // 2
    own = q.gather(1, labels[:, None])[:, 0]
    tau = own[:half].sort().values[max(0, int(alpha * (half + 1)) - 1)] - eps / sigma
    soft = torch.sigmoid((q[half:] - tau) / temperature)
    miss = 1 - torch.sigmoid((own[half:] - tau) / temperature)
    excess = (soft.sum(1) - free_size).clamp(min=0)
    return torch.log(miss.mean() + size_weight * excess.mean() + 1e-8)
