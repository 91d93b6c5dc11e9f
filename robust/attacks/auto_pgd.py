"""Auto-PGD: projected ascent that chooses its own step size, the engine of apgd-ce, apgd-dlr and apgd-t.

It remembers the best point, goes back to it whenever it halves its steps, and needs no step size from the user
(Croce & Hein 2020, arXiv 2003.01690; for l1 Croce & Hein 2021, arXiv 2103.01208).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.apgd_steps import MomentumSteps, Path, SparseSteps
from robust.attacks.attack import FixedBudget, fooled, input_gradient
from robust.attacks.survivors import Survivors
from robust.randomness import Randomness

# l1 alone: radii in units of eps, largest first, and the share of the steps spent at each (arXiv 2103.01208, section 4)
L1_STAGES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))


class AutoPGD(FixedBudget):
    """Base of the Auto-PGD attacks: everything but the loss and the targets."""

    steps: int = Field(default=100, ge=1, description="gradient steps of each start")
    restarts: int = Field(default=1, ge=1, description="independent starts; the later ones only for survivors")
    rho: float = Field(default=0.75, gt=0, lt=1, description="share of rising steps below which the step is halved")
    eot: int = Field(default=1, ge=1, description="gradients averaged at each point, for randomised models")

    @abstractmethod
    def objective(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        """The loss [n] to be increased; untargeted attacks ignore `targets`."""

    def climb(self, survivors: Survivors, rng: Randomness, targets: Tensor) -> None:
        """One run from one random start for the standing rows, towards `targets` [n]."""
        if self.threat.norm != "l1":
            self._run(survivors, self.threat.random_start(survivors.origin, rng), targets, 1.0, self.steps, final=True)
            return
        wide = int(L1_STAGES[0][1] * self.steps)
        x = survivors.origin + rng.fork("start").normal(survivors.origin.shape[1:], like=survivors.origin)
        for (scale, _), steps in zip(L1_STAGES, (wide, wide, self.steps - 2 * wide)):
            if steps:
                x = self.threat.project(x, survivors.origin, scale * self.threat.radius)
                x = self._run(survivors, x, targets, scale, steps, final=scale == L1_STAGES[-1][0])

    def _run(self, survivors: Survivors, x: Tensor, targets: Tensor, scale: float, steps: int, final: bool) -> Tensor:
        """Steps inside the ball of radius scale x eps, to the best points; success counts in the final stage alone."""
        gradient, loss, logits = self._look(survivors, x, targets)
        path = Path(x, x, gradient, loss, x, gradient, loss, targets)
        rule: MomentumSteps | SparseSteps
        if self.threat.norm == "l1":
            rule = SparseSteps.begin(self.threat, survivors.origin, x, scale * self.threat.radius, steps)
        else:
            rule = MomentumSteps.begin(self.threat, survivors.origin, loss, steps, self.rho)
        if final:
            _, path, rule = survivors.fell(fooled(logits, survivors.labels), x, path, rule)
        for _ in range(steps):
            if not len(survivors):
                return path.best
            x = rule.move(path)
            gradient, loss, logits = self._look(survivors, x, path.targets)
            rose = path.arrive(x, gradient, loss)
            if final:
                _, path, rule, rose = survivors.fell(fooled(logits, survivors.labels), x, path, rule, rose)
            rule.observe(path, rose)
        if final:
            survivors.offer(path.best, path.best_loss)
        return path.best

    def _look(self, survivors: Survivors, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        labels = survivors.labels
        looks = [
            input_gradient(survivors.classifier, x, lambda logits: self.objective(logits, labels, targets))
            for _ in range(self.eot)
        ]
        if len(looks) == 1:
            return looks[0]
        gradient, loss, logits = (torch.stack(parts).mean(0) for parts in zip(*looks))
        return gradient, loss, logits

    def passes(self, num_classes: int) -> tuple[int, int]:
        """At most steps + 1 passes of each kind a start (l1: one more for each stage)."""
        looks = self.restarts * self.eot * (self.steps + (len(L1_STAGES) if self.threat.norm == "l1" else 1))
        return (looks, looks)
