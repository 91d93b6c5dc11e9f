"""A search in bfloat16 whose outcome is settled in the classifier's own precision."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import fooled, input_gradient
from robust.attacks.survivors import Ball, Survivors
from robust.attacks.wrapper import View, Wrapper
from robust.classifier import Classifier
from robust.losses import margin
from robust.randomness import Randomness


class LowPrecision(Wrapper):
    """Runs the inner attack under bfloat16 autocast, then settles every success and failure in full precision.

    Mixed precision as in Micikevicius et al. 2018, arXiv 1710.03740, without loss scaling: bfloat16 has the exponents
    of float32. Images, steps and losses stay in the images' type; only the network's own products are rounded.

    A success claimed by the search counts where full precision agrees. All others get `polish` full-precision steps
    d(grad -margin) of eps / 20 from where the search left them. With `again`, those that still stand meet the whole
    inner attack in full precision, with the draws it would have had alone: then every sample that the plain attack
    breaks is broken, and time is saved only where most samples fall. Worth its while on processors with bfloat16
    arithmetic; elsewhere it is slower.

    Cost: the inner attack's passes at low precision, one look, `polish` + 1 forward and `polish` backward passes, and
    with `again` the inner attack's once more.
    """

    name: ClassVar[str] = "low-precision"
    family: ClassVar[str] = "wrapper"
    source: ClassVar[str] = "after Micikevicius et al. 2018, arXiv 1710.03740"

    polish: int = Field(default=3, ge=0, description="full-precision steps on what the search left standing")
    again: bool = Field(default=True, description="attack what still stands again in full precision")

    def view(self, classifier: Classifier) -> Classifier:
        """The classifier under bfloat16 autocast."""
        return Rounded(classifier)

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] in the ball; fallen rows have fallen in full precision."""
        survivors = Survivors(classifier, images, labels, rng)
        if len(survivors):
            self._look(survivors, super().perturb(classifier, images, labels, rng))
        if len(survivors) and self.polish:
            self._polish(survivors)
        if len(survivors) and self.again:
            draws = survivors.rng.fork(self.attack.name)
            self._look(survivors, self.attack.perturb(survivors.classifier, survivors.origin, survivors.labels, draws))
        return survivors.best

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Search, look, polish, and the attack again; passes of both precisions count alike."""
        forward, backward = self.attack.passes(num_classes)
        runs = 1 + self.again
        return runs * (forward + 1) + self.polish + (self.polish > 0), runs * backward + self.polish

    @torch.no_grad()
    def _look(self, survivors: Survivors, found: Tensor) -> None:
        """Settle images [n,C,H,W] of the standing rows by one full-precision pass."""
        logits = survivors.classifier(found)
        survivors.offer(found, margin(logits, survivors.labels))
        survivors.fell(fooled(logits, survivors.labels), found)

    def _polish(self, survivors: Survivors) -> None:
        x, size = survivors.best[survivors.rows].clone(), self.threat.radius / 20
        ball = Ball(self.threat, survivors.origin)
        for _ in range(self.polish):
            gradient, _, logits = input_gradient(survivors.classifier, x, lambda z: margin(z, survivors.labels))
            x, gradient, ball = survivors.fell(fooled(logits, survivors.labels), x, gradient, ball)
            if not len(survivors):
                return
            x = ball.step(x, gradient, size)
        self._look(survivors, x)


class Rounded(View):
    """A classifier under bfloat16 autocast: logits [N,K] in the images' own type, from rounded products."""

    def forward(self, images: Tensor) -> Tensor:
        """Rounded logits [N,K]; autocast leaves float64 alone, so there nothing is rounded."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            logits: Tensor = self.inner(images)
        return logits.to(images.dtype)

    def views(self) -> dict[str, Classifier]:
        """The inner classifier's views, rounded too."""
        return {name: Rounded(view) for name, view in self.inner.views().items()}

    def select(self, rows: Tensor) -> Rounded:
        """The same view of some rows."""
        return Rounded(self.inner.select(rows))
