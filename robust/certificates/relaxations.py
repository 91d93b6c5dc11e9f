"""A network on a batch, layer by layer, as linear forms are pulled back through it: affine maps, ReLUs, the ball.

`back` says the forms in terms of what goes into a layer; `of` is the layer as one sample sees it (ReLUs and the ball
take forms only so); `symmetric` whether middle + deviation is an upper bound as well. Float64 throughout: every
constant is rounded outward, and sums over a form carry the worst case of our own rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from robust.certificates.affine import Affine
from robust.certificates.boxes import sum_error
from robust.threat import TOLERANCE, Norm

Slope = Literal["parallel", "adaptive"]

DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}
UNIT = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Pulled:
    """Forms on their way back [R,...], and what each left behind for each sample: middle +- deviation [N or 1,R]."""

    form: Tensor
    middle: Tensor
    deviation: Tensor

    @classmethod
    def start(cls, form: Tensor) -> Pulled:
        """At the output, with nothing left behind."""
        nothing = form.new_zeros(1, len(form))
        return cls(form, nothing, nothing)

    def to(self, form: Tensor, middle: Tensor, deviation: Tensor) -> Pulled:
        """One layer further back."""
        middle, deviation = self.middle + middle, self.deviation + deviation
        return Pulled(form, middle, deviation + 4 * UNIT * (middle.abs() + deviation))

    def of(self, sample: int, rows: Tensor) -> Pulled:
        """Some rows as they are for one sample."""
        middle, deviation = (part[sample % len(part)][None, rows] for part in (self.middle, self.deviation))
        return Pulled(self.form[rows], middle, deviation)

    def __neg__(self) -> Pulled:
        return Pulled(-self.form, -self.middle, self.deviation)


@dataclass(frozen=True)
class Noisy:
    """An affine map whose outputs may be off by `noise` [N,*outputs]."""

    affine: Affine
    noise: Tensor
    symmetric: ClassVar[bool] = True

    def back(self, pulled: Pulled) -> Pulled:
        """a . (W x + b + noise) >= W^T a . x + a . b - |a| . noise."""
        form = pulled.form
        return pulled.to(self.affine.transpose(form), dot(form, self.affine.bias), dot(form.abs(), self.noise))

    def of(self, sample: int) -> Noisy:
        """As one sample sees it."""
        return Noisy(self.affine, self.noise[sample, None])


@dataclass(frozen=True)
class Parallel:
    """An affine map and a ReLU between two lines of one slope s = u / (u - l): s z <= max(z, 0) <= s z - s l.

    Wong & Kolter 2018, arXiv 1711.00851, eq. 4. With half = -s l / 2 the two are s (W x + b) + half, give or take
    half + s noise: once more an affine map with noise.
    """

    affine: Affine
    slope: Tensor
    bias: Tensor
    noise: Tensor
    symmetric: ClassVar[bool] = True

    @classmethod
    def between(cls, inner: Noisy, lower: Tensor, upper: Tensor) -> Parallel:
        """Behind this map, whose outputs [N,...] lie between these bounds."""
        slope, offset = _chord(lower, upper)
        half = offset / 2
        bias, noise = half + slope * inner.affine.bias, half * (1 + own_error(half)) + slope * inner.noise
        return cls(inner.affine, slope, bias, noise)

    def back(self, pulled: Pulled) -> Pulled:
        """a . max(z, 0) is W^T (s a) . x + a . bias, give or take |a| . noise."""
        form = pulled.form
        back = self.affine.transpose(form * self.slope)
        return pulled.to(back, dot(form, self.bias), dot(form.abs(), self.noise))

    def of(self, sample: int) -> Parallel:
        """As one sample sees it."""
        return Parallel(self.affine, *(part[sample, None] for part in (self.slope, self.bias, self.noise)))


@dataclass(frozen=True)
class Adaptive:
    """An affine map and a ReLU, above z or 0, whichever leaves less room, and below the chord.

    Zhang et al. 2018, arXiv 1811.00866, section 3.3.
    """

    inner: Noisy
    lower: Tensor
    slope: Tensor
    offset: Tensor
    symmetric: ClassVar[bool] = False

    @classmethod
    def between(cls, inner: Noisy, lower: Tensor, upper: Tensor) -> Adaptive:
        """Behind this map, whose outputs [N,...] lie between these bounds: the lower line is z where u > -l, else 0."""
        return cls(inner, (upper > -lower).to(upper.dtype), *_chord(lower, upper))

    @property
    def affine(self) -> Affine:
        """The map in front of the ReLU."""
        return self.inner.affine

    def back(self, pulled: Pulled) -> Pulled:
        """Positive coefficients meet the lower line, negative ones the chord: right for a lower bound only."""
        rises, falls = pulled.form.clamp_min(0), pulled.form.clamp_max(0)
        middle = dot(falls, self.offset)
        form = rises * self.lower + falls * self.slope
        return self.inner.back(pulled.to(form, middle, -middle * own_error(self.offset)))

    def of(self, sample: int) -> Adaptive:
        """As one sample sees it."""
        return Adaptive(self.inner.of(sample), *(part[sample, None] for part in (self.lower, self.slope, self.offset)))


RELAXATIONS: dict[Slope, type[Parallel] | type[Adaptive]] = {"parallel": Parallel, "adaptive": Adaptive}


@dataclass(frozen=True)
class Ball:
    """All images within `radius` [N] of `images` [N,C,H,W] in `norm` and in the box [0,1], with its tolerance."""

    images: Tensor
    radius: Tensor
    norm: Norm
    symmetric: ClassVar[bool] = True

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """Middle and radius of the smallest box around the ball cut with [0,1]."""
        radius, room = self.radius.view(-1, 1, 1, 1), TOLERANCE * (1 + 1e-6)
        return centred((self.images - radius).clamp_min(-room), (self.images + radius).clamp_max(1 + room))

    def back(self, pulled: Pulled) -> Pulled:
        """The forms' extremes by Hoelder's inequality: radius times the dual norm, or for linf those of the box."""
        form = pulled.form
        if self.norm == "linf":
            middle, radius = self.box
            deviation = dot(form.abs(), radius + own_error(radius) * (middle.abs() + radius))
        else:
            middle, spare = self.images, own_error(self.images)
            size = torch.linalg.vector_norm(form.flatten(1), ord=DUAL[self.norm], dim=1)
            deviation = size * self.radius[:, None] * (1 + spare) + dot(form.abs(), spare * middle.abs())
        return pulled.to(form, dot(form, middle), deviation)

    def of(self, sample: int) -> Ball:
        """Around one sample."""
        return Ball(self.images[sample, None], self.radius[sample, None], self.norm)


def _chord(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset of the line through (l, 0) and (u, u), rounded upward; of the ReLU itself where it is linear."""
    crosses = (lower < 0) & (upper > 0)
    chord = (upper / torch.where(crosses, upper - lower, 1.0) * (1 + 4 * UNIT)).clamp_max(1.0)
    slope = torch.where(crosses, chord, (lower >= 0).to(upper.dtype))
    return slope, torch.where(crosses, -chord * lower * (1 + 4 * UNIT), 0.0)


def dot(form: Tensor, x: Tensor) -> Tensor:
    """Sums of forms [R,...] times x [N,...]: [N,R]."""
    return x.flatten(1) @ form.flatten(1).T


def ends(middle: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper end of a box, rounded outward."""
    radius = radius + UNIT * (middle.abs() + radius)
    return middle - radius, middle + radius


def centred(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and radius of a box, rounded outward."""
    middle = (lower + upper) / 2
    return middle, (upper - lower) / 2 + 4 * UNIT * torch.maximum(lower.abs(), upper.abs())


def own_error(like: Tensor) -> float:
    """Relative error of our own sum over all coordinates of one sample, with room for a few more roundings."""
    return 4 * sum_error(like[0].numel(), like)
