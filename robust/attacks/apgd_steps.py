"""How Auto-PGD moves and when it shortens its steps: momentum steps for linf and l2, sparse steps for l1.

Each rule carries its own per-sample state and can be indexed by rows, so that samples may leave at any step.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from robust.attacks.attack import broadcast
from robust.threat import ThreatModel, steepest


@dataclass
class Rows:
    """A record of per-sample tensors; indexing it by rows indexes them all."""

    def __getitem__(self, rows: Tensor) -> Any:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{k: v[rows] if isinstance(v, Tensor) else v for k, v in values.items()})


@dataclass
class Path(Rows):
    """Where each sample is and the best it has seen: images [n,C,H,W], gradients alike, losses [n]."""

    x: Tensor
    previous: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    targets: Tensor

    def arrive(self, x: Tensor, gradient: Tensor, loss: Tensor) -> Tensor:
        """Move to x and keep it where it is the best so far; whether the loss rose, [n]."""
        rose, better = loss > self.loss, loss > self.best_loss
        self.previous, self.x, self.gradient, self.loss = self.x, x, gradient, loss
        where = broadcast(better, x)
        self.best = torch.where(where, x, self.best)
        self.best_gradient = torch.where(where, gradient, self.best_gradient)
        self.best_loss = torch.where(better, loss, self.best_loss)
        return rose

    def restart_from_best(self, rows: Tensor) -> None:
        """Put the masked rows [n] back to their best point."""
        where = broadcast(rows, self.x)
        self.x = torch.where(where, self.best, self.x)
        self.gradient = torch.where(where, self.best_gradient, self.gradient)


@dataclass
class MomentumSteps(Rows):
    """Steps of Croce & Hein 2020 (arXiv 2003.01690), algorithm 1, with their checkpoints and halving conditions.

    z = Proj(x + eta d(g));  x' = Proj(x + 0.75 (z - x) + 0.25 (x - x_previous)). eta starts at 2 eps and is halved at
    a checkpoint where the loss rose in at most rho of the steps since the last one, or where neither eta nor the best
    loss changed since then. Checkpoints come after 22 % of the steps, each period 3 % shorter, at least 6 %.
    """

    threat: ThreatModel
    origin: Tensor
    lower: Tensor
    upper: Tensor
    size: Tensor
    rises: Tensor
    halved: Tensor
    loss_at_check: Tensor
    rho: float
    period: int
    period_cut: int
    period_min: int
    waited: int = 0
    momentum: float = 0.0

    @classmethod
    def begin(cls, threat: ThreatModel, origin: Tensor, loss: Tensor, steps: int, rho: float) -> MomentumSteps:
        """The rule at its start; `loss` [n] at the starting points."""
        radius = threat.radius
        return cls(
            threat=threat,
            origin=origin,
            lower=(origin - radius).clamp_(min=0),
            upper=(origin + radius).clamp_(max=1),
            size=torch.full_like(loss, 2 * radius),
            rises=torch.zeros_like(loss),
            halved=torch.ones_like(loss, dtype=torch.bool),
            loss_at_check=loss,
            rho=rho,
            period=max(int(0.22 * steps), 1),
            period_cut=max(int(0.03 * steps), 1),
            period_min=max(int(0.06 * steps), 1),
        )

    def move(self, path: Path) -> Tensor:
        """The next point of each sample, [n,C,H,W]."""
        size = broadcast(self.size, path.x)
        z = self._project(torch.addcmul(path.x, size, steepest(path.gradient, self.threat.norm)))
        if self.momentum:
            z.mul_(1 - self.momentum).add_(path.x, alpha=2 * self.momentum).sub_(path.previous, alpha=self.momentum)
            z = self._project(z)
        self.momentum = 0.25  # the first step has no past
        return z

    def _project(self, images: Tensor) -> Tensor:
        if self.threat.norm == "linf":
            return images.clamp_(self.lower, self.upper)
        return self.threat.project(images, self.origin)

    def observe(self, path: Path, rose: Tensor) -> None:
        """Count the rises; at a checkpoint halve the step where progress stalls and return to the best point."""
        self.rises = self.rises + rose
        self.waited += 1
        if self.waited < self.period:
            return
        oscillates = self.rises <= self.rho * self.period
        stuck = ~self.halved & (self.loss_at_check >= path.best_loss)
        self.halved = oscillates | stuck
        self.size = torch.where(self.halved, self.size / 2, self.size)
        path.restart_from_best(self.halved)
        self.loss_at_check = path.best_loss
        self.rises = torch.zeros_like(self.rises)
        self.waited, self.period = 0, max(self.period - self.period_cut, self.period_min)


@dataclass
class SparseSteps(Rows):
    """Steps of Croce & Hein 2021 (arXiv 2103.01208), algorithm 1, for the l1 ball cut with the box.

    Each step moves the k largest coordinates of the gradient by eta/k each and projects exactly. Every 4 % of the
    steps k becomes the number of coordinates of the best point divided by 1.5; where that number fell below 95 % of
    the last one, eta returns to eps and the search to the best point, else eta shrinks by 1.5, to eps/10 at least.
    """

    threat: ThreatModel
    origin: Tensor
    radius: float
    size: Tensor
    share: Tensor
    support: Tensor
    period: int
    waited: int = 0

    @classmethod
    def begin(cls, threat: ThreatModel, origin: Tensor, start: Tensor, radius: float, steps: int) -> SparseSteps:
        """The rule at its start, for one radius of the decreasing schedule."""
        support = _support(start, origin)
        return cls(
            threat=threat,
            origin=origin,
            radius=radius,
            size=torch.full_like(support, radius),
            share=support / (1.5 * origin.shape[1:].numel()),
            support=support,
            period=max(int(0.04 * steps), 1),
        )

    def move(self, path: Path) -> Tensor:
        """The next point of each sample, [n,C,H,W]."""
        flat = path.gradient.flatten(1)
        pixels = flat.shape[1]
        rank = ((1 - self.share) * pixels).clamp(0, pixels - 1).long()
        threshold = flat.abs().sort(dim=1).values.gather(1, rank[:, None])
        signs = torch.where(flat.abs() >= threshold, flat.sign(), 0.0)
        step = self.size[:, None] * signs / (signs.abs().sum(1, keepdim=True) + 1e-10)
        return self.threat.project(path.x + step.view_as(path.x), self.origin, self.radius)

    def observe(self, path: Path, rose: Tensor) -> None:
        """At a checkpoint adapt sparsity and step to the best point's support."""
        self.waited += 1
        if self.waited < self.period:
            return
        support = _support(path.best, self.origin)
        sparser = support < 0.95 * self.support
        shrunk = (self.size / 1.5).clamp_min(self.radius / 10)
        self.size = torch.where(sparser, self.radius, shrunk)
        self.share = support / (1.5 * self.origin.shape[1:].numel())
        self.support, self.waited = support, 0
        path.restart_from_best(sparser)


def _support(images: Tensor, origin: Tensor) -> Tensor:
    return (images != origin).flatten(1).sum(1).to(origin.dtype)
