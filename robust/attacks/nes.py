"""NES: a score-based black-box attack that estimates the gradient from Gaussian directions."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from robust.attacks.attack import FixedBudget
from robust.attacks.estimated import antithetic_gradient, descend
from robust.classifier import Classifier
from robust.losses import LossName
from robust.method import Exact
from robust.randomness import Randomness


class NES(FixedBudget):
    """Natural evolution strategies: projected steepest ascent on a gradient estimated by antithetic Gaussian search.

    Ilyas et al. 2018, "Black-box Adversarial Attacks with Limited Queries and Information", arXiv 1804.08598,
    algorithm 1: g = 1/(2 m sigma) sum_i u_i (J(x + sigma u_i) - J(x - sigma u_i)) with u_i ~ N(0, I), then
    x <- Proj(x + a d(g)) with the norm's steepest direction d. The authors halve a when the loss stops growing; here
    it falls linearly to a tenth, which needs no bookkeeping.

    Cost: `steps` x (2 x `directions` + 1) + 1 queries at most; a sample leaves when it is fooled.
    """

    name = "nes"
    family = "black box"
    source = "arXiv 1804.08598"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    steps: int = Field(default=100, ge=1, description="ascent steps")
    directions: int = Field(
        default=25, ge=1, description="Gaussian directions in a gradient, each seen from both sides"
    )
    sigma: float = Field(default=1e-3, gt=0, description="standard deviation of the search, in [0,1] image units")
    step_size: Exact | None = Field(default=None, description="first step in the norm; None for 10 eps / steps")
    loss: LossName = Field(default="margin", description="what is increased: ce, margin, dlr or auto")

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Queries at most, and no gradient."""
        return self.steps * (2 * self.directions + 1) + 1, 0

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] in the ball; the last iterate where none fooled."""
        size = 10 * self.threat.radius / self.steps if self.step_size is None else float(self.step_size)

        def step(view: Classifier, current: Tensor, rows: Tensor, index: int) -> Tensor:
            draws = rng.select(rows.cpu()).fork("directions", index)
            directions = draws.normal((self.directions, *images.shape[1:]), like=images)
            gradient = antithetic_gradient(view, current, labels[rows], directions, self.sigma, self.loss)
            length = size * (1 - 0.9 * index / self.steps)
            return self.threat.project(current + length * self.threat.steepest(gradient), images[rows])

        return descend(classifier, images, labels, images, self.steps, step)
