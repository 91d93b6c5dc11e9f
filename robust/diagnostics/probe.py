"""The probe: some correctly classified samples, one classifier, and the ascent that every masking check is made of.

The checks need less than an attack and more than one: where each sample fell, how the loss rose, a gradient that may
come from elsewhere, and classifiers whose graph is cut. So they share this ascent, and judge every image themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from robust.attacks.attack import fooled
from robust.attacks.survivors import Ball
from robust.attacks.wrapper import View
from robust.classifier import Classifier
from robust.losses import Loss, margin
from robust.randomness import Randomness
from robust.threat import ThreatModel

VOTES = 10  # decisions taken on an image of a random classifier; more than half of them must be wrong


class Connected(View):
    """The same logits on a graph that always reaches the images: where a step cuts it, the gradient is 0, no error."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N,K]."""
        logits: Tensor = self.inner(images)
        if not (torch.is_grad_enabled() and images.requires_grad):
            return logits
        return logits.to(images.dtype) + 0 * images.flatten(1).sum(1, keepdim=True)

    def select(self, rows: Tensor) -> Connected:
        """The same for some rows."""
        return Connected(self.inner.select(rows))


class Paired(View):
    """The same logits; a lone image stands beside a copy of itself, since batch statistics refuse a batch of one."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N,K]."""
        logits: Tensor = self.inner(images) if len(images) != 1 else self.inner(images.repeat(2, 1, 1, 1))[:1]
        return logits

    def select(self, rows: Tensor) -> Paired:
        """The same for some rows."""
        return Paired(self.inner.select(rows))


@dataclass(frozen=True)
class Climb:
    """What one ascent found: broken [N] bool, the images [N,C,H,W], mean loss at each step (where it was traced)."""

    broken: Tensor
    images: Tensor
    trace: list[float]


@dataclass(frozen=True)
class Probe:
    """Samples under examination: images [N,C,H,W] classified correctly, labels [N], their randomness, the threat model.

    `random` says that calls differ, as measured; then an image counts as broken by a majority of `VOTES` decisions.
    `coupled` says that an image's logits depend on its batch; then an ascent keeps the batch together.
    """

    classifier: Classifier
    images: Tensor
    labels: Tensor
    rng: Randomness
    threat: ThreatModel
    random: bool = False
    coupled: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Tensor) -> Probe:
        """Some of the samples: a mask [N]."""
        return replace(self, images=self.images[rows], labels=self.labels[rows], rng=self.rng.select(rows.cpu()))

    def within(self, norm: str, radius: float) -> Probe:
        """The same samples in another ball."""
        return replace(self, threat=ThreatModel(norm=norm, eps=Fraction(radius).limit_denominator(10**6)))  # type: ignore[arg-type]

    @torch.no_grad()
    def broken(self, images: Tensor) -> Tensor:
        """Whether the classifier itself misclassifies these images of the ball, [N]."""
        votes = torch.stack([fooled(self.classifier(images), self.labels) for _ in range(VOTES if self.random else 1)])
        return (2 * votes.sum(0) > len(votes)) & self.threat.contains(images, self.images)

    def climb(
        self,
        loss: Loss,
        steps: int,
        *,
        restart: int = 0,
        view: Classifier | None = None,
        traced: bool = False,
        step_size: float | None = None,
    ) -> Climb:
        """Projected steepest ascent from a random start, as `PGD`, with the gradient of `view`.

        Args:
            loss: logits [n,K] and labels [n] -> [n].
            steps: gradient steps.
            restart: which start.
            view: another classifier whose gradient is followed; the classifier itself when None.
            traced: keep every sample to the end and note the mean loss at each step.
            step_size: 2.5 eps / steps when None.
        """
        size = 2.5 * self.threat.radius / steps if step_size is None else step_size
        source = Connected(self.classifier) if view is None else Connected(view)
        rows = torch.arange(len(self), device=self.images.device)
        best = self.threat.random_start(self.images, self.rng.fork("restart", restart))
        x, ball, trace = best.clone(), Ball(self.threat, self.images, share=0.05), []
        for _ in range(steps):
            gradient, values, logits = gradient_of(source, x, self.labels[rows], loss)
            trace.append(float(values.double().mean()))
            if not (traced or self.random or self.coupled):
                standing = ~fooled(logits if view is None else self._logits(x), self.labels[rows])
                best[rows] = x
                if not standing.all():
                    rows, x, gradient, ball = rows[standing], x[standing], gradient[standing], ball[standing]
                if not len(rows):
                    break
            x = ball.step(x, gradient, size)
        best[rows] = x
        return Climb(self.broken(best), best, trace)

    @torch.no_grad()
    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(images)
        return logits


def gradient_of(
    classifier: Classifier, images: Tensor, labels: Tensor, loss: Loss | Callable[[Tensor, Tensor], Tensor] = margin
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient [N,C,H,W] of the loss, non-finite entries as 0, with the values [N] and logits [N,K]."""
    raw, values, logits = raw_gradient(classifier, images, labels, loss)
    return torch.nan_to_num(raw, nan=0.0, posinf=0.0, neginf=0.0), values, logits


def raw_gradient(classifier: Classifier, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """As `gradient_of`, with NaN and infinity as autograd gave them."""
    with torch.enable_grad():
        leaf = images.detach().requires_grad_(True)
        logits = classifier(leaf)
        values = loss(logits, labels)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return gradient, values.detach(), logits.detach()
