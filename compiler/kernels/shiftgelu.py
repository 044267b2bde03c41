"""ShiftGELU: `numerics.shiftgelu` elementwise.

The plain form takes one int32 lane for each element. The 16-bit form (`Halves512`) needs
``|x - zero_point| <= 2**15`` and 8-bit outputs, the case of every model of this project:
rescaling to the tail's Q15 multiplies the negative magnitude ``-d`` by both halves of the
multiplier,

    m = mh * 2**16 + ml,   -2**15 < ml <= 2**15
    (d m + half) >> s  =  (d mh + (d ml >> 16) + 2**(s - 17)) >> (s - 16)      for s >= 17

so that every product is one of ``vpmaddwd`` (with -mh and -ml, which makes d = 2**15 exact), and
the saturating pack is the limit at 32767.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tvm import tirx

from compiler.kernels.arith import clamp
from compiler.kernels.builder import (
    Buffer,
    Expr,
    bind,
    build,
    cast,
    const,
    lanes_of,
    load,
    reinterpret,
    splat,
    store,
    view,
)
from compiler.kernels.dot import dot_for
from compiler.kernels.elementwise import for_flat, scalars
from compiler.kernels.fixed import Fixed, Halves512, Words, halves_for
from compiler.kernels.scaling import Rescale, rescale_constants
from compiler.kernels.types import CpuFeatures, KernelCall, TensorType, tensor_of
from numerics.arrays import IntArray
from numerics.shiftgelu import EXPONENT_COEFFICIENTS, TAIL_LIMIT, GeluParams

HALF_LIMIT = 2**15
OCTAVE_BITS = 11


def lower_shiftgelu(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.shiftgelu``: x, params."""
    p = GeluParams(*(int(v) for v in constants[1]))
    rescale = rescale_constants(p.in_multiplier, p.in_shift, TAIL_LIMIT)
    rest = np.array([p.x_zero_point, *p[3:]], np.int64)
    halves = halves_for(features)
    if halves is None or not _fits_halves(p, operands[0].dtype, out.dtype):
        halves = None
        pairs = np.zeros((3, 2), np.int64)
    else:
        pairs = _pair_constants(p)
    packed = (rescale, rest, pairs)
    inputs = (operands[0], *(tensor_of(c) for c in packed))
    kernel = _gelu_kernel(inputs, out, features, halves is not None)
    return KernelCall(kernel, (0, *packed))


def _fits_halves(p: GeluParams, x_dtype: str, out_dtype: str) -> bool:
    """Whether the 16-bit form computes the contract's bits."""
    info = np.iinfo(x_dtype)
    largest = max(info.max - p.x_zero_point, p.x_zero_point - info.min)
    positive = info.max - p.x_zero_point < HALF_LIMIT
    small = max(p.linear_multiplier, p.tail_multiplier) < HALF_LIMIT
    return (
        largest <= HALF_LIMIT
        and positive
        and small
        and p.in_shift >= 17
        and np.iinfo(out_dtype).bits == 8
    )


def _pair_constants(p: GeluParams) -> IntArray:
    """Multiplier pairs of the three vpmaddwd: (-mh, 0), (-ml, 0), (linear, -tail)."""
    high = (p.in_multiplier + HALF_LIMIT - 1) >> 16  # so that -low is an int16
    low = p.in_multiplier - (high << 16)
    return np.array([[-high, 0], [-low, 0], [p.linear_multiplier, -p.tail_multiplier]], np.int64)


@functools.cache
def _gelu_kernel(
    inputs: tuple[TensorType, ...], out: TensorType, features: CpuFeatures, use_halves: bool
) -> Any:
    x_type = inputs[0]
    halves = halves_for(features) if use_halves else None

    def body(x: Buffer, rescale: Buffer, params: Buffer, pairs: Buffer, result: Buffer) -> None:
        source, target = view(x, x_type.flat), view(result, out.flat)
        plain = _Plain(params, Rescale(rescale, dot_for(features).split))
        wide = _Wide(halves, params, pairs, rescale) if halves else None
        lanes = features.lanes if wide is None else 2 * features.lanes

        def emit(i: Expr, n: int) -> None:
            codes = load(source, i, lanes=n)
            store(target, wide(codes) if wide is not None and n == lanes else plain(codes), i)

        for_flat(x_type.size, lanes, emit)

    return build("shiftgelu", inputs, out, body)


class _Plain:
    """GELU of any codes in int32 lanes."""

    def __init__(self, params: Buffer, to_tail: Rescale) -> None:
        self.to_tail = to_tail
        scalar = scalars(params, 7)
        self.x_zero, self.linear, self.tail, self.shift, self.zero, self.low, self.high = scalar
        self.half = bind(1 << (self.shift - 1))

    def __call__(self, codes: Expr) -> Expr:
        lanes = lanes_of(codes)
        none = const(0, "int32", lanes)
        centred = bind(cast(codes, "int32") - splat(self.x_zero, lanes))
        v = self.to_tail(bind(tirx.max(centred, none - centred)))
        total = tirx.max(centred, none) * splat(self.linear, lanes)
        total = total - emit_tail(v, Words()) * splat(self.tail, lanes)
        rounded = (total + splat(self.half, lanes)) >> splat(self.shift, lanes)
        return clamp(rounded + splat(self.zero, lanes), self.low, self.high)


class _Wide:
    """GELU of 32 codes in 16-bit lanes (module docstring)."""

    def __init__(self, halves: Halves512, params: Buffer, pairs: Buffer, rescale: Buffer) -> None:
        self.halves = halves
        x_zero, _, _, shift, zero, low, high = scalars(params, 7)
        self.shift = shift
        self.half = bind(1 << (shift - 1))
        words = (bind(cast(v, "int16")) for v in (x_zero, zero, low, high))
        self.x_zero, self.zero, self.low, self.high = words
        self.pairs = [_pair(pairs, i) for i in range(3)]
        # The addend of `Rescale` is half << up; its shift is 32 - up or 32 + down.
        in_shift = bind(cast(32 - load(rescale, 3) + load(rescale, 4), "int32"))
        self.in_half = bind(1 << (in_shift - 17))
        self.in_shift = bind(in_shift - 16)

    def __call__(self, codes: Expr) -> Expr:
        q, lanes = self.halves, self.halves.lanes
        none = const(0, "int16", lanes)
        centred = bind(cast(codes, "int16") - splat(self.x_zero, lanes))
        below = bind(tirx.min(centred, none - centred))
        parts = q.unpack(below, none)
        v = q.pack(*(self._to_tail(part) for part in parts))
        sums = q.unpack(bind(tirx.max(centred, none)), emit_tail(v, q))
        rounded = q.pack(*(self._combine(part) for part in sums))
        return clamp(rounded + splat(self.zero, lanes), self.low, self.high)

    def _to_tail(self, pairs: Expr) -> Expr:
        product = self.halves.multiply_pairs(pairs, self.pairs[0])
        rest = self.halves.multiply_pairs(pairs, self.pairs[1]) >> const(16, "int32", 16)
        return bind((product + rest + splat(self.in_half, 16)) >> splat(self.in_shift, 16))

    def _combine(self, pairs: Expr) -> Expr:
        total = self.halves.multiply_pairs(pairs, self.pairs[2]) + splat(self.half, 16)
        return bind(total >> splat(self.shift, 16))


def _pair(pairs: Buffer, index: int) -> Expr:
    """Two multipliers as int16 words, in every int32 lane."""
    low, high = (cast(load(pairs, index, i), "int32") for i in range(2))
    return bind(reinterpret(splat(bind((low & 0xFFFF) | (high << 16)), 16), "int16x32"))


def emit_tail(v: Expr, q: Fixed) -> Expr:
    """`numerics.shiftgelu.shiftgelu_tail`."""
    g = q.horner(EXPONENT_COEFFICIENTS, v)
    n = bind(g >> q.const(OCTAVE_BITS, g))
    fraction = (g & q.const((1 << OCTAVE_BITS) - 1, g)) << q.const(15 - OCTAVE_BITS, g)
    return q.mulhrs(v, q.rounding_shift(q.exp2_fraction(bind(fraction)), n))
