"""ONNX operators that are layers of networks: convolution, pooling, normalisation, activations, softmax, resizing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Attributes = dict[str, Any]


def padding_of(attributes: Attributes, size: list[int], kernel: list[int]) -> list[int]:
    """Pads before and after each spatial axis, in the order of `F.pad` (last axis first)."""
    rank = len(kernel)
    strides, dilations = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    auto = attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pairs = []
        for n, k, stride, dilation in zip(size, kernel, strides, dilations):
            total = max(0, (-(-n // stride) - 1) * stride + dilation * (k - 1) + 1 - n)
            less, more = total // 2, total - total // 2
            pairs.append((less, more) if auto == "SAME_UPPER" else (more, less))
    else:
        pads = attributes.get("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        pairs = list(zip(pads[:rank], pads[rank:]))
    return [pad for pair in reversed(pairs) for pad in pair]


def conv(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution of any rank, with groups."""
    rank = weight.dim() - 2
    pads = padding_of(attributes, list(x.shape[2:]), list(weight.shape[2:]))
    function: Any = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    even = all(a == b for a, b in zip(pads[::2], pads[1::2]))
    found: Tensor = function(
        x if even else F.pad(x, pads), weight, bias, attributes.get("strides", 1),
        list(reversed(pads[::2])) if even else 0, attributes.get("dilations", 1), attributes.get("group", 1),
    )  # fmt: skip
    return found


def conv_transpose(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Transposed convolution of images with equal pads on both sides."""
    pads = attributes.get("pads", [0, 0, 0, 0])
    return F.conv_transpose2d(
        x, weight, bias, attributes.get("strides", 1), pads[: len(pads) // 2], attributes.get("output_padding", 0),
        attributes.get("group", 1), attributes.get("dilations", 1),
    )  # fmt: skip


def _room(attributes: Attributes, x: Tensor) -> list[int]:
    """Padding of a pooling, made longer at the end where `ceil_mode` asks for a last, partial window."""
    kernel = attributes["kernel_shape"]
    pads = padding_of(attributes, list(x.shape[2:]), kernel)
    if attributes.get("ceil_mode"):
        strides, dilations = (
            attributes.get("strides", [1] * len(kernel)),
            attributes.get("dilations", [1] * len(kernel)),
        )
        for axis, (k, stride, dilation) in enumerate(zip(kernel, strides, dilations)):
            place = 2 * (len(kernel) - 1 - axis)
            size = x.shape[2 + axis] + pads[place] + pads[place + 1]
            over = (size - dilation * (k - 1) - 1) % stride
            last = size - over  # where the window after the last whole one would start, relative to its reach
            starts_inside = last - dilation * (k - 1) - 1 + stride < x.shape[2 + axis] + pads[place]
            pads[place + 1] += stride - over if over and starts_inside else 0
    return pads


def max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Maximum over windows; the margin never wins."""
    padded = F.pad(x, _room(attributes, x), value=-torch.inf)
    kernel = attributes["kernel_shape"]
    function: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    found: Tensor = function(padded, kernel, attributes.get("strides", 1), 0, attributes.get("dilations", 1))
    return found


def average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Mean over windows; the margin counts only with `count_include_pad`."""
    kernel, strides = attributes["kernel_shape"], attributes.get("strides", 1)
    function: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    pads = _room(attributes, x)
    total = function(F.pad(x, pads), kernel, strides)
    ones = torch.ones_like(x[:1])
    if attributes.get("count_include_pad"):
        ones = F.pad(ones, padding_of(attributes, list(x.shape[2:]), kernel), value=1.0)
        pads = [all_ - own for all_, own in zip(pads, padding_of(attributes, list(x.shape[2:]), kernel))]
    share: Tensor = function(F.pad(ones, pads), kernel, strides)
    found: Tensor = total / share
    return found


def global_pool(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A reduction over all of H and W that keeps them as 1 x 1."""
    return lambda attributes, x: function(x, list(range(2, x.dim())), keepdim=True)


def batch_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """With the statistics of training."""
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, attributes.get("epsilon", 1e-5))


def layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Over the last axes."""
    axis = attributes.get("axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], scale, bias, attributes.get("epsilon", 1e-5))


def instance_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Per image and channel."""
    return F.instance_norm(x, weight=scale, bias=bias, eps=attributes.get("epsilon", 1e-5))


def group_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Per image and group of channels; before opset 21 scale and bias are given per group."""
    groups = attributes["num_groups"]
    if len(scale) == groups:
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    return F.group_norm(x, groups, scale, bias, attributes.get("epsilon", 1e-5))


def local_response_norm(attributes: Attributes, x: Tensor) -> Tensor:
    """Across neighbouring channels."""
    settings = (attributes.get("alpha", 1e-4), attributes.get("beta", 0.75), attributes.get("bias", 1.0))
    return F.local_response_norm(x, attributes["size"], *settings)


def gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha A B + beta C, each transposed where asked."""
    a = a.T if attributes.get("transA") else a
    b = b.T if attributes.get("transB") else b
    found = attributes.get("alpha", 1.0) * (a @ b)
    return found if c is None else found + attributes.get("beta", 1.0) * c


def softmax(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Along an axis; before opset 13 over all axes from it on."""

    def apply(attributes: Attributes, x: Tensor) -> Tensor:
        if attributes["opset"] >= 13:
            return function(x, attributes.get("axis", -1))
        axis = attributes.get("axis", 1) % x.dim()
        return function(x.flatten(axis), axis).view(x.shape)

    return apply


def pad(
    attributes: Attributes, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Any = None
) -> Tensor:
    """Constant, reflected or repeated margins; before opset 11 from attributes."""
    found = [int(p) for p in (attributes["pads"] if pads is None else pads.tolist())]
    dims = [int(a) % x.dim() for a in axes.tolist()] if axes is not None else list(range(x.dim()))
    pairs = {dim: (found[i], found[i + len(dims)]) for i, dim in enumerate(dims)}
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[attributes.get("mode", "constant")]
    first = 0 if mode == "constant" else 2  # torch repeats margins of the spatial axes alone
    flat = [p for dim in reversed(range(first, x.dim())) for p in pairs.get(dim, (0, 0))]
    fill = float(value) if value is not None and value.numel() else float(attributes.get("value", 0.0))
    return F.pad(x, flat, mode, fill if mode == "constant" else None)


def resize(
    attributes: Attributes, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Any = None
) -> Tensor:
    """Nearest or linear scaling of H and W with half-pixel centres (linear also with aligned corners)."""
    if sizes is not None and sizes.numel():
        target = [int(s) for s in sizes.tolist()[-2:]]
    else:
        factors = (scales if scales is not None else attributes["scales"]).tolist()[-2:]
        target = [int(n * f) for n, f in zip(x.shape[2:], factors)]
    if attributes.get("mode", "nearest") == "nearest":
        return F.interpolate(x, target, mode="nearest")
    aligned = attributes.get("coordinate_transformation_mode") == "align_corners"
    mode = {"linear": "bilinear", "cubic": "bicubic"}[attributes["mode"]]
    return F.interpolate(x, target, mode=mode, align_corners=aligned)


def prelu(attributes: Attributes, x: Tensor, slope: Tensor) -> Tensor:
    """With a slope that broadcasts."""
    return torch.where(x > 0, x, slope * x)


LAYERS: dict[str, Callable[..., Any]] = {
    "Conv": conv, "ConvTranspose": conv_transpose, "MaxPool": max_pool, "AveragePool": average_pool,
    "GlobalAveragePool": global_pool(torch.mean), "GlobalMaxPool": global_pool(torch.amax),
    "BatchNormalization": batch_norm, "LayerNormalization": layer_norm, "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm, "LRN": local_response_norm, "Gemm": gemm, "Pad": pad, "Resize": resize,
    "Softmax": softmax(torch.softmax), "LogSoftmax": softmax(torch.log_softmax), "PRelu": prelu,
    "Relu": lambda attributes, x: F.relu(x), "Softplus": lambda attributes, x: F.softplus(x),
    "LeakyRelu": lambda attributes, x: F.leaky_relu(x, attributes.get("alpha", 0.01)),
    "Elu": lambda attributes, x: F.elu(x, attributes.get("alpha", 1.0)), "Selu": lambda attributes, x: F.selu(x),
    "HardSigmoid": lambda a, x: (a.get("alpha", 0.2) * x + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda attributes, x: F.hardswish(x), "Mish": lambda attributes, x: F.mish(x),
    "Gelu": lambda attributes, x: F.gelu(x, approximate=attributes.get("approximate", "none")),
}  # fmt: skip
