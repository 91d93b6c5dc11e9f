"""Losses on logits [N,K] and labels [N], one value a sample, all to be increased by an attacker.

`margin` and `dlr` are positive exactly where the prediction is wrong, so they double as success tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
LossName = Literal["ce", "margin", "dlr", "auto"]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z)_y, [N]. Saturates: its gradient underflows where the margin exceeds about 100 in float32."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y, [N] (Carlini & Wagner 2017, arXiv 1608.04644, f_6 with the sign of an attacker)."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return best_other(logits, labels) - own


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference-of-logits ratio, [N]: -(z_y - max_{j != y} z_j) / (z_(1) - z_(3)) (Croce & Hein 2020, eq. 7).

    Invariant to shift and scale of the logits. Needs K >= 3.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"the DLR loss needs at least 3 classes, these logits have {logits.shape[1]}; use 'margin'")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted DLR, [N]: -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2) (Croce & Hein 2020, eq. 8). Needs K >= 4."""
    if logits.shape[1] < 4:
        raise ValueError(f"the targeted DLR loss needs at least 4 classes, these logits have {logits.shape[1]}")
    top = logits.topk(4, dim=1).values
    gap = logits.gather(1, targets[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]
    return gap / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def best_other(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j != y} z_j, [N]; -inf where there is no other class."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1)


def loss_by_name(name: LossName, num_classes: int) -> Loss:
    """The loss called `ce`, `margin` or `dlr`; `auto` is dlr where the class count allows it, else margin."""
    if name == "auto":
        name = "dlr" if num_classes >= 3 else "margin"
    return {"ce": cross_entropy, "margin": margin, "dlr": dlr}[name]
