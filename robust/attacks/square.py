"""Square: random search over square-shaped changes, with nothing but the logits."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import FixedBudget
from robust.attacks.square_windows import inside, move_mass, tiled_start, window, window_side
from robust.attacks.survivors import Survivors
from robust.classifier import Classifier
from robust.losses import margin
from robust.randomness import Randomness

# proposals drawn at once for a sample: a draw costs the same whatever its size
BLOCK = 256


class Square(FixedBudget):
    """Square attack: random search that changes one square window at a time and keeps what raises the margin.

    Andriushchenko et al. 2020, arXiv 1912.00049, algorithms 1-3; l1 as in Croce & Hein 2021, arXiv 2103.01208. It
    starts from vertical stripes (linf) or a grid of bumps (l2, l1). A linf proposal sets a window to +-eps, one sign a
    channel; an l2 or l1 proposal moves perturbation mass between two windows. The window's area starts at p_init of
    the image and halves along the paper's schedule. Score-based: it needs no gradient, so it also sees through masked
    ones. Costs at most restarts x (queries + 1) forward passes; a sample stops at its first misclassification.
    """

    name: ClassVar[str] = "square"
    family: ClassVar[str] = "black box"
    source: ClassVar[str] = "Andriushchenko et al. 2020, arXiv 1912.00049"

    queries: int = Field(default=5000, ge=1, description="proposals of each restart")
    p_init: float = Field(default=0.8, gt=0, le=1, description="share of the image that the first windows cover")
    restarts: int = Field(default=1, ge=1, description="independent searches; the later ones only for survivors")
    rescale: bool = Field(default=False, description="stretch the schedule, made for 10,000 queries, to the budget")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; block b of restart r is drawn from rng.fork("restart", r, "block", b)."""
        survivors = Survivors(classifier, images, labels, rng)
        for restart in range(self.restarts):
            if len(survivors):
                with torch.no_grad():  # not inference mode: a test-time defence may take gradients of its own
                    self._search(survivors, survivors.rng.fork("restart", restart), restart)
        return survivors.best.clone()

    def _search(self, survivors: Survivors, rng: Randomness, restart: int) -> None:
        best = self._start(survivors, rng)
        score = margin(survivors.classifier(best), survivors.labels)
        best, score = survivors.fell(score > 0, best, score)
        draws = best.new_empty(len(best), 0, 0)
        for query in range(self.queries):
            if not len(survivors):
                return
            if query % BLOCK == 0:
                block = survivors.rng.fork("restart", restart, "block", query // BLOCK)
                draws = block.uniform((min(BLOCK, self.queries - query), 5 + best.shape[1]), like=best)
            proposal = self._propose(survivors.origin, best, draws[:, query % BLOCK], query)
            found = margin(survivors.classifier(proposal), survivors.labels)
            better = found > score
            best = torch.where(better[:, None, None, None], proposal, best)
            score = torch.where(better, found, score)
            best, score, draws = survivors.fell(score > 0, best, score, draws)
        survivors.offer(best, score)

    def _start(self, survivors: Survivors, rng: Randomness) -> Tensor:
        origin = survivors.origin
        channels, width = origin.shape[1], origin.shape[3]
        if self.threat.norm == "linf":
            stripes = rng.fork("stripes").uniform((channels, 1, width), -1.0, 1.0, like=origin).sign()
            return self.threat.project(origin + self.threat.radius * stripes, origin)
        return tiled_start(self.threat, origin, rng.fork("tiles").uniform((25 * (channels + 1),), like=origin))

    def _propose(self, origin: Tensor, best: Tensor, draws: Tensor, query: int) -> Tensor:
        height, width = origin.shape[2:]
        iteration = query * 10_000 / self.queries if self.rescale else query
        side = window_side(iteration, self.p_init, height, width, self.threat.norm)
        if self.threat.norm != "linf":
            return move_mass(self.threat, origin, best, draws, side)
        mask = inside(*window(draws[:, :2], side, height, width), side)
        eps = self.threat.radius
        shift = torch.where(draws[:, 5:] < 0.5, -eps, eps)[:, :, None, None]
        return torch.where(mask, (origin + shift).clamp_(0, 1), best)

    def passes(self, num_classes: int) -> tuple[int, int]:
        """At most queries + 1 forward passes a restart, none backward."""
        return (self.restarts * (self.queries + 1), 0)
