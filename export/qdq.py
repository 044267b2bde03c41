"""Write a quantized `Graph` as ONNX QDQ, opset 21.

Every quantizer is a QuantizeLinear/DequantizeLinear pair, every weight an int8 initializer behind a
DequantizeLinear, biases int32. The input is raw pixels, uint8, behind a DequantizeLinear of scale
1/255; the batch is dynamic. The file says all that the compiler needs:

* a layout operator between quantized values has a pair in front and behind, with the same
  parameters;
* int16 quantizers (the residual stream) are standard from opset 21 on;
* a range narrower than its storage type is a Clip on the codes between Quantize- and
  DequantizeLinear (QDQ alone cannot express it); of 16-bit storage it is a Clip of the real value
  before, as onnxruntime clips no 16-bit codes;
* attention with deferred normalization is spelled out in standard operators,
  ``Exp(Sub(x, ReduceMax(x)))`` and ``Div(MatMul(p, v), ReduceSum(p))``;
* a bias or mask of attention is a float constant, added to the scores before that;
* log codes round the exponent: ``Exp(Where(k > last, end, k) * -ln(2) / r)`` with
  ``k = Floor(Sub(ReduceMax(x), x) * r log2(e) + 0.5)``; `end` is the last code, or `BEYOND` where
  scores beyond it weigh nothing;
* twin ranges behind GELU are two pairs and a sum, and the pair of the sum, which it fits exactly;
* twin ranges of attention weights are a table of 256 weights: a Gather on the codes between
  Quantize- and DequantizeLinear;
* which integer nonlinear operators are meant (`vitq.nonlinear`), and where the model came from,
  are metadata properties ``vitq.*``.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from vitq.export.functions import write_function, write_rms_norm
from vitq.export.quantizers import INPUT_NAME, QdqWriter
from vitq.numerics.errors import VitqError
from vitq.numerics.files import write_atomically
from vitq.numerics.qparams import QuantParams
from vitq.numerics.twin_codes import ONE_RANGE
from vitq.quantization.graph.geometry import geometry_of
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.plan.attention_codes import LogCodes, log_codes_of, twin_codes_of
from vitq.quantization.plan.twin_ranges import twin_of

OPSET = 21
IR_VERSION = 10
LOG_OF_2 = np.log(2) * (1 - 4e-7)
"""A little less, so that half of 255 rounds up, as in integers, and not down by float's errors."""
BEYOND = 1000
"""Steps of a log code after which an 8-bit weight is 0, whatever the steps are."""


def to_onnx(graph: Graph, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Convert a quantized graph.

    Args:
        graph: from `quantization.ranges.calibrate.quantize_graph`.
        metadata: written as metadata properties, keys with the prefix ``vitq.``.

    Returns:
        A checked model with input ``pixels`` (N, C, H, W) uint8 and float32 outputs of the graph's
        names: ``logits`` (N, classes) of a classifier.

    Raises:
        VitqError: if an operator cannot be expressed.
    """
    model = _Network(graph).run()
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"vitq.{key}", value
    onnx.checker.check_model(model, full_check=True)
    return model


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write a model; nothing half-written stays behind."""
    write_atomically(path, model.SerializeToString())


class _Network(QdqWriter):
    """One walk over the graph."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.values: dict[str, str] = {}
        self.quantized: dict[str, QuantParams] = {}

    def run(self) -> onnx.ModelProto:
        for node in self.graph:
            self._write(node)
        for name, last in self.graph.outputs.items():
            self.nodes.append(helper.make_node("Identity", [self.values[last]], [name], name=name))
        results = {name: self.graph.nodes[last] for name, last in self.graph.outputs.items()}
        source = self.graph.input
        proto = helper.make_graph(
            self.nodes,
            "vitq",
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, _dims(source))],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, _dims(node))
                for name, node in results.items()
            ],
            list(self.initializers.values()),
        )
        return helper.make_model(
            proto,
            producer_name="vitq",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )

    def _write(self, node: Node) -> None:
        if node.op is OpKind.INPUT:
            assert node.out is not None
            self.values[node.name] = self._dequantize(INPUT_NAME, node.name, node.out)
            return
        if node.op is OpKind.CONSTANT:
            self.values[node.name] = self._parameter(node, "value")
            return
        handler: Callable[[Node, list[str]], str] | None = getattr(self, f"_op_{node.op}", None)
        if handler is None:
            raise VitqError(f"{node.name}: operator {node.op} cannot be written as ONNX QDQ")
        value = handler(node, [self.values[name] for name in node.inputs])
        qparams = node.out or self._carried(node)
        twin = twin_of(node)
        if qparams is not None:
            clip = twin is None
            if twin is not None:
                value = self._twin(value, node.name, qparams, twin)
            weights = twin_codes_of(node) if node.op is OpKind.EXP else ONE_RANGE
            value = self._quantize(value, node.name, qparams, clip, weights)
            self.quantized[node.name] = qparams
        self.values[node.name] = value

    def _carried(self, node: Node) -> QuantParams | None:
        """Parameters that a layout operator takes over from its quantized input.

        Convention in QDQ files is a pair behind layout operators too; where it is missing
        onnxruntime 1.31 inserts one itself and fails on its own int8 zero point.
        """
        return self.quantized.get(node.inputs[0]) if node.op in LAYOUT_OPS else None

    def _op_conv2d(self, node: Node, inputs: list[str]) -> str:
        kernel = list(self.graph.tensor(node, "weight").shape[2:])
        operands = [inputs[0], self._parameter(node, "weight"), self._parameter(node, "bias")]
        return self._emit("Conv", operands, node.name, kernel_shape=kernel, strides=kernel)

    def _op_depthwise(self, node: Node, inputs: list[str]) -> str:
        place, channels = geometry_of(node), node.shape[-1]
        first = self._emit("Transpose", inputs, f"{node.name}.first", perm=[0, 3, 1, 2])
        carried = self.quantized.get(node.inputs[0])
        if carried is not None:  # as behind layout operators: see `_carried`
            first = self._quantize(first, f"{node.name}.first", carried)
        shape = np.array([channels, 1, *place.kernel], np.int64)
        wide = self._constant(f"{node.name}.weight_shape", shape)
        weight = self._emit(
            "Reshape", [self._parameter(node, "weight"), wide], f"{node.name}.weight_wide"
        )
        product = self._emit(
            "Conv",
            [first, weight, self._parameter(node, "bias")],
            f"{node.name}.conv",
            kernel_shape=place.kernel,
            strides=place.stride,
            pads=[*place.before, *place.after],
            dilations=place.dilation,
            group=channels,
        )
        return self._emit("Transpose", [product], node.name, perm=[0, 2, 3, 1])

    def _op_linear(self, node: Node, inputs: list[str]) -> str:
        weight = self._parameter(node, "weight")
        flipped = self._emit("Transpose", [weight], f"{node.name}.weight_t", perm=[1, 0])
        product = self._emit("MatMul", [inputs[0], flipped], f"{node.name}.product")
        return self._emit("Add", [product, self._parameter(node, "bias")], node.name)

    def _op_matmul(self, node: Node, inputs: list[str]) -> str:
        return self._emit("MatMul", inputs, node.name)

    def _op_add(self, node: Node, inputs: list[str]) -> str:
        return self._emit("Add", inputs, node.name)

    def _op_offset(self, node: Node, inputs: list[str]) -> str:
        return self._emit("Add", [inputs[0], self._parameter(node, "value")], node.name)

    def _op_scale(self, node: Node, inputs: list[str]) -> str:
        factor = self._constant(f"{node.name}.factor", np.float32(node.attrs["factor"]))
        return self._emit("Mul", [inputs[0], factor], node.name)

    def _op_layer_norm(self, node: Node, inputs: list[str]) -> str:
        operands = [inputs[0], self._parameter(node, "gamma"), self._parameter(node, "beta")]
        eps = node.attrs["eps"]
        return self._emit("LayerNormalization", operands, node.name, axis=-1, epsilon=eps)

    def _op_softmax(self, node: Node, inputs: list[str]) -> str:
        return self._emit("Softmax", inputs, node.name, axis=-1)

    def _op_exp(self, node: Node, inputs: list[str]) -> str:
        last = self._constant("last_axis", np.array([-1], np.int64))
        peak = self._emit("ReduceMax", [inputs[0], last], f"{node.name}.max", keepdims=1)
        log = log_codes_of(node)
        if log is None:
            distance = self._emit("Sub", [inputs[0], peak], f"{node.name}.distance")
            return self._emit("Exp", [distance], node.name)
        distance = self._emit("Sub", [peak, inputs[0]], f"{node.name}.distance")
        return self._emit("Exp", [self._exponent(node.name, distance, log)], node.name)

    def _exponent(self, name: str, distance: str, log: LogCodes) -> str:
        """Return the logarithm of a weight on its grid, <= 0."""
        up = self._constant(f"log_steps.{log.steps}", np.float32(log.steps * np.log2(np.e)))
        down = self._constant(f"log_size.{log.steps}", np.float32(-LOG_OF_2 / log.steps))
        half = self._constant("half", np.float32(0.5))
        last = self._constant(f"log_last.{log.levels}", np.float32(log.levels - 1))
        steps = self._emit("Mul", [distance, up], f"{name}.steps")
        moved = self._emit("Add", [steps, half], f"{name}.moved")
        codes = self._emit("Floor", [moved], f"{name}.codes")
        beyond = self._constant("log_beyond", np.float32(BEYOND)) if log.zero else last
        far = self._emit("Greater", [codes, last], f"{name}.far")
        codes = self._emit("Where", [far, beyond, codes], f"{name}.limited")
        return self._emit("Mul", [codes, down], f"{name}.exponent")

    def _op_normalized_matmul(self, node: Node, inputs: list[str]) -> str:
        last = self._constant("last_axis", np.array([-1], np.int64))
        product = self._emit("MatMul", inputs, f"{node.name}.product")
        total = self._emit("ReduceSum", [inputs[0], last], f"{node.name}.sum", keepdims=1)
        return self._emit("Div", [product, total], node.name)

    def _op_gelu(self, node: Node, inputs: list[str]) -> str:
        return self._emit("Gelu", inputs, node.name, approximate=node.attrs["approximate"])

    def _op_multiply(self, node: Node, inputs: list[str]) -> str:
        return self._emit("Mul", inputs, node.name)

    def _op_pointwise(self, node: Node, inputs: list[str]) -> str:
        return write_function(node, inputs[0], self._emit, self._constant)

    def _op_rms_norm(self, node: Node, inputs: list[str]) -> str:
        gamma = self._parameter(node, "gamma")
        return write_rms_norm(node, inputs[0], gamma, self._emit, self._constant)

    def _op_mean(self, node: Node, inputs: list[str]) -> str:
        axes = self._constant(f"{node.name}.axes", np.array([node.attrs["axis"]], np.int64))
        return self._emit("ReduceMean", [inputs[0], axes], node.name, keepdims=0)

    def _op_max(self, node: Node, inputs: list[str]) -> str:
        axes = self._constant(f"{node.name}.axes", np.array([node.attrs["axis"]], np.int64))
        return self._emit("ReduceMax", [inputs[0], axes], node.name, keepdims=0)

    def _op_argmax(self, node: Node, inputs: list[str]) -> str:
        axis = node.attrs["axis"]
        found = self._emit("ArgMax", inputs, f"{node.name}.class", axis=axis, keepdims=0)
        return self._emit("Cast", [found], node.name, to=TensorProto.FLOAT)

    def _op_requantize(self, node: Node, inputs: list[str]) -> str:
        return inputs[0]

    def _op_reshape(self, node: Node, inputs: list[str]) -> str:
        dims = [-1 if axis == node.batch_axis else dim for axis, dim in enumerate(node.shape)]
        shape = self._constant(f"{node.name}.shape", np.array(dims, np.int64))
        return self._emit("Reshape", [inputs[0], shape], node.name)

    def _op_permute(self, node: Node, inputs: list[str]) -> str:
        return self._emit("Transpose", inputs, node.name, perm=node.attrs["axes"])

    def _op_select(self, node: Node, inputs: list[str]) -> str:
        index = self._constant(f"{node.name}.index", np.int64(node.attrs["index"]))
        return self._emit("Gather", [inputs[0], index], node.name, axis=node.attrs["axis"])

    def _op_slice(self, node: Node, inputs: list[str]) -> str:
        ends = [np.array([node.attrs[key]], np.int64) for key in ("start", "stop", "axis")]
        names = [
            self._constant(f"{node.name}.{key}", value)
            for key, value in zip(("start", "stop", "axis"), ends, strict=True)
        ]
        return self._emit("Slice", [inputs[0], *names], node.name)

    def _op_take(self, node: Node, inputs: list[str]) -> str:
        indices = np.array(node.attrs["indices"], np.int64)
        index = self._constant(f"{node.name}.indices", indices)
        return self._emit("Gather", [inputs[0], index], node.name, axis=node.attrs["axis"])

    def _op_pad(self, node: Node, inputs: list[str]) -> str:
        before, after = zip(*node.attrs["pads"], strict=True)
        pads = self._constant(f"{node.name}.pads", np.array([*before, *after], np.int64))
        return self._emit("Pad", [inputs[0], pads], node.name)

    def _op_concat(self, node: Node, inputs: list[str]) -> str:
        return self._emit("Concat", inputs, node.name, axis=node.attrs["axis"])

    def _op_expand(self, node: Node, inputs: list[str]) -> str:
        axis, dims = node.batch_axis, np.array(node.shape, np.int64)
        if axis is None or self.graph.operand(node).batch_axis is not None:
            dims[[] if axis is None else [axis]] = 1  # keeps what the input has
            shape = self._constant(f"{node.name}.shape", dims)
            return self._emit("Expand", [inputs[0], shape], node.name)
        assert node.shape[axis] == 1, "the tracer repeats one row for each picture"
        if "batch" not in {n.output[0] for n in self.nodes}:
            self._emit("Shape", [INPUT_NAME], "batch", start=0, end=1)
        first = [self._constant(f"{node.name}.first", dims[:axis])] if axis else []
        rest = self._constant(f"{node.name}.rest", dims[axis + 1 :])
        shape = self._emit("Concat", [*first, "batch", rest], f"{node.name}.shape", axis=0)
        return self._emit("Expand", [inputs[0], shape], node.name)


def _dims(node: Node) -> list[str | int]:
    return ["batch" if axis == node.batch_axis else dim for axis, dim in enumerate(node.shape)]
