"""The integer reference: a quantized `Graph`, executed in NumPy with `numerics` only.

It shares nothing with the compiled path but the contract: no ONNX, no TVM, no fusion, no packing.
`verify` holds the library against it bit for bit.

A value is its codes with the real value of one step (for accumulators, one for each channel) and a
zero point. Accumulators keep their int32 until a node with parameters requantizes them; layout
operators move the scales along with the codes, so that any slice knows its own.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from vitq.numerics.add import add_params, int_add
from vitq.numerics.argmax import int_argmax
from vitq.numerics.arrays import FloatArray, IntArray, UInt8Array
from vitq.numerics.convolution import depthwise_sum, tap_rows
from vitq.numerics.errors import RangeError, VitqError
from vitq.numerics.int_layernorm import int_layernorm, layernorm_params
from vitq.numerics.linear import accumulate, linear_sum, patch_rows
from vitq.numerics.matmul import centred_matmul, product_scale
from vitq.numerics.nonlinear import family_gelu_params, int_gelu, int_softmax, softmax_params
from vitq.numerics.offset import int_offset, offset_codes
from vitq.numerics.pooling import int_mean, mean_params
from vitq.numerics.qparams import QuantParams
from vitq.numerics.requantize import int_requantize, requantize_params
from vitq.numerics.shiftmax import normalized_matmul, normalized_matmul_params, shiftmax_codes
from vitq.quantization.graph.geometry import geometry_of
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.moving import moved
from vitq.quantization.graph.origins import label_of
from vitq.quantization.graph.outputs import join
from vitq.quantization.plan.attention_codes import exp_params
from vitq.quantization.plan.nonlinear import family_of
from vitq.quantization.plan.rotations import is_rotation
from vitq.quantization.plan.twin_ranges import twin_of
from vitq.quantization.run import elementwise
from vitq.quantization.run.elementwise import distinct
from vitq.quantization.run.int_tensor import IntTensor

AT_ONCE = 2**17
"""Input values that are executed at once. At eight pictures of 224 each operator leaves the
processor's caches, and all takes half as long again as at one."""


class IntegerReference:
    """Executes a quantized graph.

    Args:
        graph: quantized; every node that must carry parameters does.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @property
    def output_scale(self) -> float:
        """Real value of one step of the first result."""
        return float(next(iter(self.output_steps.values())).scale)

    @property
    def output_steps(self) -> dict[str, IntTensor]:
        """What one step of each result means: its scale and zero point, without codes."""
        return {name: self._step(node) for name, node in self.graph.outputs.items()}

    def _step(self, name: str) -> IntTensor:
        node, scale = self.graph.nodes[name], np.asarray(1.0)
        while node.out is None:
            scale = product_scale(scale, node.attrs.get("factor", 1.0))
            node = self.graph.operand(node)
        zero = int(node.out.zero_point)
        return IntTensor(np.zeros(0, np.int64), product_scale(node.out.scale, scale), zero)

    def real(self, codes: IntArray) -> FloatArray:
        """Real values of the codes of `__call__`, float32."""
        parts, steps = self.graph.layout.split(codes), self.output_steps
        reals = (replace(steps[name], codes=part).real for name, part in parts.items())
        return join(reals, len(codes))

    def __call__(self, pixels: UInt8Array) -> IntArray:
        """Integer logits of raw pixels.

        Args:
            pixels: (N, C, H, W) uint8.

        Returns:
            (N, classes) int64 codes; times `output_scale` they are the logits. Of other results
            their row (`quantization.graph.outputs`), see `real`.
        """
        # Two BLAS threads beside another busy process spin and are 50 times slower than one.
        size = max(1, AT_ONCE // math.prod(pixels.shape[1:]))
        starts = range(0, len(pixels), size)
        with threadpool_limits(limits=1, user_api="blas"):
            return np.concatenate([self._run(pixels[i : i + size]) for i in starts])

    def _run(self, pixels: UInt8Array) -> IntArray:
        values: dict[str, IntTensor] = {}
        wanted = frozenset(self.graph.outputs.values())
        last_use = {name: node.name for node in self.graph for name in node.inputs}
        for node in self.graph:
            inputs = [values[name] for name in node.inputs]
            if node.op is OpKind.INPUT:
                values[node.name] = pixel_codes(node, pixels)
            else:
                values[node.name] = self.execute(node, inputs, pixels.shape[0])
            for name in node.inputs:
                if last_use[name] == node.name and name not in wanted:
                    values.pop(name, None)
        results = (values[name].codes for name in self.graph.outputs.values())
        return join(results, len(pixels))

    def execute(self, node: Node, inputs: list[IntTensor], batch: int) -> IntTensor:
        """Compute one node, which is not the graph's input.

        Args:
            node: of the graph.
            inputs: what it reads.
            batch: how many pictures.

        Returns:
            Its result.

        Raises:
            RangeError: an integer leaves its range; the node is named.
        """
        try:
            return self._execute(node, inputs, batch)
        except RangeError as error:
            raise RangeError(f"{label_of(node)}: {error}") from error

    def _execute(self, node: Node, inputs: list[IntTensor], batch: int) -> IntTensor:
        if node.op in _LAYOUT:
            value = _layout(node, inputs, batch)
        elif node.op is OpKind.CONSTANT:
            value = IntTensor(self.graph.tensor(node, "value").astype(np.int64), np.asarray(0.0))
            assert node.out is not None
            return _quantized(value.codes, node.out)
        elif node.op in _ACCUMULATORS:
            value = _ACCUMULATORS[node.op](self.graph, node, inputs)
        elif node.op is OpKind.SCALE:
            x = inputs[0]
            value = IntTensor(x.codes, product_scale(x.scale, node.attrs["factor"]), x.zero_point)
        elif node.op is OpKind.OFFSET:
            x = inputs[0]
            offset = offset_codes(self.graph.real(node, "value"), x.one_scale)
            value = IntTensor(int_offset(x.codes, offset), x.scale, x.zero_point)
        else:
            if node.out is None:
                raise VitqError(f"{node.name} ({node.op}) has no quantizer on its result")
            twin_of(node)  # refuses them where nothing executes them
            codes = _QUANTIZED[node.op](self.graph, node, inputs, node.out)
            return _quantized(codes, node.out)
        return value if node.out is None else _requantize(value, node)


def pixel_codes(node: Node, pixels: UInt8Array) -> IntTensor:
    """Return the graph's input: raw pixels are its codes."""
    assert node.out is not None
    return _quantized(pixels.astype(np.int64), node.out)


def _quantized(codes: IntArray, out: QuantParams) -> IntTensor:
    return IntTensor(codes, out.scale.astype(np.float64), int(out.zero_point))


def _requantize(value: IntTensor, node: Node) -> IntTensor:
    """Apply a node's own parameters to codes or accumulators."""
    out = node.out
    assert out is not None
    same = value.scale.ndim == 0 and float(value.scale) == float(out.scale)
    if node.op in _LAYOUT and same and value.zero_point == int(out.zero_point):
        return value
    params = requantize_params(distinct(value.scale), value.zero_point, out)
    return _quantized(int_requantize(value.codes, params), out)


_LAYOUT = {
    OpKind.RESHAPE,
    OpKind.PERMUTE,
    OpKind.SELECT,
    OpKind.SLICE,
    OpKind.CONCAT,
    OpKind.EXPAND,
    OpKind.TAKE,
    OpKind.PAD,
    OpKind.MAX,
}


def _layout(node: Node, inputs: list[IntTensor], batch: int) -> IntTensor:
    x = inputs[0]
    if node.op is OpKind.CONCAT:
        if any((i.one_scale, i.zero_point) != (x.one_scale, x.zero_point) for i in inputs):
            raise VitqError(f"{node.name}: the inputs of a concatenation have different scales")
        codes = np.concatenate([i.codes for i in inputs], axis=node.attrs["axis"])
        return IntTensor(codes, x.scale, x.zero_point)

    if node.op is OpKind.PAD:  # real zeros
        codes = np.pad(x.codes, node.attrs["pads"], constant_values=x.zero_point)
        return IntTensor(codes, np.asarray(x.one_scale), x.zero_point)
    if node.op is OpKind.MAX:  # the largest code is that of the largest value
        return IntTensor(x.codes.max(node.attrs["axis"]), np.asarray(x.one_scale), x.zero_point)
    scale = x.scale
    if scale.ndim:
        scale = moved(node, np.broadcast_to(scale, x.codes.shape), batch)
    return IntTensor(moved(node, x.codes, batch), scale, x.zero_point)


def _affine(graph: Graph, node: Node, x: IntTensor, rows: IntArray) -> IntTensor:
    """Accumulators of a layer, (..., O), with a scale for each output channel."""
    weight, bias = graph.tensor(node, "weight"), graph.tensor(node, "bias")
    weight_scale = graph.qparams[node.params["weight"]].scale
    layer = linear_sum(weight, weight_scale, bias, x.one_scale, x.zero_point)
    return IntTensor(accumulate(rows, layer), layer.scale)


def _linear(graph: Graph, node: Node, inputs: list[IntTensor]) -> IntTensor:
    return _affine(graph, node, inputs[0], inputs[0].codes)


def _conv2d(graph: Graph, node: Node, inputs: list[IntTensor]) -> IntTensor:
    """Run a convolution with stride = kernel as a linear layer over patches: (N, O, H', W')."""
    patch = graph.tensor(node, "weight").shape[2]
    batch, _, height, width = inputs[0].codes.shape
    acc = _affine(graph, node, inputs[0], patch_rows(inputs[0].codes, patch))
    grid = acc.codes.reshape(batch, height // patch, width // patch, -1)
    return IntTensor(grid.transpose(0, 3, 1, 2), acc.scale.reshape(1, -1, 1, 1))


def _depthwise(graph: Graph, node: Node, inputs: list[IntTensor]) -> IntTensor:
    """Accumulators of a depthwise convolution, (N, H', W', C)."""
    x, weight, place = inputs[0], graph.tensor(node, "weight"), geometry_of(node)
    scale = graph.qparams[node.params["weight"]].scale
    flat = weight.reshape(len(weight), -1)
    layer = linear_sum(flat, scale, graph.tensor(node, "bias"), x.one_scale, 0)
    batch, height, width, channels = x.codes.shape
    rows = x.codes.reshape(batch, height * width, channels)
    acc = depthwise_sum(rows, tap_rows((height, width), place), flat, x.zero_point)
    return IntTensor((acc + layer.bias).reshape(batch, *node.shape[1:]), layer.scale)


def _matmul(graph: Graph, node: Node, inputs: list[IntTensor]) -> IntTensor:
    a, b = inputs
    acc = centred_matmul(a.codes, b.codes, a.zero_point, b.zero_point)
    return IntTensor(acc, product_scale(a.one_scale, b.one_scale))


_ACCUMULATORS: dict[OpKind, Callable[[Graph, Node, list[IntTensor]], IntTensor]] = {
    OpKind.LINEAR: _linear,
    OpKind.CONV2D: _conv2d,
    OpKind.DEPTHWISE: _depthwise,
    OpKind.MATMUL: _matmul,
    OpKind.MULTIPLY: elementwise.multiply,
    OpKind.REQUANTIZE: lambda graph, node, inputs: inputs[0],
}


def _add(graph: Graph, node: Node, inputs: list[IntTensor], out: QuantParams) -> IntArray:
    a, b = inputs
    if is_rotation(graph, node):
        return elementwise.sum_of_products(inputs, out)
    params = add_params(a.one_scale, a.zero_point, b.one_scale, b.zero_point, out)
    return int_add(a.codes, b.codes, params)


def _layer_norm(graph: Graph, node: Node, inputs: list[IntTensor], out: QuantParams) -> IntArray:
    gamma, beta = graph.real(node, "gamma"), graph.real(node, "beta")
    params = layernorm_params(inputs[0].one_scale, node.attrs["eps"], gamma, beta, out)
    return int_layernorm(inputs[0].codes, params)


def _exp(graph: Graph, node: Node, inputs: list[IntTensor], out: QuantParams) -> IntArray:
    return shiftmax_codes(inputs[0].codes, exp_params(node, inputs[0].one_scale))


def _softmax(graph: Graph, node: Node, inputs: list[IntTensor], out: QuantParams) -> IntArray:
    params = softmax_params(family_of(node), inputs[0].one_scale, out)
    return int_softmax(inputs[0].codes, params)


def _normalized_matmul(
    graph: Graph, node: Node, inputs: list[IntTensor], out: QuantParams
) -> IntArray:
    codes, value = inputs
    norm = normalized_matmul_params(value.one_scale, out)
    return normalized_matmul(codes.codes, value.codes, value.zero_point, norm)


def _gelu(graph: Graph, node: Node, inputs: list[IntTensor], out: QuantParams) -> IntArray:
    x, twin = inputs[0], twin_of(node)
    params = family_gelu_params(family_of(node), x.one_scale, x.zero_point, out, twin)
    return int_gelu(x.codes, params)


def _mean(graph: Graph, node: Node, inputs: list[IntTensor], out: QuantParams) -> IntArray:
    x, axis = inputs[0], node.attrs["axis"]
    params = mean_params(x.one_scale, x.zero_point, x.codes.shape[axis], out)
    return int_mean(x.codes, params, axis)


def _argmax(graph: Graph, node: Node, inputs: list[IntTensor], out: QuantParams) -> IntArray:
    _ = inputs[0].one_scale  # refuses codes that could not be compared
    return int_argmax(inputs[0].codes, node.attrs["axis"])


_QUANTIZED: dict[OpKind, Callable[[Graph, Node, list[IntTensor], QuantParams], IntArray]] = {
    OpKind.ADD: _add,
    OpKind.LAYER_NORM: _layer_norm,
    OpKind.EXP: _exp,
    OpKind.SOFTMAX: _softmax,
    OpKind.NORMALIZED_MATMUL: _normalized_matmul,
    OpKind.GELU: _gelu,
    OpKind.MEAN: _mean,
    OpKind.ARGMAX: _argmax,
    OpKind.POINTWISE: elementwise.pointwise,
    OpKind.RMS_NORM: elementwise.rms_norm,
}
