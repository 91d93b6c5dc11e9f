"""An ONNX file as a torch module: the graph is interpreted node by node, so that gradients flow to the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust.foreign.loaded import ForeignError, Loaded, Source, digest_of
from robust.foreign.onnx_operators import OPERATORS

Value = Tensor | list[Tensor] | None


@dataclass(frozen=True)
class Node:
    """One operation: names of its inputs ("" where one is left out) and outputs, and its attributes."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


class Graph(nn.Module):
    """A network of ONNX nodes. Its tensors are buffers, and a last softmax is a layer that can be taken off."""

    def __init__(self, nodes: Sequence[Node], tensors: dict[str, Tensor], given: str, result: str) -> None:
        super().__init__()
        self.nodes, self.given, self.result = tuple(nodes), given, result
        self._places = {name: f"tensor{i}" for i, name in enumerate(tensors)}
        for name, place in self._places.items():
            self.register_buffer(place, tensors[name])
        last = self.nodes[-1]
        softmax = {"Softmax": nn.Softmax, "LogSoftmax": nn.LogSoftmax}.get(last.operator)
        self.last = softmax(dim=last.attributes.get("axis", -1)) if softmax else None

    def forward(self, images: Tensor) -> Tensor:
        """The graph's first output."""
        values: dict[str, Any] = {name: getattr(self, place) for name, place in self._places.items()}
        values[self.given] = images
        for node in self.nodes:
            arguments = [values[name] if name else None for name in node.inputs]
            if node is self.nodes[-1] and self.last is not None:
                found: Any = self.last(arguments[0])
            else:
                found = OPERATORS[node.operator](node.attributes, *arguments)
            outputs = found if isinstance(found, (list, tuple)) else [found]
            values.update(zip(node.outputs, outputs))
        result: Tensor = values[self.result]
        return result


class InBatches(nn.Module):
    """A network whose batch size was fixed when it was exported: other batches pass in parts of that size."""

    def __init__(self, module: nn.Module, size: int) -> None:
        super().__init__()
        self.module, self.size = module, size

    def forward(self, images: Tensor) -> Tensor:
        """The same for any number of images; the last part is filled with copies of its last image."""
        short = -len(images) % self.size
        filled = torch.cat([images, images[-1:].expand(short, *images.shape[1:])]) if short else images
        return torch.cat([self.module(part) for part in filled.split(self.size)])[: len(images)]


def load(source: Source) -> Loaded:
    """Read the file, check its operators, and build the module.

    Raises:
        ForeignError: if onnx is not installed, the file is damaged, or it uses operators that are not known here.
    """
    path = source.path(source.text)
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ForeignError(f"{path}: reading ONNX files needs onnx: pip install 'robust-flows[onnx]'") from error
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
        beside = _files_beside(model, path)
        onnx.load_external_data_for_model(model, str(path.parent))
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        raise ForeignError(f"{path} is not a valid ONNX file ({str(error).splitlines()[0][:200]})") from error
    graph, shape = graph_of(model, str(path))
    module = _for_any_batch(graph, shape)
    return Loaded(module, f"an ONNX graph of {len(graph.nodes)} nodes, {path.name}", digest_of(path, *beside))


def _files_beside(model: Any, path: Path) -> list[Path]:
    """The files that hold its tensors where they are not in its own, as torch's newer exporter writes them."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    places = {ExternalDataInfo(tensor).location for tensor in model.graph.initializer if uses_external_data(tensor)}
    missing = sorted(place for place in places if not (path.parent / place).is_file())
    if missing:
        raise ForeignError(f"{path}: its weights lie in {', '.join(missing)}, which is not beside it; copy both files")
    return [path.parent / place for place in sorted(places)]


def graph_of(model: Any, name: str = "the graph") -> tuple[Graph, list[int]]:
    """The module of an `onnx.ModelProto`, and the shape of its input (0 where a dimension is free).

    Raises:
        ForeignError: naming the operators that are not known here.
    """
    from onnx import helper, inliner, numpy_helper

    if model.functions:  # what an exporter did not inline, such as those of torch's own domain
        model = inliner.inline_local_functions(model)
    proto = model.graph
    if not proto.node:
        raise ForeignError(f"{name} holds no operations; export the model again")
    unknown = sorted({node.op_type for node in proto.node if node.op_type not in OPERATORS})
    foreign = sorted({node.domain for node in proto.node} - {"", "ai.onnx"})
    if unknown or foreign:
        what = ", ".join(unknown) or f"the domain {', '.join(foreign)}"
        raise ForeignError(f"{name} uses ONNX operators that cannot be converted: {what}; export the model as "
                           "TorchScript or torch.export instead, or give module:function")  # fmt: skip
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in proto.initializer}
    given = [value for value in proto.input if value.name not in tensors]
    if len(given) != 1 or not proto.output:
        raise ForeignError(f"{name} has {len(given)} inputs and {len(proto.output)} outputs; one image batch in and "
                           "scores out are needed")  # fmt: skip
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 13)
    nodes = [
        Node(n.op_type, tuple(n.input), tuple(n.output),
             {"opset": version, "outputs": len(n.output)} | {a.name: _plain(helper.get_attribute_value(a), numpy_helper)
                                                             for a in n.attribute})
        for n in proto.node
    ]  # fmt: skip
    shape = [d.dim_value for d in given[0].type.tensor_type.shape.dim]
    return Graph(nodes, tensors, given[0].name, proto.output[0].name), shape


def _plain(value: Any, reader: Any) -> Any:
    """An attribute as Python: text instead of bytes, a tensor instead of its description."""
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "raw_data"):
        return torch.from_numpy(reader.to_array(value).copy())
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


@torch.no_grad()
def _for_any_batch(graph: Graph, shape: list[int]) -> nn.Module:
    """The graph itself if it takes any batch, though its file says a number; else the graph in batches of that."""
    size = shape[0] if shape else 0
    if not size or not all(shape):
        return graph
    images = torch.rand(2 * size, *shape[1:], generator=torch.Generator().manual_seed(0))
    parts: Callable[[Tensor], Tensor] = InBatches(graph, size)
    try:
        whole = graph(images)
    except RuntimeError:
        return InBatches(graph, size)
    expected = parts(images)
    same = whole.shape == expected.shape and torch.allclose(whole, expected, rtol=1e-4, atol=1e-5)
    return graph if same else InBatches(graph, size)
