"""Each operator of a float file computes in PyTorch what onnxruntime computes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from vitq.compiler.foreign.network.call import OPERATORS
from vitq.compiler.foreign.network.network import Network
from vitq.numerics.errors import VitqError

SHAPE = (2, 3, 8, 12)
RANDOM = np.random.default_rng(5)


def real(*shape: int) -> Any:
    """Return a constant."""
    return RANDOM.normal(size=shape).astype(np.float32)


class Case(NamedTuple):
    """One operator behind the pictures.

    Attributes:
        op: its type.
        constants: operands behind the pictures; None for one that is left out.
        attributes: of it.
        opset: of the file.
        outputs: how many.
        first: constants before the pictures.
    """

    op: str
    constants: tuple[Any, ...] = ()
    attributes: Mapping[str, Any] = MappingProxyType({})
    opset: int = 20
    outputs: int = 1
    first: tuple[Any, ...] = ()


ints = np.array
CASES = {
    "add": Case("Add", (real(3, 1, 1),)),
    "sub_from_number": Case("Sub", first=(real(),)),
    "div_number": Case("Div", (np.float32(3),)),
    "number_by": Case("Div", first=(np.float32(1),)),
    "two_by": Case("Div", first=(np.float32(2),)),
    "pow": Case("Pow", (np.float32(2),)),
    "mul_wider": Case("Mul", (real(2, 1, 1, 1, 1),)),
    "max_number": Case("Max", (np.float32(0.25),)),
    "min_tensor": Case("Min", (real(3, 8, 12),)),
    "sum": Case("Sum", (real(3, 8, 12), real(12))),
    "clip": Case("Clip", (np.float32(-0.5), np.float32(0.75))),
    "clip_6": Case("Clip", attributes={"min": 0.0, "max": 6.0}, opset=10),
    "clip_low": Case("Clip", (np.float32(-0.5),)),
    "cast": Case("Cast", attributes={"to": TensorProto.FLOAT}),
    "where": Case("Where", (np.float32(0),), first=(real(8, 12) > 0,)),
    "greater": Case("Greater", (real(12),)),
    "greater_or_equal": Case("GreaterOrEqual", (real(12),)),
    "less": Case("Less", (real(12),)),
    "less_or_equal": Case("LessOrEqual", (real(12),)),
    "equal": Case("Equal", (np.float32(0),)),
    "log": Case("Log"),
    "min_over": Case("ReduceMin", (ints([3]),)),
    "space_to_depth": Case("SpaceToDepth", attributes={"blocksize": 2}),
    "group_norm": Case("GroupNormalization", (real(3), real(3)), {"num_groups": 3}, opset=21),
    "upsample": Case("Upsample", (np.array([1, 1, 2, 3], np.float32),), opset=9),
    "gelu": Case("Gelu"),
    "gelu_tanh": Case("Gelu", attributes={"approximate": "tanh"}),
    "elu": Case("Elu", attributes={"alpha": 0.5}),
    "leaky_relu": Case("LeakyRelu"),
    "leaky_relu_slope": Case("LeakyRelu", attributes={"alpha": 0.3}),
    "celu": Case("Celu", attributes={"alpha": 2.0}),
    "selu": Case("Selu"),
    "prelu": Case("PRelu", (real(3, 1, 1),)),
    "hard_sigmoid": Case("HardSigmoid"),
    "hard_sigmoid_6": Case("HardSigmoid", attributes={"alpha": 1 / 6}),
    "softmax": Case("Softmax"),
    "softmax_11": Case("Softmax", opset=11),
    "softmax_axis": Case("Softmax", attributes={"axis": 1}),
    "mean": Case("ReduceMean", (ints([-1]),)),
    "mean_17": Case("ReduceMean", attributes={"axes": [2, 3], "keepdims": 0}, opset=17),
    "sum_over": Case("ReduceSum", (ints([1]),), {"keepdims": 0}),
    "max_over": Case("ReduceMax", (ints([2, 3]),)),
    "length": Case("ReduceL2", (ints([-1]),)),
    "identity": Case("Identity"),
    "dropout": Case("Dropout"),
    "reshape": Case("Reshape", (ints([0, 3, -1]),)),
    "reshape_first": Case("Reshape", (ints([-1, 96]),)),
    "flatten": Case("Flatten"),
    "transpose": Case("Transpose", attributes={"perm": [0, 2, 3, 1]}),
    "transpose_all": Case("Transpose"),
    "unsqueeze": Case("Unsqueeze", (ints([1, -1]),)),
    "unsqueeze_11": Case("Unsqueeze", attributes={"axes": [2]}, opset=11),
    "concat": Case("Concat", (real(2, 3, 2, 12),), {"axis": 2}),
    "expand": Case("Expand", (ints([2, 2, 3, 8, 12]),)),
    "tile": Case("Tile", (ints([1, 2, 1, 1]),)),
    "slice": Case("Slice", (ints([1, -4]), ints([2**62, -1]), ints([2, 3]), ints([2, 1]))),
    "slice_9": Case("Slice", attributes={"starts": [1], "ends": [3], "axes": [1]}, opset=9),
    "slice_back": Case("Slice", (ints([-1]), ints([-(2**62)]), ints([3]), ints([-2]))),
    "split": Case("Split", (ints([1, 2]),), {"axis": 1}, outputs=2),
    "split_18": Case("Split", attributes={"axis": 3, "num_outputs": 3}, outputs=3),
    "split_11": Case("Split", attributes={"axis": 1, "split": [2, 1]}, opset=11, outputs=2),
    "gather": Case("Gather", (np.int64(-1),), {"axis": 1}),
    "gather_several": Case("Gather", (ints([[0, 2], [1, -1]]),), {"axis": 2}),
    "triu": Case("Trilu", (np.int64(1),)),
    "depth_to_space": Case("DepthToSpace", attributes={"blocksize": 2}, first=()),
    "pad": Case("Pad", (ints([0, 0, 1, 2, 0, 0, 3, 0]), np.float32(0.5))),
    "pad_10": Case("Pad", attributes={"pads": [0, 0, 1, 1, 0, 0, 1, 1]}, opset=10),
    "matmul": Case("MatMul", (real(12, 5),)),
    "conv": Case("Conv", (real(4, 3, 3, 3), real(4)), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "conv_same": Case("Conv", (real(4, 3, 3, 3),), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "conv_lower": Case("Conv", (real(4, 3, 3, 2),), {"auto_pad": "SAME_LOWER"}),
    "conv_depthwise": Case("Conv", (real(3, 1, 3, 3),), {"group": 3, "dilations": [2, 2]}),
    "conv_transpose": Case("ConvTranspose", (real(3, 2, 2, 2), real(2)), {"strides": [2, 2]}),
    "batch_norm": Case(
        "BatchNormalization", (real(3), real(3), real(3), np.abs(real(3))), {"epsilon": 1e-3}
    ),
    "layer_norm": Case("LayerNormalization", (real(12), real(12)), {"epsilon": 1e-6}),
    "layer_norm_axes": Case("LayerNormalization", (real(8, 12),), {"axis": 2}),
    "rms_norm": Case("RMSNormalization", (real(12),), opset=23),
    "instance_norm": Case("InstanceNormalization", (real(3), real(3))),
    "unit_norm": Case("LpNormalization", attributes={"axis": 1}),
    "max_pool": Case(
        "MaxPool", attributes={"kernel_shape": [3, 3], "pads": [0, 0, 1, 1], "strides": [2, 2]}
    ),
    "average_pool": Case("AveragePool", attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
    "average_pool_pads": Case(
        "AveragePool",
        attributes={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "global_average": Case("GlobalAveragePool"),
    "global_max": Case("GlobalMaxPool"),
    "resize_nearest": Case(
        "Resize", (None, None, ints([2, 3, 16, 24])),
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "resize_linear": Case("Resize", (None, None, ints([2, 3, 11, 7])), {"mode": "linear"}),
    "resize_corners": Case(
        "Resize", (None, None, ints([2, 3, 15, 23])),
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    "resize_scales": Case(
        "Resize", (None, np.array([1, 1, 1.6, 1.3], np.float32)), {"mode": "linear"}
    ),
    "resize_cubic": Case("Resize", (None, None, ints([2, 3, 16, 5])), {
        "mode": "cubic", "cubic_coeff_a": -0.75, "coordinate_transformation_mode": "half_pixel",
    }),
    "einsum": Case("Einsum", (real(12, 8),), {"equation": "bchw,wk->bchk"}),
    "contrib_gelu": Case("com.microsoft.Gelu"),
    "fast_gelu": Case("com.microsoft.FastGelu", (real(12),)),
    "bias_gelu": Case("com.microsoft.BiasGelu", (real(12),)),
    "quick_gelu": Case("com.microsoft.QuickGelu", attributes={"alpha": 1.702}),
    "fused_matmul": Case("com.microsoft.FusedMatMul", (real(5, 12),), {"alpha": 0.5, "transB": 1}),
}  # fmt: skip
UNARY = "Abs Cos Erf Exp Floor HardSwish Mish Neg Relu Sigmoid Sin Softplus Softsign Tanh".split()
CASES |= {name: Case(name) for name in UNARY}


def model_of(case: Case, shape: tuple[int, ...] = SHAPE) -> Any:
    """Return a file of one operator, whose input has any batch."""
    domain, _, op = case.op.rpartition(".")
    before = [f"a{i}" for i in range(len(case.first))]
    behind = [f"c{i}" if value is not None else "" for i, value in enumerate(case.constants)]
    results = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(
        op, [*before, "x", *behind], results, "the_node", domain=domain, **case.attributes
    )
    values = zip([*before, *behind], [*case.first, *case.constants], strict=True)
    stored = [numpy_helper.from_array(np.asarray(v), n) for n, v in values if n]
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape[1:]])],
        [helper.make_empty_tensor_value_info(name) for name in results],
        stored,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", case.opset)]
    opsets += [helper.make_opsetid(domain, 1)] if domain else []
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def by_onnxruntime(model: Any, x: Any) -> list[Any]:
    """Return the results of a file."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {"x": x}))


def network_of(model: Any, batch: int = 0) -> Network:
    """Return the module of a file."""
    names = tuple(value.name for value in model.graph.output)
    return Network(model, "x", names, None, 3, batch).eval()


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_onnxruntime_does(name: str) -> None:
    case = CASES[name]
    shape = (2, 12, 4, 6) if name == "depth_to_space" else SHAPE
    model = model_of(case, shape)
    x = real(*shape)
    with torch.inference_mode():
        found = network_of(model)(torch.from_numpy(x))
    results = [found] if case.outputs == 1 else list(found.values())
    for ours, wanted in zip(results, by_onnxruntime(model, x), strict=True):
        assert tuple(ours.shape) == wanted.shape
        np.testing.assert_allclose(ours.numpy(), wanted, rtol=2e-5, atol=2e-5)


def test_every_operator_is_compared() -> None:
    """Here, or in a network (`test_network`)."""
    seen = {case.op for case in CASES.values()}
    elsewhere = {
        "And", "Attention", "CastLike", "Ceil", "ConstantOfShape", "DequantizeLinear", "Gemm",
        "IsNaN", "Mod", "Not", "Or", "QuantizeLinear", "Range", "Reciprocal", "ReduceProd",
        "Shape", "Size", "Sqrt", "Squeeze", "com.microsoft.Attention",
        "com.microsoft.DequantizeLinear", "com.microsoft.MultiHeadAttention",
        "com.microsoft.QuantizeLinear", "com.microsoft.SkipLayerNormalization",
    }  # fmt: skip
    assert set(OPERATORS) - seen == elsewhere


REFUSED = {
    "Flatten at axis 2": Case("Flatten", attributes={"axis": 2}),
    "Pad by reflect": Case(
        "Pad", (ints([0, 0, 1, 1, 0, 0, 1, 1]),), {"mode": "reflect"}
    ),
    "Selu of its own factors": Case("Selu", attributes={"alpha": 2.0}),
    "Max of 3 operands": Case("Max", (np.float32(1), np.float32(2))),
    "LpNormalization of another norm than 2": Case("LpNormalization", attributes={"p": 1}),
    "Resize (nearest) by another factor than a whole number": Case(
        "Resize", (None, None, ints([2, 3, 9, 12])),
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "Resize (linear) at coordinates tf_crop_and_resize": Case(
        "Resize", (real(8), None, ints([2, 3, 9, 12])),
        {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"},
    ),
    "AveragePool with other paddings before than after": Case(
        "AveragePool", attributes={"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}
    ),
    "ConvTranspose in this form": Case(
        "ConvTranspose", (real(3, 2, 2, 2),), {"pads": [0, 0, 1, 1]}
    ),
    "MaxPool over 1 axes": Case("MaxPool", attributes={"kernel_shape": [2]}),
    "its operand 1 depends on the pictures": Case("Gather", first=(real(5),)),
    "it is quantized already: vitq compile takes such a file": Case(
        "QuantizeLinear", (np.float32(0.1), np.int8(0))
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_a_form_that_is_not_known_is_refused_with_the_node(message: str) -> None:
    model = model_of(REFUSED[message])
    with pytest.raises(VitqError) as error, torch.inference_mode():
        network_of(model)(torch.from_numpy(real(*SHAPE)))
    assert message in str(error.value)
    assert str(error.value).startswith("node the_node (")


def test_a_node_that_runs_a_graph_is_refused() -> None:
    inner = onnx.parser.parse_graph("inner () => (float z) { z = Constant <value_float = 1.0> () }")
    with pytest.raises(VitqError, match=r"node the_node \(If\) runs a graph of its own"):
        network_of(model_of(Case("If", attributes={"then_branch": inner, "else_branch": inner})))


def test_a_result_without_pictures_is_refused() -> None:
    model = model_of(Case("Relu"))
    model.graph.node[0].op_type = "Shape"
    model.graph.node[0].input[0] = "c"
    model.graph.initializer.append(numpy_helper.from_array(real(2, 2), "c"))
    with pytest.raises(VitqError, match="the result y0 does not depend on the pictures"):
        network_of(model)
