"""Robust conformal training (RCT): the loss that trains a network for small robust conformal sets.

One batch plays both parts of split conformal prediction: its first half sets the threshold, lowered as an attack would
lower the smoothed score, and the soft size of the sets of its second half is what is minimised.
"""

from __future__ import annotations

import torch
from torch import Tensor

CLIP = 1e-7  # keeps the normal quantile of a probability of 0 or 1 finite, and its gradient usable


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
