"""The ONNX spelling of quantizers: what is true of every value, whatever operator makes it.

QuantizeLinear -> [Clip | Gather of a table] -> DequantizeLinear
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vitq.numerics.qparams import PerAxis, QuantParams, dequantize
from vitq.numerics.twin import Twin, coarse_range, fine_range, threshold
from vitq.numerics.twin_codes import ONE_RANGE, WEIGHT_MAX, TwinCodes, twin_weights
from vitq.quantization.graph.graph import Graph, Node

INPUT_NAME = "pixels"


class QdqWriter:
    """Operators and initializers of an ONNX file as they are written.

    Args:
        graph: quantized.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def _emit(self, op: str, inputs: list[str], output: str, **attrs: Any) -> str:
        output = self._own(output)
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attrs))
        return output

    def _own(self, name: str) -> str:
        """Leave the names of the results to the results."""
        return f"{name}.value" if name in self.graph.outputs or name == INPUT_NAME else name

    def _constant(self, name: str, value: Any) -> str:
        name = self._own(name)
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _qparams(self, name: str, qparams: QuantParams) -> tuple[str, str, dict[str, int]]:
        scale = self._constant(f"{name}.scale", qparams.scale)
        zero = self._constant(f"{name}.zero_point", qparams.zero_point.astype(qparams.dtype))
        if isinstance(qparams.granularity, PerAxis):
            return scale, zero, {"axis": qparams.granularity.axis}
        return scale, zero, {}

    def _quantize(
        self,
        value: str,
        name: str,
        qparams: QuantParams,
        clip: bool = True,
        weights: TwinCodes = ONE_RANGE,
    ) -> str:
        scale, zero, attrs = self._qparams(name, qparams)
        info = np.iinfo(qparams.dtype)
        narrow = clip and (qparams.qmin, qparams.qmax) != (info.min, info.max)
        if narrow and qparams.dtype.itemsize > 1 and not attrs:
            value, narrow = self._clamped(value, name, qparams), False
        codes = self._emit("QuantizeLinear", [value, scale, zero], f"{name}.q", **attrs)
        if narrow:
            low = self._constant(f"{name}.qmin", np.asarray(qparams.qmin, qparams.dtype))
            high = self._constant(f"{name}.qmax", np.asarray(qparams.qmax, qparams.dtype))
            codes = self._emit("Clip", [codes, low, high], f"{name}.clipped")
        if weights != ONE_RANGE:
            codes = self._looked_up(codes, name, weights)
        return self._dequantize(codes, name, qparams)

    def _clamped(self, value: str, name: str, qparams: QuantParams) -> str:
        """Limit a value to what a range narrower than int16 represents."""
        limits = (qparams.qmin, qparams.qmax)
        ends = dequantize(np.asarray(limits, qparams.dtype), qparams).astype(np.float32)
        low, high = (
            self._constant(f"{name}.{end}", value)
            for end, value in zip(("low", "high"), ends, strict=True)
        )
        return self._emit("Clip", [value, low, high], f"{name}.clamped")

    def _looked_up(self, codes: str, name: str, weights: TwinCodes) -> str:
        """Attention weights in two ranges."""
        values = twin_weights(np.arange(WEIGHT_MAX + 1), weights).astype(np.uint8)
        table = self._constant(f"twin_weights.{weights.fine}.{weights.coarse}", values)
        index = self._emit("Cast", [codes], f"{name}.index", to=TensorProto.INT32)
        return self._emit("Gather", [table, index], f"{name}.weights", axis=0)

    def _twin(self, value: str, name: str, out: QuantParams, twin: Twin) -> str:
        """Return the sum of two ranges, exactly representable by the quantizer that follows."""
        meet = self._constant(f"{name}.split", threshold(twin, out))
        above = self._emit("Sub", [value, meet], f"{name}.above")
        fine = self._quantize(value, f"{name}.fine", fine_range(twin, out))
        coarse = self._quantize(above, f"{name}.coarse", coarse_range(twin, out))
        return self._emit("Add", [fine, coarse], f"{name}.joined")

    def _dequantize(self, codes: str, name: str, qparams: QuantParams) -> str:
        scale, zero, attrs = self._qparams(name, qparams)
        return self._emit("DequantizeLinear", [codes, scale, zero], f"{name}.dq", **attrs)

    def _parameter(self, node: Node, role: str) -> str:
        """Write a parameter as float: an initializer, dequantized if it is quantized."""
        key = node.params[role]
        value = self.graph.tensors[key]
        if key not in self.graph.qparams:
            return self._constant(key, value.astype(np.float32))
        qparams = self.graph.qparams[key]
        codes = self._constant(key, value.astype(qparams.dtype))
        if f"{key}.dq" in {n.output[0] for n in self.nodes[-4:]}:
            return f"{key}.dq"
        return self._dequantize(codes, key, qparams)
