"""Patch: a square of free pixels, placed where it hurts most."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robust.attacks.attack import FixedBudget, fooled, input_gradient
from robust.attacks.survivors import Survivors
from robust.classifier import Classifier
from robust.losses import LossName, loss_by_name, margin
from robust.method import Exact
from robust.randomness import Randomness
from robust.threat import ThreatModel


class Patch(FixedBudget):
    """Adversarial patch with location search: gradient ascent on a square's pixels, and greedy moves of the square.

    Rao et al. 2020, arXiv 2005.02313, algorithm 1: from a random place and uniform pixels, each step adds
    step_size x sign(gradient) to the pixels; every `every` steps the square tries a move of `stride` pixels in each of
    four directions and takes the one with the largest loss, if it is larger. Inside the square every value of [0,1]
    is allowed, outside nothing changes: the threat model is the whole box (linf 1).

    Costs at most restarts x (steps + 1 + 5 steps/every) forward and restarts x steps backward passes.
    """

    name: ClassVar[str] = "patch"
    family: ClassVar[str] = "patch"
    source: ClassVar[str] = "Rao et al. 2020, arXiv 2005.02313"
    norms: ClassVar[tuple[str, ...]] = ("linf",)

    threat: ThreatModel = Field(default=ThreatModel(eps=Fraction(1)), description="the whole box")
    area: float = Field(default=0.06, gt=0, le=1, description="share of the image that the square covers")
    steps: int = Field(default=100, ge=1, description="gradient steps of each start")
    step_size: Exact = Field(default=Fraction(1, 20), description="change of each pixel in a step")
    every: int = Field(default=5, ge=1, description="steps between two moves of the square")
    stride: int = Field(default=2, ge=1, description="pixels of a move")
    restarts: int = Field(default=1, ge=1, description="independent starts; the later ones only for survivors")
    loss: LossName = Field(default="ce", description="ce, margin, dlr, or auto (dlr from 3 classes on, else margin)")

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """See `FixedBudget.perturb`; start r is drawn from rng.fork("restart", r)."""
        survivors = Survivors(classifier, images, labels, rng)
        for restart in range(self.restarts):
            if len(survivors):
                self._climb(survivors, survivors.rng.fork("restart", restart))
        return survivors.best

    def _climb(self, survivors: Survivors, rng: Randomness) -> None:
        channels, height, width = survivors.origin.shape[1:]
        side = min(max(1, round((self.area * height * width) ** 0.5)), height, width)
        room = torch.tensor([height - side, width - side], device=survivors.origin.device)
        pixels = rng.fork("pixels").uniform((channels, side, side), like=survivors.origin)
        corner = (rng.fork("corner").uniform((2,), like=survivors.origin) * (room + 1)).long()
        for step in range(self.steps):
            x = paste(survivors.origin, pixels, corner)
            goal = partial(self._loss, labels=survivors.labels)
            gradient, _, logits = input_gradient(survivors.classifier, x, goal)
            fallen = fooled(logits, survivors.labels)
            _, pixels, corner, gradient = survivors.fell(fallen, x, pixels, corner, gradient)
            if not len(survivors):
                return
            pixels = (pixels + float(self.step_size) * cut(gradient, corner, side).sign()).clamp_(0, 1)
            if (step + 1) % self.every == 0:
                corner = self._move(survivors, pixels, corner, room)
        x = paste(survivors.origin, pixels, corner)
        with torch.no_grad():
            logits = survivors.classifier(x)
        survivors.offer(x, margin(logits, survivors.labels))
        survivors.fell(fooled(logits, survivors.labels), x)

    def _move(self, survivors: Survivors, pixels: Tensor, corner: Tensor, room: Tensor) -> Tensor:
        """The best of the place and its four neighbours, [n,2]."""
        best, value = corner, torch.full_like(pixels[:, 0, 0, 0], -torch.inf)
        for down, across in ((0, 0), (self.stride, 0), (-self.stride, 0), (0, self.stride), (0, -self.stride)):
            tried = (corner + torch.tensor([down, across], device=corner.device)).clamp(torch.zeros_like(room), room)
            with torch.no_grad():
                loss = self._loss(survivors.classifier(paste(survivors.origin, pixels, tried)), survivors.labels)
            better = loss > value
            best, value = torch.where(better[:, None], tried, best), torch.where(better, loss, value)
        return best

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return loss_by_name(self.loss, logits.shape[1])(logits, labels)

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Forward passes of the steps, the moves and the last look; one backward pass a step."""
        return (self.restarts * (self.steps + 1 + 5 * (self.steps // self.every)), self.restarts * self.steps)


def paste(images: Tensor, pixels: Tensor, corner: Tensor) -> Tensor:
    """Images [n,C,H,W] with the squares [n,C,s,s] at their corners [n,2] (row, column)."""
    x = images.clone()
    n, rows, columns = _window(corner, pixels.shape[-1])
    x[n, :, rows, columns] = pixels.permute(0, 2, 3, 1)
    return x


def cut(images: Tensor, corner: Tensor, side: int) -> Tensor:
    """The squares [n,C,s,s] of the images at their corners [n,2]."""
    n, rows, columns = _window(corner, side)
    return images[n, :, rows, columns].permute(0, 3, 1, 2)


def _window(corner: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    steps = torch.arange(side, device=corner.device)
    n = torch.arange(len(corner), device=corner.device)[:, None, None]
    return n, (corner[:, :1] + steps)[:, :, None], (corner[:, 1:] + steps)[:, None, :]
