"""Boxes of tensors, and the rule by which every operation of a network takes a box to a box.

The module's own `forward` runs on a `Box` instead of a tensor (torch's `__torch_function__` protocol): every
operation finds its rule here, residual sums and functional calls included, and one without a rule is refused by name.
A linear layer takes middle and radius, two products (Gowal et al. 2018, arXiv 1810.12715, eq. 6). The bounds are
computed in the network's own precision and rounded outward: each layer is widened by the worst-case rounding of n-term
sums (Higham 2002, section 3.1) for the network's own arithmetic and for ours, so that they hold for the floating-point
network that is run, in any order of summation (TF32 included; fast transforms such as Winograd's are not part of that
proof).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Rule = Callable[..., "Box"]


class Unsupported(ValueError):  # noqa: N818 - reads as the message it is
    """Interval bounds do not exist for this network; the message names the operation or the property."""


class Box:
    """All tensors x with |x - middle| <= radius, [N,...]; stands where a module expects a tensor.

    After a ReLU or a pooling the ends are what is known, and middle and radius are made from them when a layer asks:
    ends are taken to be wrong by 4 roundings, relative to the larger of the two.
    `linear` is (input box, weight, bias) if the box came from a linear layer: differences of its outputs are then
    bounded more tightly than by the box itself.
    """

    def __init__(
        self, middle: Tensor, radius: Tensor | None, linear: tuple[Box, Tensor, Tensor | None] | None = None
    ) -> None:
        self._centred = None if radius is None else (middle, radius)
        self._ends: tuple[Tensor, Tensor] | None = None
        self.linear = linear

    @classmethod
    def rounded(cls, middle: Tensor, radius: Tensor) -> Box:
        """The box widened by the rounding of a few elementwise operations."""
        return cls(middle, torch.add(radius, middle.abs() + radius, alpha=4 * _unit(middle)))

    @classmethod
    def between(cls, lower: Tensor, upper: Tensor) -> Box:
        """The box from its ends."""
        box = cls(lower, None)
        box._ends = lower, upper
        return box

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """Lower and upper end of every coordinate."""
        if self._ends is None:
            middle, radius = self.centred
            self._ends = middle - radius, middle + radius
        return self._ends

    @property
    def centred(self) -> tuple[Tensor, Tensor]:
        """Middle and radius of every coordinate."""
        if self._centred is None:
            self._centred = self.widened(0.0)
        return self._centred

    def widened(self, error: float) -> tuple[Tensor, Tensor]:
        """Middle, and radius + `error` times the largest magnitude of each coordinate."""
        if self._centred is not None:
            middle, radius = self._centred
            return middle, torch.add(radius * (1 + error), middle.abs(), alpha=error)
        lower, upper = self.ends
        width, error = upper - lower, error + 4 * _unit(lower)
        middle = torch.add(lower, width, alpha=0.5)
        return middle, torch.add(width * (0.5 * (1 + error)), middle.abs(), alpha=error)

    def become(self, other: Box) -> Box:
        """An operation in place: other holders of this box see the new values, as they would with a tensor."""
        self._centred, self._ends, self.linear = other._centred, other._ends, other.linear
        return self

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Box:
        kwargs = dict(kwargs or {})
        in_place = kwargs.pop("inplace", False)
        if function not in RULES:
            raise Unsupported(f"interval bounds have no rule for the operation {_name(function)}")
        found = RULES[function](*args, **kwargs)
        return args[0].become(found) if in_place else found

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "device", "ndim", "dim", "size"):
            return getattr((self._centred or self.ends)[0], name)
        if name.startswith("_"):
            raise AttributeError(name)
        rule = RULES.get(getattr(torch.Tensor, name, None))
        if rule is None:
            raise Unsupported(f"interval bounds have no rule for the operation Tensor.{name}")
        return lambda *args, **kwargs: rule(self, *args, **kwargs)

    def __add__(self, other: Any) -> Box:
        return _add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Box:
        return _sub(self, other)

    def __rsub__(self, other: Any) -> Box:
        return _sub(other, self)

    def __mul__(self, other: Any) -> Box:
        return _mul(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Box:
        return _div(self, other)


def _unit(like: Tensor) -> float:
    return torch.finfo(like.dtype).eps / 2


def sum_error(terms: int, like: Tensor) -> float:
    """Relative error of a sum of products, gamma_n = n u / (1 - n u), plus the rounding of TF32 factors."""
    unit = _unit(like) * (terms + 2)
    reduced = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    short = 2.1 * 2.0**-11 if like.is_cuda and like.dtype == torch.float32 and reduced else 0.0
    return unit / (1 - unit) + short if unit < 0.5 else math.inf


def _product(
    box: Box, weight: Tensor, bias: Tensor | None, apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
) -> tuple[Tensor, Tensor]:
    # 5 errors: the network's own product, our two, and what is left of second order
    error = 5 * sum_error(weight[0].numel(), weight)
    middle, radius = box.widened(error)
    slack = None if bias is None else error * bias.abs()
    return apply(middle, weight, bias), apply(radius, weight.abs(), slack)


def _linear(box: Box, weight: Tensor, bias: Tensor | None = None) -> Box:
    return Box(*_product(box, weight, bias, F.linear), linear=(box, weight, bias))


def _conv2d(box: Box, weight: Tensor, bias: Tensor | None = None, *geometry: Any, **named: Any) -> Box:
    return Box(*_product(box, weight, bias, lambda x, w, b: F.conv2d(x, w, b, *geometry, **named)))


def _choosing(function: Callable[..., Tensor]) -> Rule:
    """A function that never falls and returns its inputs or constants, such as a ReLU: ends to ends, exactly."""

    def rule(box: Box, *args: Any, **kwargs: Any) -> Box:
        if kwargs.get("return_indices"):
            raise Unsupported(f"interval bounds have no rule for the indices of {_name(function)}")
        lower, upper = box.ends
        return Box.between(function(lower, *args, **kwargs), function(upper, *args, **kwargs))

    return rule


def _rising(function: Callable[..., Tensor], slack: float = 0.0) -> Rule:
    """A function that never falls and is no steeper than 1; `slack` in units of rounding for its own error."""

    def rule(box: Box, *args: Any, **kwargs: Any) -> Box:
        lower, upper = box.ends
        middle, radius = Box.between(function(lower, *args, **kwargs), function(upper, *args, **kwargs)).centred
        found = Box.rounded(middle, radius)
        return Box(middle, found.centred[1] + slack * _unit(middle))

    return rule


def _leaky_relu(box: Box, negative_slope: float = 0.01) -> Box:
    if not 0 <= negative_slope <= 1:
        raise Unsupported(f"interval bounds need a leaky ReLU with a slope in [0,1], not {negative_slope}")
    return _rising(F.leaky_relu)(box, negative_slope)


def _average(box: Box, terms: int, function: Callable[[Tensor], Tensor]) -> Box:
    middle, radius = box.widened(5 * sum_error(terms, box.ends[0]))
    return Box(function(middle), function(radius))


def _avg_pool2d(box: Box, kernel_size: Any, *args: Any, **kwargs: Any) -> Box:
    sides = kernel_size if isinstance(kernel_size, tuple | list) else (kernel_size, kernel_size)
    return _average(box, math.prod(sides), lambda x: F.avg_pool2d(x, kernel_size, *args, **kwargs))


def _adaptive_avg_pool2d(box: Box, output_size: Any) -> Box:
    return _average(box, math.prod(box.shape[2:]), lambda x: F.adaptive_avg_pool2d(x, output_size))


def _mean(box: Box, dim: Any = None, keepdim: bool = False) -> Box:
    dims = (dim,) if isinstance(dim, int) else tuple(dim or ())
    places = [d % box.dim() for d in dims]
    if not places or 0 in places:
        raise Unsupported("interval bounds have no rule for a mean over the samples of a batch")
    return _average(box, math.prod(box.shape[d] for d in places), lambda x: x.mean(places, keepdim))


def _batch_norm(
    box: Box,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Box:
    if training or mean is None or variance is None:
        raise Unsupported("interval bounds need BatchNorm in eval mode: batch statistics mix the samples")
    shape = (1, -1, *([1] * (box.dim() - 2)))
    scale = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
    shift = torch.zeros_like(mean) if bias is None else bias
    scale, shift, centre = scale.view(shape), shift.view(shape), mean.view(shape)
    error = 16 * _unit(scale)
    middle, radius = box.widened(error)
    slack = error * (scale.abs() * centre.abs() + shift.abs())
    return Box.rounded((middle - centre) * scale + shift, torch.addcmul(slack, scale.abs(), radius))


def _dropout(box: Box, p: float = 0.5, training: bool = True) -> Box:
    if training and p > 0:
        raise Unsupported("interval bounds need dropout in eval mode")
    return box


def _shape(function: Callable[..., Tensor]) -> Rule:
    def rule(box: Box, *args: Any, **kwargs: Any) -> Box:
        lower, upper = (function(end, *args, **kwargs) for end in box.ends)
        if lower.dim() == 0 or len(lower) != box.size(0):
            raise Unsupported(f"interval bounds need {_name(function)} to keep the samples of a batch apart")
        return Box.between(lower, upper)

    return rule


def _constant(value: Any, box: Box) -> Any:
    if isinstance(value, Tensor) and value.dim() >= box.dim() and len(value) != 1:
        raise Unsupported("interval bounds have no rule for a tensor that differs between the samples of a batch")
    if not isinstance(value, Tensor | int | float):
        raise Unsupported(f"interval bounds have no rule for arithmetic with {type(value).__name__}")
    return value


def _add(left: Any, right: Any) -> Box:
    if isinstance(left, Box) and isinstance(right, Box):
        (middle, radius), (other, more) = left.centred, right.centred
        return Box.rounded(middle + other, radius + more)
    box, constant = (left, right) if isinstance(left, Box) else (right, left)
    middle, radius = box.centred
    return Box.rounded(middle + _constant(constant, box), radius)


def _sub(left: Any, right: Any) -> Box:
    return _add(left, _mul(right, -1.0) if isinstance(right, Box) else -right)


def _mul(left: Any, right: Any) -> Box:
    box, other = (left, right) if isinstance(left, Box) else (right, left)
    (middle, radius), factor = box.centred, _constant(other, box)
    return Box.rounded(middle * factor, radius * abs(factor))


def _div(left: Any, right: Any) -> Box:
    if not isinstance(left, Box):
        raise Unsupported("interval bounds have no rule for division by what depends on the image")
    (middle, radius), divisor = left.centred, _constant(right, left)
    return Box.rounded(middle / divisor, radius / abs(divisor))


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", function))


# torch has several callables for one operation: the function, the functional layer and the tensor's method
RULES: dict[Any, Rule] = {
    F.linear: _linear,
    torch.conv2d: _conv2d,
    F.batch_norm: _batch_norm,
    F.avg_pool2d: _avg_pool2d,
    F.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    F.leaky_relu: _leaky_relu,
    F.max_pool2d: _choosing(F.max_pool2d),
    F.adaptive_max_pool2d: _choosing(F.adaptive_max_pool2d),
    F.hardtanh: _choosing(F.hardtanh),
    **dict.fromkeys((F.relu, torch.relu, torch.Tensor.relu), _choosing(torch.relu)),
    **dict.fromkeys((torch.sigmoid, torch.Tensor.sigmoid), _rising(torch.sigmoid, slack=16)),
    **dict.fromkeys((torch.tanh, torch.Tensor.tanh), _rising(torch.tanh, slack=16)),
    **dict.fromkeys((F.dropout, F.dropout2d), _dropout),
    **dict.fromkeys((torch.mean, torch.Tensor.mean), _mean),
    **dict.fromkeys((torch.flatten, torch.Tensor.flatten), _shape(torch.flatten)),
    **dict.fromkeys((torch.reshape, torch.Tensor.reshape, torch.Tensor.view), _shape(torch.Tensor.reshape)),
    torch.Tensor.contiguous: _shape(torch.Tensor.contiguous),
    **dict.fromkeys((torch.add, torch.Tensor.add), _add),
    **dict.fromkeys((torch.sub, torch.Tensor.sub), _sub),
    **dict.fromkeys((torch.mul, torch.Tensor.mul), _mul),
    **dict.fromkeys((torch.div, torch.Tensor.div), _div),
}
