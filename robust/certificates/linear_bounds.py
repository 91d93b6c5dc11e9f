"""Backward linear bounds: how small a linear form of a network's outputs can get over a ball of images.

A form a . z is pulled back layer by layer to the images, where the ball is met in closed form (Zhang et al. 2018,
arXiv 1811.00866, theorem 3.2; with parallel lines it is the dual network of Wong & Kolter 2018, arXiv 1711.00851,
theorem 1). Everything is computed in float64. The rounding of the network's own arithmetic, and ours, is a box of
noise behind every affine map: the bounds hold for the network in the precision in which it is run, and for every
image that an evaluation accepts as inside the ball.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from robust.certificates.affine import Affine, Step, widest
from robust.certificates.boxes import sum_error
from robust.certificates.relaxations import RELAXATIONS, Adaptive, Ball, Noisy, Parallel, Pulled, Slope, centred, ends

Intermediate = Literal["backward", "interval"]
Pair = tuple[Tensor, Tensor]
Layer = Ball | Noisy | Parallel | Adaptive

ELEMENTS = 2**20  # numbers in the forms that are pulled back at once: 8 MB


def margins(steps: Sequence[Step], ball: Ball, labels: Tensor, slope: Slope, intermediate: Intermediate) -> Tensor:
    """Lower bounds [N,K] of z_y - z_j over the ball; 0 in the column of the label y."""
    layers, (logits, _) = relaxed(steps, ball, slope, intermediate)
    identity = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
    found = torch.zeros_like(logits)
    for sample, label in enumerate(labels.tolist()):
        own = [layer.of(sample) for layer in layers]
        found[sample] = torch.cat([_least(own, Pulled.start(identity[label] - part)) for part in _split(identity, own)])
    return found.scatter(1, labels[:, None], 0.0)


def relaxed(steps: Sequence[Step], ball: Ball, slope: Slope, intermediate: Intermediate) -> tuple[list[Layer], Pair]:
    """The network over this ball, layer by layer from the ball on, and the box (middle, radius) of its outputs.

    A box is carried forward; before a ReLU it is met with backward bounds wherever it leaves the sign open: at every
    ReLU layer, or only at the first, where the network is still linear and they cost little.
    """
    layers: list[Layer] = [ball]
    box, linear = ball.box, True
    for step in steps:
        if isinstance(step, Affine):
            noise, box = _through(step, box)
            inner = Noisy(step, noise)
            layers.append(inner)
            continue
        lower, upper = ends(*box)
        if linear or intermediate == "backward":
            # a box says little of an l2 or l1 ball: there no sign is taken for settled
            asked = (lower < 0) & (upper > 0) | (linear and ball.norm != "linf")
            lower, upper = _tightened(layers, lower, upper, asked)
        layers[-1] = RELAXATIONS[slope].between(inner, lower, upper)
        box, linear = centred(lower.clamp_min(0), upper.clamp_min(0)), False
    return layers, box


def _tightened(layers: Sequence[Layer], lower: Tensor, upper: Tensor, asked: Tensor) -> Pair:
    """Bounds [N,...] of what the layers end in, met with backward bounds where `asked` [N,...].

    The affine maps behind the last ReLU are the same for all samples: forms go back through them once.
    """
    turn = max(i for i, layer in enumerate(layers) if not isinstance(layer, Noisy)) + 1
    heads = [[layer.of(sample) for layer in layers[:turn]] for sample in range(len(lower))]
    least, most, asked = lower.flatten(1).clone(), upper.flatten(1).clone(), asked.flatten(1)
    for rows in _split(torch.arange(asked.shape[1], device=lower.device), layers):
        form = torch.zeros(len(rows), asked.shape[1], dtype=lower.dtype, device=lower.device)
        form[torch.arange(len(rows)), rows] = 1.0
        shared = _pulled_back(layers[turn:], Pulled.start(form.view(-1, *lower.shape[1:])))
        for sample, head in enumerate(heads):
            places = asked[sample, rows].nonzero()[:, 0]
            if not len(places):
                continue
            low, high = _both(head, shared.of(sample, places))
            least[sample, rows[places]] = torch.maximum(least[sample, rows[places]], low)
            most[sample, rows[places]] = torch.minimum(most[sample, rows[places]], high)
    return least.view_as(lower), most.view_as(upper)


def _both(layers: Sequence[Layer], start: Pulled) -> Pair:
    """Lower and upper bounds [R] for one sample: in one pass where the relaxation is symmetric, else in two."""
    if not all(layer.symmetric for layer in layers):
        return _least(layers, start), -_least(layers, -start)
    met = _pulled_back(layers, start)
    return ends(met.middle[0], met.deviation[0])


def _least(layers: Sequence[Layer], start: Pulled) -> Tensor:
    """Lower bounds [R] for one sample."""
    met = _pulled_back(layers, start)
    return ends(met.middle[0], met.deviation[0])[0]


def _pulled_back(layers: Sequence[Layer], pulled: Pulled) -> Pulled:
    for layer in reversed(layers):
        pulled = layer.back(pulled)
    return pulled


def _split(rows: Tensor, layers: Sequence[Layer]) -> tuple[Tensor, ...]:
    """Rows in portions whose forms fit into memory on the widest layer."""
    return rows.split(max(1, ELEMENTS // widest([layer.affine for layer in layers if not isinstance(layer, Ball)])))


def _through(step: Affine, box: Pair) -> tuple[Tensor, Pair]:
    """Noise [N,*outputs] of an affine map on this box, the network's own and ours, and the box behind it."""
    middle, radius = box
    size = step.absolute(middle.abs() + radius) + step.size
    # ours: products forward and backward, of either side's length, and the sums over a form
    ours = 8 * sum_error(math.prod(step.inputs) + math.prod(step.outputs), middle)
    noise = size * (1.01 * step.error + ours)
    return noise, (step.apply(middle) + step.bias, step.absolute(radius) + noise)
