"""A plain network read as affine maps and ReLUs: what backward bounds need of each layer, and how wrongly it rounds.

Every map is kept in float64 with its transpose and its absolute value |W|. The network computes it in its own
precision, so that each coordinate of its z = W x + b is off by at most `error` (|W| |x| + `size`) (Higham 2002,
section 3.1, any order of summation; fast transforms such as Winograd's are not part of that proof).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from robust.certificates.bounds import bare
from robust.certificates.boxes import Unsupported, sum_error
from robust.classifier import Classifier

Map = Callable[[Tensor], Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Affine:
    """z = W x + b between tensors of one sample.

    `apply` x -> W x and `absolute` x -> |W| x take [N,*inputs], `transpose` a -> W^T a takes [N,*outputs]; `bias` b
    and `size`, the sum of the magnitudes that b is made of, are [1,*outputs] or broadcast to it. `error` 0: exact.
    """

    inputs: Shape
    outputs: Shape
    apply: Map
    absolute: Map
    transpose: Map
    bias: Tensor
    size: Tensor
    error: float


@dataclass(frozen=True)
class Rectifier:
    """max(z, 0) in every coordinate, exact in any precision."""


Step = Affine | Rectifier


def steps_of(classifier: Classifier, shape: Shape) -> list[Step]:
    """The classifier on images of this shape (C, H, W), normalisation included, as steps to be taken in turn.

    Raises:
        Unsupported: for a layer that is none of those in `READERS`, a convolution that pads with something other than
            zeros, BatchNorm or dropout in train mode, or a random classifier; the message names it.
    """
    classifier = bare(classifier, classifier.dtype)
    steps: list[Step] = []
    _read(classifier, "", steps, shape, torch.zeros((), dtype=classifier.dtype, device=classifier.device))
    return steps


def widest(steps: Sequence[Step]) -> int:
    """Numbers of one sample on the widest layer."""
    return max(math.prod(shape) for step in steps if isinstance(step, Affine) for shape in (step.inputs, step.outputs))


def _read(module: nn.Module, path: str, steps: list[Step], shape: Shape, like: Tensor) -> Shape:
    """Append the steps of a module that takes tensors of `shape`; the shape of what it returns."""
    if type(module) is nn.Sequential:
        for name, child in module.named_children():
            shape = _read(child, f"{path}.{name}".strip("."), steps, shape, like)
        return shape
    if type(module) is Classifier:
        steps.append(_normalisation(module, shape, like))
        return _read(module.module, path, steps, shape, like)
    reader = READERS.get(type(module))
    place = f"layer {path} ({type(module).__name__})" if path else f"the network ({type(module).__name__})"
    if reader is None:
        known = ", ".join(sorted(kind.__name__ for kind in READERS))
        raise Unsupported(f"backward bounds have no rule for {place}; they know Sequential networks of {known}")
    try:
        found = reader(module, shape, like)
    except Unsupported as reason:
        raise Unsupported(f"{place}: {reason}") from reason
    again = isinstance(found, Rectifier) and isinstance(steps[-1], Rectifier)  # max(max(z, 0), 0)
    if found is not None and not again:
        steps.append(found)
    return found.outputs if isinstance(found, Affine) else shape


def _linear(layer: nn.Linear, shape: Shape, like: Tensor) -> Affine:
    weight = layer.weight.detach().double()
    bigger, bias = weight.abs(), _bias(layer, weight)
    outputs = _shape_behind(lambda x: F.linear(x, weight), shape, weight)
    return Affine(
        shape,
        outputs,
        lambda x: F.linear(x, weight),
        lambda x: F.linear(x, bigger),
        lambda a: a @ weight,
        bias.expand(1, *outputs),
        bias.abs().expand(1, *outputs),
        sum_error(weight.shape[1], like),
    )


def _convolution(layer: nn.Conv2d, shape: Shape, like: Tensor) -> Affine:
    weight = layer.weight.detach().double()
    bigger, padding = weight.abs(), _padding(layer)
    stride, dilation, groups = layer.stride, layer.dilation, layer.groups
    outputs = _shape_behind(lambda x: F.conv2d(x, weight, None, stride, padding, dilation, groups), shape, weight)
    bias = _bias(layer, weight).view(1, -1, 1, 1).expand(1, *outputs)
    return Affine(
        shape,
        outputs,
        lambda x: F.conv2d(x, weight, None, stride, padding, dilation, groups),
        lambda x: F.conv2d(x, bigger, None, stride, padding, dilation, groups),
        lambda a: conv2d_input((len(a), *shape), weight, a, stride, padding, dilation, groups),
        bias,
        bias.abs(),
        sum_error(weight[0].numel(), like),
    )


def _padding(layer: nn.Conv2d) -> tuple[int, ...]:
    """Zeros on either side, (height, width)."""
    if layer.padding_mode != "zeros":
        raise Unsupported(f"padding_mode must be 'zeros', not {layer.padding_mode!r}")
    if isinstance(layer.padding, tuple):
        return layer.padding
    reach = [d * (k - 1) if layer.padding == "same" else 0 for d, k in zip(layer.dilation, layer.kernel_size)]
    if any(zeros % 2 for zeros in reach):
        raise Unsupported("padding 'same' needs an odd kernel: of an even one it pads more on one side")
    return tuple(zeros // 2 for zeros in reach)


def _batch_norm(layer: nn.BatchNorm2d | nn.BatchNorm1d, shape: Shape, like: Tensor) -> Affine:
    if layer.training or layer.running_mean is None or layer.running_var is None:
        raise Unsupported("BatchNorm must be in eval mode: batch statistics mix the samples")
    mean, variance = layer.running_mean.double(), layer.running_var.double()
    scale = (variance + layer.eps).rsqrt() * (1.0 if layer.weight is None else layer.weight.detach().double())
    shift = torch.zeros_like(mean) if layer.bias is None else layer.bias.detach().double()
    # x scale + (shift - mean scale) or (x - mean) scale + shift: a dozen roundings whichever it is
    return _scaling(scale, shift - mean * scale, shift.abs() + (mean * scale).abs(), shape, sum_error(12, like))


def _normalisation(classifier: Classifier, shape: Shape, like: Tensor) -> Affine:
    mean, std = classifier.mean.double().flatten(), classifier.std.double().flatten()
    scale, shift = (part.expand(max(len(mean), len(std))) for part in (1 / std, -mean / std))
    return _scaling(scale, shift, shift.abs(), shape, sum_error(4, like))


def _scaling(scale: Tensor, shift: Tensor, size: Tensor, shape: Shape, error: float) -> Affine:
    """x scale + shift with one number for each channel (or one for all)."""
    scale, shift, size = (part.view(1, -1, *([1] * (len(shape) - 1))) for part in (scale, shift, size))
    return Affine(
        shape,
        shape,
        lambda x: x * scale,
        lambda x: x * scale.abs(),
        lambda a: a * scale,
        shift.expand(1, *shape),
        size.expand(1, *shape),
        error,
    )


def _average(layer: nn.AvgPool2d | nn.AdaptiveAvgPool2d, shape: Shape, like: Tensor) -> Affine:
    zeros = torch.zeros((1, *shape), dtype=torch.float64, device=like.device)
    outputs = _shape_behind(layer, shape, zeros)

    def transpose(form: Tensor) -> Tensor:
        pulled: tuple[Tensor] = torch.func.vjp(layer, zeros.expand(len(form), *shape))[1](form)
        return pulled[0]

    none = zeros.new_zeros(()).expand(1, *outputs)
    error = sum_error(math.prod(shape[1:]), like)
    return Affine(shape, outputs, layer, lambda x: layer(x).abs(), transpose, none, none, error)


def _flatten(layer: nn.Flatten, shape: Shape, like: Tensor) -> Affine:
    zeros = torch.zeros((1, *shape), dtype=torch.float64, device=like.device)
    if layer.start_dim % zeros.dim() == 0:
        raise Unsupported("it must keep the samples of a batch apart")
    outputs = _shape_behind(layer, shape, zeros)
    none = zeros.new_zeros(()).expand(1, *outputs)
    return Affine(shape, outputs, layer, layer, lambda a: a.reshape(len(a), *shape), none, none, 0.0)


def _rectifier(layer: nn.ReLU, shape: Shape, like: Tensor) -> Rectifier:
    return Rectifier()


def _nothing(layer: nn.Module, shape: Shape, like: Tensor) -> None:
    if layer.training and not isinstance(layer, nn.Identity):
        raise Unsupported("dropout must be in eval mode")


def _shape_behind(function: Map, shape: Shape, like: Tensor) -> Shape:
    try:
        return tuple(function(like.new_zeros(1, *shape)).shape[1:])
    except RuntimeError as error:
        raise Unsupported(f"it does not take a tensor of shape {shape}: {error}") from error


def _bias(layer: nn.Linear | nn.Conv2d, weight: Tensor) -> Tensor:
    return weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double()


# by exact type: a subclass may do something else
READERS: dict[type[nn.Module], Callable[..., Step | None]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.AvgPool2d: _average,
    nn.AdaptiveAvgPool2d: _average,
    nn.Flatten: _flatten,
    nn.ReLU: _rectifier,
    nn.Identity: _nothing,
    nn.Dropout: _nothing,
    nn.Dropout2d: _nothing,
}
