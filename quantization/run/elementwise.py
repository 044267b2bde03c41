"""The integer reference of functions, products and RMS normalization."""

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.dyadic import requantize, to_dyadic
from vitq.numerics.errors import VitqError
from vitq.numerics.int_rmsnorm import int_rmsnorm, rmsnorm_params
from vitq.numerics.matmul import product_scale
from vitq.numerics.multiply import centred_product
from vitq.numerics.pointwise import Source, clamp_bounds, pointwise_table
from vitq.numerics.qparams import QuantParams
from vitq.numerics.requantize import int_requantize, requantize_factor, requantize_params
from vitq.numerics.table import TableParams, int_lut
from vitq.quantization.graph.clamps import ends_of
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.run.int_tensor import IntTensor


def multiply(graph: Graph, node: Node, inputs: list[IntTensor]) -> IntTensor:
    """Product of two tensors, exact: an accumulator that its quantizer, or a sum's, rounds."""
    a, b = inputs
    product = centred_product(a.codes, b.codes, a.zero_point, b.zero_point)
    return IntTensor(product, product_scale(a.one_scale, b.one_scale))


def sum_of_products(inputs: list[IntTensor], out: QuantParams) -> IntArray:
    """Sum of two products (`numerics.multiply`)."""
    one, two = inputs
    if one.one_scale != two.one_scale:
        raise VitqError("two products of different steps are added")
    dyadic = to_dyadic(requantize_factor(one.one_scale, out))
    return requantize(one.codes + two.codes, dyadic, int(out.zero_point), out.qmin, out.qmax)


def rms_norm(graph: Graph, node: Node, inputs: list[IntTensor], out: QuantParams) -> IntArray:
    """RMS normalization (`numerics.int_rmsnorm`) of codes around their zero point."""
    x = inputs[0]
    p = rmsnorm_params(x.one_scale, node.attrs["eps"], graph.real(node, "gamma"), out)
    return int_rmsnorm(x.codes - x.zero_point, p)


def pointwise(graph: Graph, node: Node, inputs: list[IntTensor], out: QuantParams) -> IntArray:
    """Compute a function of each code (`numerics.pointwise`): a clamp or a table."""
    x, ends = inputs[0], ends_of(node)
    if ends is not None:
        params = requantize_params(distinct(x.scale), x.zero_point, out)
        return np.clip(int_requantize(x.codes, params), *clamp_bounds(ends, out))
    read = _quantizer(graph, node)
    source = Source(x.one_scale, x.zero_point, read.qmin, read.qmax, 8 * read.dtype.itemsize)
    table = pointwise_table(node.attrs["function"], source, out, node.attrs.get("parameter"))
    return int_lut(x.codes, table[None], TableParams(0, read.qmin))


def _quantizer(graph: Graph, node: Node) -> QuantParams:
    """Return the parameters of the codes that a node reads."""
    source = graph.operand(node)
    while source.out is None:
        if source.op not in LAYOUT_OPS and source.op is not OpKind.SCALE:
            raise VitqError(f"{node.name} reads {source.name}, which has no quantizer")
        source = graph.operand(source)
    return source.out


def distinct(scale: FloatArray) -> FloatArray:
    """One index of each axis along which a broadcast array repeats itself (stride 0)."""
    return scale[tuple(slice(0, 1) if step == 0 else slice(None) for step in scale.strides)]
