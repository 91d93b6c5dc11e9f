"""ONNX operators as torch functions: those that image classifiers are made of (onnx.ai, operators of opset 7 to 23).

Each takes the node's attributes and its inputs, None where an optional one is left out. Shapes are computed as int64
tensors on the way, as the format has it. Operators of layers stand in `onnx_layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robust.foreign.onnx_layers import LAYERS

Attributes = dict[str, Any]
Operator = Callable[..., Any]

# TensorProto.DataType
TYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64,
         9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}  # fmt: skip


REDUCTIONS = {"none": None, "add": "sum", "mul": "prod", "max": "amax", "min": "amin"}  # of ScatterND, by torch's names


def elementwise(function: Callable[..., Tensor]) -> Operator:
    """An operator without attributes."""
    return lambda attributes, *inputs: function(*inputs)


def folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of inputs, taken two by two."""

    def fold(attributes: Attributes, first: Tensor, *rest: Tensor) -> Tensor:
        for other in rest:
            first = function(first, other)
        return first

    return fold


def integers(value: Any) -> list[int]:
    """A list of integers out of a tensor or an attribute."""
    return [int(v) for v in (value.flatten().tolist() if isinstance(value, Tensor) else value)]


def reduction(function: Callable[..., Tensor]) -> Operator:
    """Axes come as an attribute, or from opset 13 or 18 on as an input."""

    def reduce(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        found = axes if axes is not None else attributes.get("axes")
        if found is None and attributes.get("noop_with_empty_axes"):
            return x
        dims = integers(found) if found is not None else list(range(x.dim()))
        return function(x, dims, bool(attributes.get("keepdims", 1)))

    return reduce


def divide(attributes: Attributes, a: Tensor, b: Tensor) -> Tensor:
    """Division; of integers it truncates."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def clip(attributes: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Bounds come as inputs, before opset 11 as attributes."""
    low = attributes.get("min") if low is None else low.to(x)  # type: ignore[assignment]
    high = attributes.get("max") if high is None else high.to(x)  # type: ignore[assignment]
    return x if low is None and high is None else torch.clamp(x, low, high)


def cast(attributes: Attributes, x: Tensor) -> Tensor:
    """To another type; a network that runs in float64 stays in it."""
    to = TYPES[attributes["to"]]
    return x if to == torch.float32 and x.dtype == torch.float64 else x.to(to)


def cast_like(attributes: Attributes, x: Tensor, other: Tensor) -> Tensor:
    """To the type of another tensor."""
    return x.to(other.dtype)


def constant(attributes: Attributes) -> Tensor:
    """A tensor that stands in the node."""
    if "value" in attributes:
        found: Tensor = attributes["value"]
        return found
    name = next(n for n in ("value_float", "value_int", "value_floats", "value_ints") if n in attributes)
    return torch.tensor(attributes[name], dtype=torch.float32 if "float" in name else torch.int64)


def constant_of_shape(attributes: Attributes, shape: Tensor) -> Tensor:
    """A tensor full of one value."""
    value = attributes.get("value", torch.zeros(1))
    return value.reshape(()).expand(integers(shape)).clone()


def reshape(attributes: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    """0 keeps a dimension, -1 takes what is left."""
    wanted = integers(shape)
    if not attributes.get("allowzero", 0):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return x.reshape(wanted)


def flatten(attributes: Attributes, x: Tensor) -> Tensor:
    """To two dimensions."""
    axis = attributes.get("axis", 1)
    rows = int(torch.tensor(x.shape[:axis]).prod()) if axis else 1
    return x.reshape(rows, -1)


def squeeze(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Without dimensions of size 1."""
    found = axes if axes is not None else attributes.get("axes")
    return x.squeeze(tuple(integers(found))) if found is not None else x.squeeze()


def unsqueeze(attributes: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """With further dimensions of size 1."""
    found = integers(axes if axes is not None else attributes["axes"])
    for axis in sorted(a % (x.dim() + len(found)) for a in found):
        x = x.unsqueeze(axis)
    return x


def split(attributes: Attributes, x: Tensor, sizes: Tensor | None = None) -> list[Tensor]:
    """In parts of the sizes given, or in as many equal parts as there are outputs."""
    axis = attributes.get("axis", 0)
    found = sizes if sizes is not None else attributes.get("split")
    if found is not None:
        return list(x.split(integers(found), axis))
    count = int(attributes.get("num_outputs") or attributes["outputs"])
    return list(x.split(-(-x.shape[axis] // count), axis))


def slice_(
    attributes: Attributes,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Along some axes, with negative positions and steps; before opset 10 from attributes."""
    begin = integers(starts if starts is not None else attributes["starts"])
    end = integers(ends if ends is not None else attributes["ends"])
    where = axes if axes is not None else attributes.get("axes")
    dims = integers(where) if where is not None else list(range(len(begin)))
    by = integers(steps) if steps is not None else [1] * len(begin)
    for first, last, dim, step in zip(begin, end, dims, by):
        index = torch.arange(x.shape[dim], device=x.device)
        # Python's own slicing knows all the rules; -2^63 stands for "past the front"
        kept = list(range(x.shape[dim]))[slice(first, None if step < 0 and last < -x.shape[dim] else last, step)]
        x = x.index_select(dim, index[kept])
    return x


def gather(attributes: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    """x at some positions of an axis; the result has the indices' shape in the axis' place."""
    axis = attributes.get("axis", 0) % x.dim()
    index = indices.long().to(x.device) % x.shape[axis]
    found = x.index_select(axis, index.flatten())
    return found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def scatter_nd(attributes: Attributes, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """x with values or slices put, or reduced, at positions that span its first axes: indices [..., k], k of them."""
    index, axes = indices.long().to(x.device), indices.shape[-1]
    row = torch.zeros_like(index[..., 0])
    for place, side in zip(index.unbind(-1), x.shape):
        row = row * side + place % side
    slices = x.shape[axes:]
    new = updates.to(x).reshape(-1, *slices)
    rows = row.reshape(-1, *[1] * len(slices)).expand_as(new)
    old, how = x.reshape(-1, *slices), REDUCTIONS[attributes.get("reduction", "none")]
    return (old.scatter_reduce(0, rows, new, how) if how else old.scatter(0, rows, new)).view(x.shape)


def expand(attributes: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    """Broadcast in both directions."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(integers(shape))))


def shape(attributes: Attributes, x: Tensor) -> Tensor:
    """The shape as int64, or a part of it."""
    return torch.tensor(x.shape, dtype=torch.int64)[attributes.get("start", 0) : attributes.get("end")]


def transpose(attributes: Attributes, x: Tensor) -> Tensor:
    """Axes in another order, by default reversed."""
    return x.permute(attributes.get("perm") or list(reversed(range(x.dim()))))


def concat(attributes: Attributes, *parts: Tensor) -> Tensor:
    """Side by side along an axis."""
    return torch.cat([part for part in parts if part.numel() or part.dim() > 1], attributes["axis"])


def argmax(attributes: Attributes, x: Tensor) -> Tensor:
    """Position of the largest value."""
    return x.argmax(attributes.get("axis", 0), keepdim=bool(attributes.get("keepdims", 1)))


OPERATORS: dict[str, Operator] = {
    "Add": elementwise(torch.add), "Sub": elementwise(torch.sub), "Mul": elementwise(torch.mul), "Div": divide,
    "Pow": elementwise(lambda x, y: x.pow(y.to(x.dtype))), "Neg": elementwise(torch.neg),
    "Sqrt": elementwise(torch.sqrt), "Exp": elementwise(torch.exp), "Log": elementwise(torch.log),
    "Abs": elementwise(torch.abs), "Reciprocal": elementwise(torch.reciprocal), "Floor": elementwise(torch.floor),
    "Ceil": elementwise(torch.ceil), "Round": elementwise(torch.round), "Sign": elementwise(torch.sign),
    "Sin": elementwise(torch.sin), "Cos": elementwise(torch.cos), "Tanh": elementwise(torch.tanh),
    "Erf": elementwise(torch.erf), "Sigmoid": elementwise(torch.sigmoid), "Identity": elementwise(lambda x: x),
    "Dropout": lambda attributes, x, *rest: x, "Min": folded(torch.minimum), "Max": folded(torch.maximum),
    "Sum": folded(torch.add), "Mean": lambda a, *xs: torch.stack(torch.broadcast_tensors(*xs)).mean(0),
    "Equal": elementwise(torch.eq), "Greater": elementwise(torch.gt), "Less": elementwise(torch.lt),
    "GreaterOrEqual": elementwise(torch.ge), "LessOrEqual": elementwise(torch.le), "CastLike": cast_like,
    "IsNaN": elementwise(torch.isnan), "Range": elementwise(lambda first, end, step: torch.arange(
        first.item(), end.item(), step.item(), dtype=first.dtype, device=first.device)),
    "Not": elementwise(torch.logical_not), "And": elementwise(torch.logical_and), "Or": elementwise(torch.logical_or),
    "Where": elementwise(torch.where), "MatMul": elementwise(torch.matmul), "Clip": clip, "Cast": cast,
    "Constant": constant, "ConstantOfShape": constant_of_shape, "Reshape": reshape, "Flatten": flatten,
    "Squeeze": squeeze, "Unsqueeze": unsqueeze, "Split": split, "Slice": slice_, "Gather": gather, "Expand": expand,
    "ScatterND": scatter_nd, "Shape": shape, "Transpose": transpose, "Concat": concat, "ArgMax": argmax,
    "Tile": lambda attributes, x, repeats: x.repeat(integers(repeats)),
    "Einsum": lambda attributes, *xs: torch.einsum(attributes["equation"], *xs),
    "ReduceMean": reduction(lambda x, dims, keep: x.mean(dims, keepdim=keep)),
    "ReduceSum": reduction(lambda x, dims, keep: x.sum(dims, keepdim=keep)),
    "ReduceMax": reduction(lambda x, dims, keep: x.amax(dims, keepdim=keep)),
    "ReduceMin": reduction(lambda x, dims, keep: x.amin(dims, keepdim=keep)),
    "ReduceL2": reduction(lambda x, dims, keep: torch.linalg.vector_norm(x, dim=dims, keepdim=keep)),
    **LAYERS,
}  # fmt: skip
