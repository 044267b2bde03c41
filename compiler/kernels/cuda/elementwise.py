"""One thread for an element: sum, product, requantization, look-up, GELU, mean over tokens."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.broadcasting import broadcast_index
from vitq.compiler.kernels.cuda.arith import Add, Gelu, is_twin, order, rescaled
from vitq.compiler.kernels.cuda.emit import (
    WORD_BYTES,
    Buffer,
    Expr,
    as_word,
    ceil_div,
    clamp,
    const,
    flat,
    get,
    index,
    keep,
    launch,
    put,
    registers,
    serial,
    when,
    wide,
)
from vitq.compiler.kernels.cuda.kernel import call_of
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.table import by_pattern
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import GpuFeatures
from vitq.numerics.argmax import MOST_CLASSES
from vitq.numerics.arrays import IntArray
from vitq.numerics.table import TableParams
from vitq.relay_passes.dialect import names

THREADS = 256


@contextmanager
def each_element(size: int) -> Iterator[Expr]:
    """Code for one element of a flat tensor."""
    with launch((ceil_div(size, THREADS),), THREADS) as block:
        at = index(block.x * THREADS + block.thread)
        with when(True if size % THREADS == 0 else at < size):
            yield at


def _as_word(buffer: Buffer, at: Expr) -> Expr:
    """Load an element of a flat tensor as int32."""
    return as_word(flat(buffer)[at])


def lower_add(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.add``: a + b with b broadcastable to a."""
    return call_of(ADD, operands, (0, 1, constants[2].astype(np.int32)), out, features)


def _add_body(
    kernel: Kernel, schedule: Schedule, a: Buffer, b: Buffer, params: Buffer, out: Buffer
) -> None:
    other = broadcast_index(names.ADD, kernel.inputs[0].shape, kernel.inputs[1].shape)
    with each_element(kernel.out.size) as at:
        put(flat(out), at, Add(params)(_as_word(a, at), _as_word(b, index(other(at)))))


def lower_offset(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.offset``: x + offset with offset broadcastable to x."""
    return call_of(OFFSET, operands, (0, 1), out, features)


def _offset_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, offset: Buffer, out: Buffer
) -> None:
    other = broadcast_index(names.OFFSET, kernel.inputs[0].shape, kernel.inputs[1].shape)
    with each_element(kernel.out.size) as at:
        put(flat(out), at, _as_word(x, at) + _as_word(offset, index(other(at))))


def lower_multiply(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.multiply``: a * b, broadcastable to each other."""
    return call_of(MULTIPLY, operands, (0, 1, constants[2].astype(np.int64)), out, features)


def lower_multiply_add(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.multiply_add``: a * b + c * d, broadcastable to each other."""
    order = (0, 1, 2, 3, constants[4].astype(np.int64))
    return call_of(MULTIPLY_ADD, operands, order, out, features)


def _multiply_body(kernel: Kernel, schedule: Schedule, *buffers: Buffer) -> None:
    *factors, params, out = buffers
    count = len(factors)
    places = [
        broadcast_index(names.MULTIPLY, kernel.out.shape, x.shape) for x in kernel.inputs[:count]
    ]
    with each_element(kernel.out.size) as at:
        zeros = [get(params, i) for i in range(count)]
        m, s, zero, low, high = (get(params, count + i) for i in range(5))
        numbers = [
            keep(_as_word(x, index(place(at))) - as_word(z))
            for x, place, z in zip(factors, places, zeros, strict=True)
        ]
        total = keep(numbers[0] * numbers[1])
        if count > 2:
            total = keep(total + numbers[2] * numbers[3])
        half = keep(const(1, "int64") << (s - const(1, "int64")))
        put(flat(out), at, clamp(rescaled(keep(wide(total)), m, half, s) + zero, low, high))


def lower_requantize(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.requantize``: x (..., C), multiplier, shift (C,) or (1,), params."""
    return call_of(REQUANTIZE, operands, (0, 1, 2, constants[3].astype(np.int64)), out, features)


def _requantize_body(
    kernel: Kernel,
    schedule: Schedule,
    x: Buffer,
    multiplier: Buffer,
    shift: Buffer,
    params: Buffer,
    out: Buffer,
) -> None:
    channels = kernel.inputs[1].size
    with each_element(kernel.out.size) as at:
        x_zero, zero, low, high = (get(params, i) for i in range(4))
        channel = index(at % channels)
        m, s = (wide(get(flat(b), channel)) for b in (multiplier, shift))
        half = keep(const(1, "int64") << (s - const(1, "int64")))
        value = keep(wide(_as_word(x, at)) - x_zero)
        put(flat(out), at, clamp(rescaled(value, m, half, s) + zero, low, high))


def lower_lut(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.lut``: x, table (C, n) or (1, n), params."""
    p = TableParams(*(int(value) for value in constants[2]))
    table = by_pattern(constants[1], p.low)
    inside = prod(operands[0].shape[p.axis + 1 :]) if len(table) > 1 else operands[0].size
    return call_of(LUT, operands, (0, table), out, features, inside)


def _lut_body(kernel: Kernel, schedule: Schedule, x: Buffer, table: Buffer, out: Buffer) -> None:
    """`kernel.spec`: how many neighbouring elements share a table."""
    channels, entries = kernel.inputs[1].shape
    with each_element(kernel.out.size) as at:
        start = at // kernel.spec % channels * entries if channels > 1 else const(0)
        put(flat(out), at, flat(table)[index(start + (_as_word(x, at) & const(entries - 1)))])


def lower_gather_rows(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.gather_rows``: x (B, R, C), rows (M,), params -> (B, M, C)."""
    fill = constants[2].astype(np.int32)
    is_whole = bool(constants[1].min() >= 0)
    return call_of(GATHER_ROWS, operands, (0, 1, fill), out, features, is_whole)


def _gather_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, table: Buffer, fill: Buffer, out: Buffer
) -> None:
    """Copy words where rows are made of them."""
    _, rows, channels = kernel.inputs[0].shape
    _, moved, _ = kernel.out.shape
    each = WORD_BYTES // np.dtype(kernel.out.dtype).itemsize
    words = kernel.spec and channels % each == 0
    dtype, columns = ("int32", channels // each) if words else (kernel.out.dtype, channels)
    with each_element(kernel.out.size * columns // channels) as at:
        source, target = flat(x, dtype), flat(out, dtype)
        row = index(at // columns)
        place = flat(table)[row % moved]
        first = index((tirx.max(place, 0) + row // moved * rows) * columns)
        value = source[index(first + at % columns)]
        if not kernel.spec:
            value = order(place >= 0, as_word(value), get(fill, 0))
        put(target, at, value)


def lower_shiftgelu(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.shiftgelu``: x, params."""
    params = constants[1].astype(np.int32)
    return call_of(SHIFTGELU, operands, (0, params), out, features, is_twin(params))


def _gelu_body(kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, out: Buffer) -> None:
    with each_element(kernel.out.size) as at:
        put(flat(out), at, Gelu(params, kernel.spec)(_as_word(x, at)))


def lower_mean(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.mean``: x (B, L, C), params -> (B, C)."""
    return call_of(MEAN, operands, (0, constants[1].astype(np.int64)), out, features)


def _mean_body(kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, out: Buffer) -> None:
    _, tokens, channels = kernel.inputs[0].shape
    with each_element(kernel.out.size) as at:
        m, s, x_zero, zero, low, high = (get(params, i) for i in range(6))
        base = index(at // channels * (tokens * channels) + at % channels)
        total = registers(1)
        put(total, 0, const(0))
        with serial(tokens) as token:
            put(total, 0, total[0] + _as_word(x, base + token * channels))
        centred = keep(wide(total[0]) - x_zero * const(tokens, "int64"))
        half = keep(const(1, "int64") << (s - const(1, "int64")))
        put(flat(out), at, clamp(rescaled(centred, m, half, s) + zero, low, high))


def lower_argmax(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.argmax``: x (B, C, M) -> (B, M)."""
    # As data: TVM takes a kernel of one input for a reshape, and fails.
    return call_of(ARGMAX, operands, (0, np.array([MOST_CLASSES - 1], np.int64)), out, features)


def _argmax_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, out: Buffer
) -> None:
    """One maximum of keys (`numerics.argmax`)."""
    _, classes, places = kernel.inputs[0].shape
    with each_element(kernel.out.size) as at:
        last = keep(as_word(get(params, 0)))
        base = index(at // places * (classes * places) + at % places)
        best = registers(1)
        put(best, 0, const(-(2**31)))
        with serial(classes) as c:
            key = _as_word(x, base + c * places) * const(MOST_CLASSES) + (last - c)
            put(best, 0, tirx.max(best[0], key))
        put(flat(out), at, last - (best[0] & last))


ADD = Template("add", _add_body)
ARGMAX = Template("argmax", _argmax_body)
MULTIPLY = Template("multiply", _multiply_body)
MULTIPLY_ADD = Template("multiply_add", _multiply_body)
OFFSET = Template("offset", _offset_body)
REQUANTIZE = Template("requantize", _requantize_body)
LUT = Template("lut", _lut_body)
SHIFTGELU = Template("shiftgelu", _gelu_body)
MEAN = Template("mean", _mean_body)
GATHER_ROWS = Template("gather_rows", _gather_body)
