"""Projection onto a hyperplane inside the box: the nearest point of [0,1]^d where a linear function changes sign.

For f(x + d) = gap + <w, d> the problem is min |d|_p subject to <w, d> = -gap and 0 <= x + d <= 1 (Croce & Hein 2020,
arXiv 1907.02044, eq. 4). Each coordinate moves in the direction that closes the gap and has a room up to the box.
In linf every coordinate moves min(t, room), in l2 min(t |w_i|, room), and t solves one concave, piecewise linear
equation, which Newton's method solves in finitely many monotone steps; in l1 the steepest coordinates are filled in
order. All in the caller's dtype; no sorting outside l1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def project_to_hyperplane(points: Tensor, weights: Tensor, gap: Tensor, norm: str) -> Tensor:
    """Smallest perturbation [n,D] that closes `gap`, or the one that closes most of it where the box is too small.

    Args:
        points: [n,D] in [0,1].
        weights: [n,D], the gradient of f.
        gap: f at the points, [n]; either sign.
        norm: linf, l2 or l1.
    """
    # orient so that f has to grow by need >= 0
    weights = torch.where(gap[:, None] > 0, -weights, weights)
    need = gap.abs()
    pull = weights.abs()
    room = torch.where(weights > 0, 1 - points, points)
    room = torch.where(pull > 0, room, 0.0)
    if norm == "l1":
        size = _fill_steepest(pull, room, need)
    else:
        rate = torch.ones_like(pull) if norm == "linf" else pull
        size = torch.minimum(_solve(pull, rate, room, need)[:, None] * rate, room)
    return weights.sign() * size


def _solve(pull: Tensor, rate: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """The t >= 0 with sum_i pull_i min(t rate_i, room_i) = need, [n]; where none exists, the t that fills all rooms.

    Starting at 0 on a concave increasing function, Newton never overshoots. A row stops by itself, so its answer does
    not depend on the other rows.
    """
    tiny = torch.finfo(pull.dtype).tiny
    ends = room / rate.clamp_min(tiny)
    limit = torch.where(room > 0, ends, 0.0).amax(1)
    slopes = pull * rate
    t = torch.zeros_like(need)
    running = need > 0
    for _ in range(60):
        free = ends > t[:, None]
        reached = torch.where(free, slopes * t[:, None], pull * room).sum(1)
        slope = torch.where(free, slopes, 0.0).sum(1)
        step = (need - reached) / slope.clamp_min(tiny)
        running = running & (slope > 0) & (step > 1e-6 * t)
        if not running.any():
            break
        t = torch.where(running, torch.minimum(t + step, limit), t)
    return t


def _fill_steepest(pull: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """l1: coordinates by decreasing pull, each to the end of its room, the last one part of the way."""
    order = pull.argsort(dim=1, descending=True, stable=True)
    pulls, rooms = pull.gather(1, order), room.gather(1, order)
    before = (pulls * rooms).cumsum(1) - pulls * rooms
    left = (need[:, None] - before).clamp_min(0)
    size = torch.minimum(left / pulls.clamp_min(torch.finfo(pull.dtype).tiny), rooms)
    return torch.zeros_like(pull).scatter_(1, order, size)
