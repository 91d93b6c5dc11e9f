"""ONNX graphs against onnx's own reference evaluator, operator by operator, and whole files."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from robust.foreign.loaded import ForeignError, Source
from robust.foreign.loading import load
from robust.foreign.onnx_file import graph_of

GENERATOR = np.random.default_rng(0)


def values(*shape):
    return GENERATOR.normal(size=shape).astype(np.float32)


def model(nodes, tensors=None, shape=("n", 3, 8, 8), opset=17):
    initial = [numpy_helper.from_array(np.asarray(v), k) for k, v in (tensors or {}).items()]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initial,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def agree(proto, x):
    expected = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    network, _ = graph_of(proto)
    found = network(torch.from_numpy(x))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-4, atol=2e-5)


ONE = [
    ("Relu", {}, {}), ("LeakyRelu", {"alpha": 0.1}, {}), ("Elu", {}, {}), ("Sigmoid", {}, {}), ("Tanh", {}, {}),
    ("Softplus", {}, {}), ("HardSwish", {}, {}), ("HardSigmoid", {}, {}), ("Erf", {}, {}), ("Abs", {}, {}),
    ("Flatten", {}, {}), ("GlobalAveragePool", {}, {}), ("GlobalMaxPool", {}, {}), ("Softmax", {"axis": 1}, {}),
    ("LogSoftmax", {"axis": 1}, {}), ("Transpose", {"perm": [0, 2, 3, 1]}, {}),
    ("Clip", {}, {"low": np.float32(-0.5), "high": np.float32(0.5)}),
    ("PRelu", {}, {"slope": values(3, 1, 1)}), ("Add", {}, {"b": values(3, 1, 1)}), ("Div", {}, {"b": values(1)}),
    ("Reshape", {}, {"shape": np.array([0, -1])}), ("Unsqueeze", {}, {"axes": np.array([1, -1])}),
    ("ReduceMean", {"axes": [2, 3], "keepdims": 0}, {}), ("ReduceMax", {"axes": [1]}, {}),
    ("ReduceSum", {}, {"axes": np.array([-1])}),
    ("Slice", {}, {"s": np.array([7, 1]), "e": np.array([-(2**40), 3]), "a": np.array([2, 1]), "t": np.array([-2, 1])}),
    ("Gather", {"axis": 1}, {"i": np.array([[2, -1]])}), ("Pad", {}, {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0])}),
    ("Pad", {"mode": "reflect"}, {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0])}),
    ("Pad", {"mode": "edge"}, {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0])}),
    ("Expand", {}, {"shape": np.array([2, 1, 3, 8, 8])}), ("Tile", {}, {"r": np.array([1, 2, 1, 1])}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, {}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, {}),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, {}),
    ("AveragePool", {"kernel_shape": [2, 2], "pads": [1, 0, 1, 0], "count_include_pad": 1}, {}),
    ("Conv", {"pads": [1, 1, 1, 1]}, {"w": values(4, 3, 3, 3), "b": values(4)}),
    ("Conv", {"strides": [2, 2], "pads": [0, 1, 2, 1], "dilations": [2, 1]}, {"w": values(4, 3, 3, 3)}),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, {"w": values(4, 3, 3, 3)}),
    ("Conv", {"group": 3}, {"w": values(6, 1, 3, 3)}),
    ("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, {"w": values(3, 2, 3, 3)}),
    ("BatchNormalization", {}, {"s": values(3), "b": values(3), "m": values(3), "v": np.abs(values(3))}),
    ("InstanceNormalization", {}, {"s": values(3), "b": values(3)}),
    ("LayerNormalization", {"axis": -1}, {"s": values(8), "b": values(8)}),
    ("MatMul", {}, {"w": values(8, 5)}),
    ("ScatterND", {}, {"i": np.array([[0, 2], [-1, 0]]), "u": values(2, 8, 8)}),
    *(
        ("ScatterND", {"reduction": how}, {"i": np.array([[0, 2, 1, 1], [0, 2, 1, 1], [1, -1, 0, 7]]), "u": values(3)})
        for how in ("add", "mul", "max", "min")
    ),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "attributes", "tensors"), ONE, ids=lambda v: v if isinstance(v, str) else "")
def test_operators_agree_with_the_reference(operator, attributes, tensors):
    node = helper.make_node(operator, ["x", *tensors], ["y"], **attributes)
    agree(model([node], tensors), values(2, 3, 8, 8))


def test_newer_and_older_forms_of_one_operator():
    axes = {"a": np.array([2, 3])}
    agree(model([helper.make_node("ReduceMean", ["x", "a"], ["y"])], axes, opset=18), values(2, 3, 4, 4))
    agree(model([helper.make_node("Clip", ["x"], ["y"], min=-0.2, max=0.2)], opset=6), values(2, 3, 4, 4))
    agree(model([helper.make_node("Squeeze", ["x"], ["y"], axes=[1])], opset=11), values(2, 1, 4, 4))
    split = helper.make_node("Split", ["x"], ["y", "z"], axis=2)
    agree(model([split], opset=11), values(2, 3, 4, 4))
    agree(model([helper.make_node("Gelu", ["x"], ["y"])], opset=20), values(2, 3, 4, 4))


def newly_exported(opset=18):
    """What torch's newer exporter writes: names with dots, axes and bounds as inputs, a function of torch's domain."""
    tensors = {
        "conv1.weight": values(4, 3, 3, 3), "bn1.weight": values(4), "bn1.bias": values(4),
        "bn1.running_mean": values(4), "bn1.running_var": np.abs(values(4)) + 0.1,
        "norm.weight": values(4), "norm.bias": values(4), "fc.weight": values(5, 4), "fc.bias": values(5),
        "val_1": np.float32(0), "val_2": np.float32(6), "val_3": np.array([2, 3]), "val_4": np.array([-1, 4]),
        "val_5": np.array(1.5, np.float64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight"], ["conv2d"], pads=[1, 1, 1, 1], group=1, auto_pad="NOTSET"),
        helper.make_node(
            "BatchNormalization",
            ["conv2d", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"],
            ["getitem"], epsilon=1e-5, momentum=0.9, training_mode=0,
        ),
        helper.make_node("Clip", ["getitem", "val_1", "val_2"], ["hardtanh"]),
        helper.make_node("Split", ["hardtanh"], ["split_0", "split_1"], axis=3, num_outputs=2),
        helper.make_node("aten_add", ["split_0", "split_1"], ["add"], domain="pkg.torch.test"),
        helper.make_node("GlobalAveragePool", ["add"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"], axis=1),
        helper.make_node("ReduceMean", ["add", "val_3"], ["mean"], keepdims=0, noop_with_empty_axes=0),
        helper.make_node("Add", ["flat", "mean"], ["both"]),
        helper.make_node("Reshape", ["both", "val_4"], ["view"], allowzero=1),
        helper.make_node("LayerNormalization", ["view", "norm.weight", "norm.bias"], ["norm"], axis=-1, epsilon=1e-5),
        helper.make_node("CastLike", ["val_5", "norm"], ["scale"]),
        helper.make_node("Mul", ["norm", "scale"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "fc.weight", "fc.bias"], ["y"], transB=1, alpha=1.0, beta=1.0),
    ]  # fmt: skip
    proto = model(nodes, tensors, shape=("s77", 3, 8, 8), opset=opset)
    add = helper.make_function(
        "pkg.torch.test", "aten_add", ["a", "b"], ["c"], [helper.make_node("Add", ["a", "b"], ["c"])],
        [helper.make_opsetid("", opset)],
    )  # fmt: skip
    proto.functions.append(add)
    proto.opset_import.append(helper.make_opsetid("pkg.torch.test", 1))
    return proto


@pytest.mark.parametrize("opset", [18, 20])
def test_files_of_torch_s_newer_exporter_run(opset):
    agree(newly_exported(opset), values(3, 3, 8, 8))


class Swinging(nn.Module):
    """The kinds of layers that exported networks hold: convolutions, norms, shifted windows, attention, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(2))
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.5), nn.Linear(16, 5))

    def forward(self, x):
        x = torch.roll(self.stem(x), (1, 1), (2, 3))
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        return self.head((tokens + self.attention(tokens, tokens, tokens)[0]).mean(1))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # the exporter's own
@pytest.mark.parametrize("batch", [{}, {"dynamic_shapes": ({0: "batch"},)}], ids=["fixed", "any"])
def test_files_that_torch_exports_today_run_at_any_batch_size(batch, tmp_path):
    torch.manual_seed(0)
    net = Swinging().eval()
    torch.onnx.export(net, (torch.rand(2, 3, 16, 16),), tmp_path / "net.onnx", dynamo=True, verbose=False, **batch)
    loaded = load(Source.of("net.onnx", tmp_path)).module
    images = torch.rand(5, 3, 16, 16, requires_grad=True)
    torch.testing.assert_close(loaded(images), net(images), rtol=1e-4, atol=1e-5)
    wanted, found = (torch.autograd.grad(each(images)[:, 0].sum(), images)[0] for each in (net, loaded))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_weights_beside_the_file_are_read_and_belong_to_what_identifies_it(tmp_path):
    proto = newly_exported()
    expected = ReferenceEvaluator(proto).run(None, {"x": np.ones((2, 3, 8, 8), np.float32)})[0]
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    loaded = load(Source.of("net.onnx", tmp_path))
    np.testing.assert_allclose(loaded.module(torch.ones(2, 3, 8, 8)).numpy(), expected, rtol=1e-4, atol=1e-5)
    weights = tmp_path / "net.onnx.data"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert load(Source.of("net.onnx", tmp_path)).digest != loaded.digest
    weights.unlink()
    with pytest.raises(ForeignError, match=r"net\.onnx\.data, which is not beside it"):
        load(Source.of("net.onnx", tmp_path))


def test_operators_of_other_domains_are_named(tmp_path):
    proto = model([helper.make_node("FusedGemm", ["x"], ["y"], domain="com.microsoft")])
    with pytest.raises(ForeignError, match="FusedGemm"):
        graph_of(proto)
    known = model([helper.make_node("Relu", ["x"], ["y"], domain="com.microsoft")])
    with pytest.raises(ForeignError, match=r"com\.microsoft"):
        graph_of(known)


def test_comparisons_and_ranges_agree_with_the_reference():
    for operator in ("GreaterOrEqual", "LessOrEqual"):
        nodes = [helper.make_node(operator, ["x", "b"], ["m"]), helper.make_node("Cast", ["m"], ["y"], to=1)]
        agree(model(nodes, {"b": values(3, 1, 1)}, opset=18), values(2, 3, 4, 4))
    nodes = [helper.make_node("Range", ["a", "b", "c"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])]
    bounds = {"a": np.float32(0), "b": np.float32(4), "c": np.float32(1)}
    agree(model(nodes, bounds, opset=18), values(2, 3, 4, 4))
    nan = [helper.make_node("IsNaN", ["x"], ["m"]), helper.make_node("Where", ["m", "b", "x"], ["y"])]
    x = values(2, 3, 4, 4)
    x[0, 0] = np.nan
    agree(model(nan, {"b": np.float32(0)}, opset=20), x)


def test_local_response_normalisation_follows_the_formula():
    x = torch.from_numpy(values(2, 5, 3, 3))
    network, _ = graph_of(model([helper.make_node("LRN", ["x"], ["y"], size=3, alpha=0.9, beta=0.5)]))
    squares = torch.nn.functional.pad(x**2, (0, 0, 0, 0, 1, 1))
    around = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]  # onnx's own evaluator leaves out the last one
    assert torch.allclose(network(x), x / (1 + 0.9 / 3 * around).sqrt(), atol=1e-6)


def small_network(batch="n", softmax=True):
    w, f = values(4, 3, 3, 3), values(4 * 36, 5)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Shape", ["b"], ["s"], end=1),
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["s", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["b", "shape"], ["c"]),
        helper.make_node("Gemm", ["c", "f", "g"], ["d" if softmax else "y"], alpha=0.5),
    ]
    nodes += [helper.make_node("Softmax", ["d"], ["y"], axis=1)] if softmax else []
    return model(nodes, {"w": w, "f": f, "g": values(5)}, (batch, 3, 8, 8))


def test_whole_files_give_gradients_and_run_in_float64(tmp_path):
    proto = small_network(softmax=False)
    onnx.save(proto, tmp_path / "net.onnx")
    loaded = load(Source.of("net.onnx", tmp_path))
    x = torch.from_numpy(values(3, 3, 8, 8)).requires_grad_(True)
    assert torch.autograd.grad(loaded.module(x).sum(), x)[0].abs().sum() > 0
    expected = ReferenceEvaluator(proto).run(None, {"x": x.detach().numpy()})[0]
    np.testing.assert_allclose(loaded.module(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert loaded.module.double()(x.double()).dtype == torch.float64


def test_a_batch_size_fixed_by_the_export_does_not_limit(tmp_path):
    w = values(192, 5)
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["c"]), helper.make_node("MatMul", ["c", "w"], ["y"])]
    proto = model(nodes, {"shape": np.array([2, 192]), "w": w}, (2, 3, 8, 8))
    onnx.save(proto, tmp_path / "net.onnx")
    module = load(Source.of("net.onnx", tmp_path)).module
    x = values(5, 3, 8, 8)
    np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), x.reshape(5, -1) @ w, rtol=1e-4, atol=1e-4)
    onnx.save(small_network(batch=1), tmp_path / "free.onnx")
    assert type(load(Source.of("free.onnx", tmp_path)).module).__name__ == "Graph"


def test_unknown_operators_and_damaged_files_are_named(tmp_path):
    proto = model([helper.make_node("GridSample", ["x", "g"], ["y"])], {"g": values(2, 4, 4, 2)})
    onnx.save(proto, tmp_path / "odd.onnx")
    with pytest.raises(ForeignError, match="GridSample"):
        load(Source.of("odd.onnx", tmp_path))
    (tmp_path / "bad.onnx").write_bytes(b"not a graph at all")
    with pytest.raises(ForeignError, match=r"bad\.onnx"):
        load(Source.of("bad.onnx", tmp_path))
