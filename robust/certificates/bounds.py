"""Interval arithmetic through a network: a box of images in, a box that holds all their logits out.

The module's own `forward` runs on a `Box` instead of a tensor (torch's `__torch_function__` protocol): every
operation finds its rule here, residual sums and functional calls included, and one without a rule is refused by name.
A box is kept as middle and radius, so that a linear layer costs two products (Gowal et al. 2018, arXiv 1810.12715,
eq. 6). The bounds are computed in the network's own precision and rounded outward: each layer is widened by the
worst-case rounding of n-term sums (Higham 2002, section 3.1) for the network's own arithmetic and for ours, so that
they hold for the floating-point network that is run, in any order of summation (TF32 included; fast transforms such as
Winograd's are not part of that proof).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robust.classifier import Classifier, Metered
from robust.threat import TOLERANCE

Rule = Callable[..., "Box"]


class Unsupported(ValueError):  # noqa: N818 - reads as the message it is
    """Interval bounds do not exist for this network; the message names the operation or the property."""


class Box:
    """All tensors x with |x - middle| <= radius, [N,...]; stands where a module expects a tensor.

    `linear` is (input box, weight, bias) if the box came from a linear layer: differences of its outputs are then
    bounded more tightly than by the box itself.
    """

    def __init__(
        self, middle: Tensor, radius: Tensor, linear: tuple[Box, Tensor, Tensor | None] | None = None
    ) -> None:
        self.middle, self.radius, self.linear = middle, radius, linear

    @classmethod
    def rounded(cls, middle: Tensor, radius: Tensor) -> Box:
        """The box widened by the rounding of a few elementwise operations."""
        return cls(middle, radius + 4 * _unit(middle) * (middle.abs() + radius))

    @classmethod
    def between(cls, lower: Tensor, upper: Tensor) -> Box:
        """The box from its ends."""
        return cls.rounded((lower + upper) / 2, (upper - lower) / 2)

    @property
    def lower(self) -> Tensor:
        """Lower end of every coordinate."""
        return self.middle - self.radius

    @property
    def upper(self) -> Tensor:
        """Upper end of every coordinate."""
        return self.middle + self.radius

    @property
    def reach(self) -> Tensor:
        """The largest magnitude of every coordinate."""
        return self.middle.abs() + self.radius

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Box:
        kwargs = dict(kwargs or {})
        in_place = kwargs.pop("inplace", False)
        if function not in RULES:
            raise Unsupported(f"interval bounds have no rule for the operation {_name(function)}")
        found = RULES[function](*args, **kwargs)
        if in_place:  # other holders of this box must see the new values, as they would with a tensor
            args[0].middle, args[0].radius, args[0].linear = found.middle, found.radius, found.linear
            return args[0]  # type: ignore[no-any-return]
        return found

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "device", "ndim", "dim", "size"):
            return getattr(self.middle, name)
        if name.startswith("__"):
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


def images_around(classifier: Classifier, images: Tensor, radius: float | Tensor) -> Box:
    """What the module sees of all images within `radius` (a number or [N]) in linf, cut with the box [0,1].

    Radius and box are widened by the tolerance with which evaluations accept attacked images.
    """
    bound = torch.as_tensor(radius, dtype=images.dtype, device=images.device).view(-1, 1, 1, 1) + TOLERANCE
    lower, upper = (images - bound).clamp_min(-TOLERANCE), (images + bound).clamp_max(1 + TOLERANCE)
    return Box.between(classifier.normalise(lower), classifier.normalise(upper))


def logit_box(classifier: Classifier, images: Tensor, radius: float | Tensor) -> Box:
    """A box that holds the logits [N,K] of every image within `radius` in linf of `images` [N,C,H,W].

    Costs about two forward passes; differentiable in the weights.

    Raises:
        Unsupported: for an operation without a rule, a layer in train mode that mixes or draws, a random classifier
            or one that is more than a module behind a normalisation.
    """
    while type(classifier) is Metered:
        classifier = classifier.inner
    if type(classifier) is not Classifier or classifier.random:
        raise Unsupported(f"interval bounds need a plain deterministic classifier, not {type(classifier).__name__}")
    start = images_around(classifier, images, radius)
    try:
        found = classifier.module(start)
    except (Unsupported, torch.OutOfMemoryError):
        raise
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        # code that does something else than arithmetic with its input fails on a box in a way of its own
        raise Unsupported(f"{type(classifier.module).__name__} does not run on intervals: {error}") from error
    if not isinstance(found, Box) or found.dim() != 2 or len(found.shape) != 2 or found.size(0) != len(images):
        raise Unsupported(f"{type(classifier.module).__name__} does not return logits [N,K]")
    return found


def margin_bounds(classifier: Classifier, images: Tensor, labels: Tensor, radius: float | Tensor) -> Tensor:
    """Lower bounds [N,K] of z_y - z_j over all images within `radius` in linf; 0 in the column of the label y.

    Behind a final linear layer W h + b the difference is one linear form of h, bounded by
    (w_y - w_j) m - |w_y - w_j| r + b_y - b_j (Gowal et al. 2018, arXiv 1810.12715, section 3, "elision of the last
    layer"); else lower(z_y) - upper(z_j).

    Raises:
        Unsupported: see `logit_box`.
    """
    found = logit_box(classifier, images, radius)
    own = torch.nn.functional.one_hot(labels, found.shape[1]).bool()
    if found.linear is None:
        apart = found.lower.gather(1, labels[:, None]) - found.upper
    else:
        apart = _differences(*found.linear, labels)
    return apart.masked_fill(own, 0.0)


def reproduces(classifier: Classifier, images: Tensor, logits: Tensor) -> bool:
    """Whether the bounds at radius 0 hold the logits [N,K] that the classifier really gave: a test of the rules.

    A network that draws without saying so, or that reads its input in a way the rules do not see, fails here.
    """
    found = logit_box(classifier, images, 0.0)
    return bool(((logits - found.middle).abs() <= found.radius).all())


def _differences(box: Box, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    error = 5 * _sum_error(weight.shape[1], box.middle)
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    # rounding of the two logits themselves and of ours
    slack = error * (F.linear(box.reach, weight.abs()) + bias.abs())
    rows, values = [], []
    for label in labels.unique():
        mine = (labels == label).nonzero()[:, 0]
        apart = weight[label] - weight
        middle = F.linear(box.middle[mine], apart, bias[label] - bias)
        loose = F.linear(box.radius[mine], apart.abs())
        values.append(middle - loose - slack[mine] - slack[mine, label][:, None])
        rows.append(mine)
    if not rows:
        return box.middle.new_zeros(0, len(weight))
    return torch.cat(values)[torch.cat(rows).argsort()]


def _unit(like: Tensor) -> float:
    return torch.finfo(like.dtype).eps / 2


def _sum_error(terms: int, like: Tensor) -> float:
    """Relative error of a sum of products, gamma_n = n u / (1 - n u), plus the rounding of TF32 factors."""
    unit = _unit(like) * (terms + 2)
    reduced = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    short = 2.1 * 2.0**-11 if like.is_cuda and like.dtype == torch.float32 and reduced else 0.0
    return unit / (1 - unit) + short if unit < 0.5 else math.inf


def _product(box: Box, weight: Tensor, bias: Tensor | None, apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> Box:
    # 5 errors: the network's own product, our two, and what is left of second order
    error = 5 * _sum_error(weight[0].numel(), box.middle)
    middle = apply(box.middle, weight, bias)
    radius = apply(box.radius + error * box.reach, weight.abs(), None if bias is None else error * bias.abs())
    return Box(middle, radius)


def _linear(box: Box, weight: Tensor, bias: Tensor | None = None) -> Box:
    found = _product(box, weight, bias, F.linear)
    return Box(found.middle, found.radius, (box, weight, bias))


def _conv2d(box: Box, weight: Tensor, bias: Tensor | None = None, *geometry: Any, **named: Any) -> Box:
    return _product(box, weight, bias, lambda x, w, b: F.conv2d(x, w, b, *geometry, **named))


def _monotone(function: Callable[..., Tensor], slack: float = 0.0) -> Rule:
    """A function that never falls and is no steeper than 1 takes ends to ends; `slack` in units of rounding."""

    def rule(box: Box, *args: Any, **kwargs: Any) -> Box:
        if kwargs.get("return_indices"):
            raise Unsupported(f"interval bounds have no rule for the indices of {_name(function)}")
        found = Box.between(function(box.lower, *args, **kwargs), function(box.upper, *args, **kwargs))
        return Box(found.middle, found.radius + slack * _unit(found.middle)) if slack else found

    return rule


def _leaky_relu(box: Box, negative_slope: float = 0.01) -> Box:
    if not 0 <= negative_slope <= 1:
        raise Unsupported(f"interval bounds need a leaky ReLU with a slope in [0,1], not {negative_slope}")
    return _monotone(F.leaky_relu)(box, negative_slope)


def _average(box: Box, terms: int, function: Callable[[Tensor], Tensor]) -> Box:
    radius = box.radius + 5 * _sum_error(terms, box.middle) * box.reach
    return Box(function(box.middle), function(radius))


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
    error = 16 * _unit(box.middle)
    radius = scale.abs() * (box.radius + error * (box.reach + centre.abs())) + error * shift.abs()
    return Box.rounded((box.middle - centre) * scale + shift, radius)


def _dropout(box: Box, p: float = 0.5, training: bool = True) -> Box:
    if training and p > 0:
        raise Unsupported("interval bounds need dropout in eval mode")
    return box


def _shape(function: Callable[..., Tensor]) -> Rule:
    def rule(box: Box, *args: Any, **kwargs: Any) -> Box:
        middle = function(box.middle, *args, **kwargs)
        if middle.dim() == 0 or len(middle) != len(box.middle):
            raise Unsupported(f"interval bounds need {_name(function)} to keep the samples of a batch apart")
        return Box(middle, function(box.radius, *args, **kwargs))

    return rule


def _constant(value: Any, box: Box) -> Any:
    if isinstance(value, Tensor) and value.dim() >= box.dim() and len(value) != 1:
        raise Unsupported("interval bounds have no rule for a tensor that differs between the samples of a batch")
    if not isinstance(value, Tensor | int | float):
        raise Unsupported(f"interval bounds have no rule for arithmetic with {type(value).__name__}")
    return value


def _add(left: Any, right: Any) -> Box:
    if isinstance(left, Box) and isinstance(right, Box):
        return Box.rounded(left.middle + right.middle, left.radius + right.radius)
    box, other = (left, right) if isinstance(left, Box) else (right, left)
    return Box.rounded(box.middle + _constant(other, box), box.radius)


def _sub(left: Any, right: Any) -> Box:
    return _add(left, Box(-right.middle, right.radius) if isinstance(right, Box) else -right)


def _mul(left: Any, right: Any) -> Box:
    box, other = (left, right) if isinstance(left, Box) else (right, left)
    factor = _constant(other, box)
    return Box.rounded(box.middle * factor, box.radius * abs(factor))


def _div(left: Any, right: Any) -> Box:
    if not isinstance(left, Box):
        raise Unsupported("interval bounds have no rule for division by what depends on the image")
    divisor = _constant(right, left)
    return Box.rounded(left.middle / divisor, left.radius / abs(divisor))


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
    F.max_pool2d: _monotone(F.max_pool2d),
    F.adaptive_max_pool2d: _monotone(F.adaptive_max_pool2d),
    F.hardtanh: _monotone(F.hardtanh),
    **dict.fromkeys((F.relu, torch.relu, torch.Tensor.relu), _monotone(torch.relu)),
    **dict.fromkeys((torch.sigmoid, torch.Tensor.sigmoid), _monotone(torch.sigmoid, slack=16)),
    **dict.fromkeys((torch.tanh, torch.Tensor.tanh), _monotone(torch.tanh, slack=16)),
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
