"""BETA: the best of the targeted attacks over every wrong class, the inner problem of non-zero-sum training."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from robust.attacks.multi_targeted import MultiTargeted


class BETA(MultiTargeted):
    """Best-targeted attack: the margin to every wrong class is maximised over the ball, and the best one is kept.

    Robey et al. 2024, arXiv 2306.11035, algorithm 1: for each j != y ascend f_j - f_y over the ball for T steps, then
    return the perturbation of the class with the largest margin. That maximises the classification error itself
    (proposition 2), while cross-entropy is only a bound that an attacker can raise without any error. No class is
    left out and no sample leaves early, so the answer is the strongest image and not the first. Costs
    (K - 1) x (steps + 1 forward, steps backward) passes.
    """

    name: ClassVar[str] = "beta"
    family: ClassVar[str] = "fixed budget"
    source: ClassVar[str] = "Robey et al. 2024, arXiv 2306.11035"

    steps: int = Field(default=10, ge=1, description="gradient steps towards each class")
    targets: int = Field(default=1000, ge=1, description="wrong classes to aim at: all of them unless there are more")
    early_stop: bool = Field(default=False, description="let a sample go once it is misclassified")
