"""The proposals of the Square attack: where its windows lie, how large they are, and what is written into them.

Every sample has windows of its own, drawn from its own randomness, so a batch is a stack of independent searches
(the official code shares one window between all samples of a batch, which ties a verdict to its batch).
"""

from __future__ import annotations

import torch
from torch import Tensor

from robust.attacks.attack import broadcast
from robust.threat import ThreatModel, norm_of

# iterations after which the window's area halves, for a budget of 10,000 queries (arXiv 1912.00049, section 5)
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def window_side(iteration: float, share: float, height: int, width: int, norm: str) -> int:
    """Side in pixels of the window: its area is `share` of the image, halved at each point of the schedule passed.

    In l2 and l1 the window needs a centre and two halves: its side is odd and at least 3.
    """
    area = share / 2 ** sum(iteration > point for point in HALVINGS) * height * width
    side = max(round(area**0.5), 1)
    if norm != "linf":
        side = max(side, 3)
        side += 1 - side % 2
    return min(side, height, width)


def window(draws: Tensor, side: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows [n,H] and columns [n,W], counted from the corner of a uniformly placed window; draws [n,2] in [0,1)."""
    top = (draws[:, 0] * (height - side + 1)).floor()
    left = (draws[:, 1] * (width - side + 1)).floor()
    rows = torch.arange(height, device=draws.device) - top[:, None]
    columns = torch.arange(width, device=draws.device) - left[:, None]
    return rows, columns


def inside(rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """The window as a mask [n,1,H,W]."""
    mask_rows, mask_columns = (rows >= 0) & (rows < side), (columns >= 0) & (columns < side)
    return mask_rows[:, None, :, None] & mask_columns[:, None, None, :]


def bump(side: int, norm: str, like: Tensor) -> Tensor:
    """The pattern eta [side,side] of the l2 and l1 attacks: a positive and a negative half-window, unit norm.

    A half of height a and width b sums squares around its centre, square k with weight 1/(k+1)^2 (l2) or 1/(k+1)^4
    (l1): Andriushchenko et al. 2020, eq. 4; Croce & Hein 2021, appendix.
    """
    power = 2 if norm == "l2" else 4
    upper = _half(side // 2, side, power)
    lower = _half(side - side // 2, side, power)
    order = 2 if norm == "l2" else 1
    halves = [half / half.norm(order) if half.numel() else half for half in (upper, lower)]
    pattern = torch.cat([halves[0], -halves[1]])
    return (pattern / pattern.norm(order)).to(like)


def _half(height: int, width: int, power: int) -> Tensor:
    rows = (torch.arange(height, dtype=torch.float64) - height // 2).abs()
    columns = (torch.arange(width, dtype=torch.float64) - width // 2).abs()
    ring = torch.maximum(rows[:, None], columns[None, :]).long()
    weights = 1 / torch.arange(1, max(height // 2, width // 2) + 2, dtype=torch.float64) ** power
    return weights.flip(0).cumsum(0).flip(0)[ring]


def tiled_start(threat: ThreatModel, origin: Tensor, draws: Tensor) -> Tensor:
    """Start of the l2 and l1 attacks: bumps of random sign and orientation on a 5x5 grid; draws [n, 25 (C+1)]."""
    n, channels, height, width = origin.shape
    side = max(height // 5, 1)
    across = min(5, width // side)
    pattern = bump(side, threat.norm, origin)
    both = torch.stack([pattern, pattern.T])
    delta = torch.zeros_like(origin)
    first = (height - side * min(5, height // side)) // 2
    tiles = draws.view(n, 25, channels + 1)
    for index in range(min(5, height // side) * across):
        top, left = first + side * (index // across), first + side * (index % across)
        left = min(left, width - side)
        signs = 1 - 2 * (tiles[:, index, 1:] < 0.5).to(origin.dtype)
        turned = both[(tiles[:, index, 0] < 0.5).long()]
        delta[:, :, top : top + side, left : left + side] += signs[:, :, None, None] * turned[:, None]
    return fill_ball(threat, origin, delta)


def move_mass(threat: ThreatModel, origin: Tensor, best: Tensor, draws: Tensor, side: int) -> Tensor:
    """Proposal of the l2 and l1 attacks: mass of a second window moves into a new pattern in the first.

    draws [n, 5 + C] in [0,1): two corners, the pattern's orientation, its sign in each channel. The budget that the
    box left unused is spent too (algorithm 3 of arXiv 1912.00049; its l1 form in arXiv 2103.01208).
    """
    channels, height, width = origin.shape[1:]
    delta = best - origin
    rows, columns = window(draws[:, :2], side, height, width)
    here = inside(rows, columns, side)
    there = inside(*window(draws[:, 2:4], side, height, width), side)
    signs = 1 - 2 * (draws[:, 5:] < 0.5).to(delta.dtype)[:, :, None, None]
    old = delta * here
    fresh = signs * _placed(bump(side, threat.norm, origin), rows, columns, here, draws[:, 4] < 0.5)
    fresh = fresh + old / (_channel_norm(old, threat.norm) + 1e-12)
    spare = broadcast(norm_of(delta, threat.norm), delta)
    windows = _channel_norm(delta * (here | there), threat.norm)
    if threat.norm == "l2":
        length = ((threat.radius**2 - spare**2).clamp_min(0) / channels + windows**2).sqrt()
    else:
        length = (threat.radius - spare).clamp_min(0) + windows * channels
    delta = torch.where(
        here, fresh / (_channel_norm(fresh, threat.norm) + 1e-12) * length, delta.masked_fill(there, 0.0)
    )
    return fill_ball(threat, origin, delta)


def fill_ball(threat: ThreatModel, origin: Tensor, delta: Tensor) -> Tensor:
    """The perturbation scaled to full size and cut to the box (l2), or projected (l1)."""
    if threat.norm == "l2":
        delta = delta * broadcast(threat.radius / (norm_of(delta, "l2") + 1e-12), delta)
        return (origin + delta).clamp_(0, 1)
    return threat.project(origin + delta, origin)


def _channel_norm(delta: Tensor, norm: str) -> Tensor:
    """Norm of each channel, [n,C,1,1]."""
    if norm == "l2":
        return delta.square().sum((2, 3), keepdim=True).sqrt()
    return delta.abs().sum((2, 3), keepdim=True)


def _placed(pattern: Tensor, rows: Tensor, columns: Tensor, mask: Tensor, turned: Tensor) -> Tensor:
    """The pattern at each sample's window, transposed where `turned` [n], zero elsewhere: [n,1,H,W]."""
    side = len(pattern)
    r, c = rows.clamp(0, side - 1).long()[:, :, None], columns.clamp(0, side - 1).long()[:, None, :]
    placed = torch.where(turned[:, None, None], pattern[c, r], pattern[r, c])
    return placed[:, None] * mask
