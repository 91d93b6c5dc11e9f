"""ThreatModel: what an adversary may do to an image, as one exact value that every result carries.

Images are float tensors [N,C,H,W] in the box [0,1]. The size `eps` is an exact fraction in these units ("8/255"), the
norm is taken over all of C,H,W. Everything an attack needs of the geometry is here: distance, projection, random
start, steepest step and rounding to the 8-bit grid.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from robust.method import Exact, fraction_text
from robust.randomness import Randomness

Norm = Literal["linf", "l2", "l1"]
Knowledge = Literal["white-box", "score", "decision", "transfer"]

# float32 arithmetic on [0,1] images misses an exact radius by a few ulp per pixel; anything more is a violation
TOLERANCE = 1e-6


class ThreatModel(BaseModel):
    """An l_p ball of radius eps around the image, cut with the box [0,1].

    Attributes:
        norm: linf, l2 or l1.
        eps: radius in units of the [0,1] image, exact; None means "as far as needed" (smallest-distance attacks).
        targeted: whether success means a named wrong class rather than any.
        knowledge: what the adversary sees: gradients, scores, decisions, or another model.
        queries: budget of forward passes for black-box adversaries, None for unlimited.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    norm: Norm = "linf"
    eps: Exact | None = Field(default=None, description="radius in [0,1] image units, e.g. 8/255")
    targeted: bool = False
    knowledge: Knowledge = "white-box"
    queries: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _eps_inside_the_box(self) -> ThreatModel:
        if self.eps is not None and self.eps < 0:
            raise ValueError(f"eps is a radius and cannot be negative, got {self.eps}")
        if self.eps is not None and self.norm == "linf" and self.eps > 1:
            raise ValueError(
                f"eps {self.eps} is larger than the box [0,1]: give eps in units of the [0,1] image, for example 8/255"
            )
        return self

    @property
    def radius(self) -> float:
        """eps as a float; infinity where none is set."""
        return math.inf if self.eps is None else float(self.eps)

    def distance(self, images: Tensor, origin: Tensor) -> Tensor:
        """Distance [N] of each image from its origin, in float64."""
        return norm_of(images.double() - origin.double(), self.norm)

    def contains(self, images: Tensor, origin: Tensor) -> Tensor:
        """Whether each image lies in the ball and the box, up to float32 rounding, as a mask [N]."""
        room = (
            TOLERANCE * {"linf": 1.0, "l2": math.sqrt(origin[0].numel() or 1), "l1": origin[0].numel() or 1}[self.norm]
            if len(origin)
            else 0.0
        )
        flat = images.flatten(1)
        boxed = ((flat >= -TOLERANCE) & (flat <= 1 + TOLERANCE)).all(1) & flat.isfinite().all(1)
        return boxed & (self.distance(images, origin) <= self.radius + room)

    def project(self, images: Tensor, origin: Tensor, radius: float | Tensor | None = None) -> Tensor:
        """Nearest point of the box inside the ball (for l2: onto the ball, then the box; never outside either).

        Args:
            images: [N,C,H,W].
            origin: [N,C,H,W] in [0,1].
            radius: a number or [N]; eps when None.
        """
        radius = self.radius if radius is None else radius
        delta = images - origin
        if self.norm == "linf":
            bound = _per_sample(radius, delta)
            delta = torch.minimum(torch.maximum(delta, -bound), bound)
        elif self.norm == "l2":
            size = norm_of(delta, "l2").clamp_min(torch.finfo(delta.dtype).tiny)
            delta = delta * _per_sample((_vector(radius, delta) / size).clamp_max(1.0), delta)
        else:
            delta = project_l1_box(delta, origin, _vector(radius, delta))
        return (origin + delta).clamp(0.0, 1.0)

    def random_start(self, origin: Tensor, rng: Randomness) -> Tensor:
        """A random point of the ball, cut to the box: uniform in the volume for every norm."""
        shape, n = origin.shape[1:], origin[0].numel() if len(origin) else 1
        if self.norm == "linf":
            delta = rng.fork("start").uniform(shape, -1.0, 1.0, like=origin) * self.radius
        else:
            draw = rng.fork("start").normal if self.norm == "l2" else rng.fork("start").laplace
            direction = draw(shape, like=origin)
            length = rng.fork("length").uniform((), like=origin) ** (1.0 / n) * self.radius
            delta = direction * _per_sample(length / norm_of(direction, self.norm).clamp_min(1e-30), direction)
        return self.project(origin + delta, origin)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of unit norm that increases the loss fastest to first order, [N,C,H,W]; 0 where it is flat.

        sign(g) for linf, g/|g|_2 for l2, the largest coordinate alone for l1 (the dual-norm maximiser).
        """
        return steepest(gradient, self.norm)

    def round_inside(self, images: Tensor, origin: Tensor) -> Tensor:
        """Round to the 8-bit grid k/255 without leaving the ball: what survives being saved as a file.

        Each coordinate goes to the nearest grid value that is no farther from the origin than it was or, for linf,
        than eps; coordinates that cannot move go back to the origin's own grid value.
        """
        lower, upper = origin, origin
        if self.norm == "linf" and self.eps is not None:
            lower, upper = origin - self.radius, origin + self.radius
        else:
            lower, upper = torch.minimum(images, origin), torch.maximum(images, origin)
        slack = 255 * TOLERANCE
        low, high = (lower * 255 - slack).ceil(), (upper * 255 + slack).floor()
        rounded = torch.minimum(torch.maximum((images * 255).round(), low), high)
        fits = low <= high  # an origin off the grid can have no grid value in reach
        return torch.where(fits, rounded / 255, origin).clamp(0.0, 1.0)

    def __str__(self) -> str:
        size = "unbounded" if self.eps is None else fraction_text(self.eps)
        return f"{self.norm} {size}"


def norm_of(delta: Tensor, norm: str) -> Tensor:
    """The norm [N] of each perturbation [N,...]."""
    order = {"linf": math.inf, "l2": 2.0, "l1": 1.0}[norm]
    if delta.numel() == 0:
        return delta.new_zeros(len(delta))
    return torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Unit-norm direction of steepest ascent of a linear function, [N,C,H,W]."""
    if norm == "linf":
        return gradient.sign()
    if norm == "l2":
        flat = gradient.flatten(1)
        # scale first: squares of gradients below 1e-19 vanish in float32
        largest = flat.abs().amax(1, keepdim=True)
        flat = flat / largest.clamp_min(torch.finfo(flat.dtype).tiny)
        size = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        return (flat / size.clamp_min(1e-12)).view_as(gradient)
    flat = gradient.flatten(1)
    best = flat.abs().argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter(1, best, flat.gather(1, best).sign()).view_as(gradient)


def steepest_in(gradient: Tensor, p: float) -> Tensor:
    """Direction of unit l_p norm, 1 <= p <= inf, that increases a linear function fastest, [N,C,H,W].

    d_i = sign(g_i) (|g_i| / |g|_q)^(q-1) with 1/p + 1/q = 1 attains max over |d|_p <= 1 of <g, d> = |g|_q, the dual
    norm (Hoelder's inequality with equality). p = inf, 2 and 1 are `steepest`; 0 where the gradient is.

    Raises:
        ValueError: if p is below 1, where no dual norm exists.
    """
    if not p >= 1:
        raise ValueError(f"steepest_in needs p >= 1, got {p}: below 1 there is no norm")
    named = {math.inf: "linf", 2.0: "l2", 1.0: "l1"}.get(float(p))
    if named:
        return steepest(gradient, named)
    conjugate = p / (p - 1)
    size = gradient.flatten(1).abs()
    # scale first: powers of small gradients vanish in float32
    size = size / size.amax(1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
    dual = torch.linalg.vector_norm(size, ord=conjugate, dim=1, keepdim=True).clamp_min(1e-12)
    return gradient.sign() * ((size / dual) ** (conjugate - 1)).view_as(gradient)


def project_l1_box(delta: Tensor, origin: Tensor, radius: Tensor) -> Tensor:
    """Euclidean projection of delta onto {|d|_1 <= radius, 0 <= origin + d <= 1}.

    With bounds u_i on |d_i| toward the side of the box it moves to, the solution is
    d_i = sign(delta_i) * clip(|delta_i| - t, 0, u_i) with the smallest t >= 0 that meets the radius (KKT conditions;
    Croce & Hein 2021, arXiv 2103.01208, section 3). The total is piecewise linear in t, so Newton's method, kept
    inside a bracket, lands on the root after a few steps and needs no sorting. Each row stops by itself.
    """
    shape = delta.shape
    flat, start = delta.flatten(1).double(), origin.flatten(1).double()
    room = torch.where(flat > 0, 1 - start, start)
    size = flat.abs()
    target = radius.double()
    clipped = torch.minimum(size, room)
    running = clipped.sum(1) > target
    if not running.any():
        return (flat.sign() * clipped).view(shape).to(delta.dtype)
    t, low, high = torch.zeros_like(target), torch.zeros_like(target), size.amax(1)
    for _ in range(100):
        left = size - t[:, None]
        excess = torch.minimum(left.clamp_min(0), room).sum(1) - target
        running = running & (excess.abs() > 1e-12 * target.clamp_min(1e-12)) & (high - low > 1e-15)
        if not running.any():
            break
        low, high = torch.where(excess > 0, t, low), torch.where(excess > 0, high, t)
        newton = t + excess / ((left > 0) & (left < room)).sum(1)
        within = (newton > low) & (newton < high)  # also false where the slope is 0 and newton infinite or NaN
        t = torch.where(running, torch.where(within, newton, (low + high) / 2), t)
    return (flat.sign() * torch.minimum((size - t[:, None]).clamp_min(0), room)).view(shape).to(delta.dtype)


def _vector(value: float | Tensor, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(like.dtype).expand(len(like))
    return torch.full((len(like),), value, dtype=like.dtype, device=like.device)


def _per_sample(value: float | Tensor, like: Tensor) -> Tensor:
    return _vector(value, like).view(-1, *([1] * (like.dim() - 1)))
