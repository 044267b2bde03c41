"""ShiftGELU: `numerics.shiftgelu` elementwise.

The plain form takes one int32 lane for each element. The 16-bit form (`Halves`) needs
``|x - zero_point| <= 2**15`` and 8-bit outputs, the case of every model of this project:
rescaling to the tail's Q15 multiplies the negative magnitude ``-d`` by both halves of the
multiplier,

    m = mh * 2**16 + ml,   -2**15 < ml <= 2**15
    (d m + half) >> s  =  (d mh + (d ml >> 16) + 2**(s - 17)) >> (s - 16)      for s >= 17

so that every product is one of ``vpmaddwd`` (with -mh and -ml, which makes d = 2**15 exact), and
the saturating pack is the limit at 32767.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import tirx

from compiler.kernels.arith import clamp
from compiler.kernels.builder import (
    Buffer,
    Expr,
    bind,
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
from compiler.kernels.fixed import Fixed, Halves, Words, halves_for
from compiler.kernels.scaling import Rescale, rescale_constants
from compiler.kernels.types import (
    CpuFeatures,
    Kernel,
    KernelCall,
    Schedule,
    Template,
    TensorType,
    tensor_of,
)
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
    info = np.iinfo(operands[0].dtype)
    codes = int(info.min), int(info.max)
    halves, packed = gelu_constants(constants[1], codes, out.dtype, features)
    inputs = (operands[0], *(tensor_of(c) for c in packed))
    return KernelCall(Kernel(SHIFTGELU, inputs, out, features, halves), (0, *packed))


def gelu_constants(
    params: IntArray, codes: tuple[int, int], out_dtype: str, features: CpuFeatures
) -> tuple[bool, tuple[IntArray, ...]]:
    """What `GeluWords` and `GeluHalves` read.

    Args:
        params: GeluParams.
        codes: the smallest and the largest one.
        out_dtype: of the result.
        features: of the processor.

    Returns:
        Whether the 16-bit form computes the contract's bits, and three int64 tensors: rescaling,
        scalars, multiplier pairs.
    """
    p = GeluParams(*(int(v) for v in params))
    rescale = rescale_constants(p.in_multiplier, p.in_shift, TAIL_LIMIT)
    rest = np.array([p.x_zero_point, *p[3:]], np.int64)
    halves = halves_for(features) is not None and _fits_halves(p, codes, out_dtype)
    pairs = _pair_constants(p) if halves else np.zeros((3, 2), np.int64)
    return halves, (rescale, rest, pairs)


def _fits_halves(p: GeluParams, codes: tuple[int, int], out_dtype: str) -> bool:
    """Whether the 16-bit form computes the contract's bits."""
    low, high = codes
    largest = max(high - p.x_zero_point, p.x_zero_point - low)
    positive = high - p.x_zero_point < HALF_LIMIT
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


def _gelu_body(
    kernel: Kernel,
    schedule: Schedule,
    x: Buffer,
    rescale: Buffer,
    params: Buffer,
    pairs: Buffer,
    result: Buffer,
) -> None:
    x_type = kernel.inputs[0]
    halves = halves_for(kernel.features) if kernel.spec else None

    source, target = view(x, x_type.flat), view(result, kernel.out.flat)
    constants = (rescale, params, pairs)
    plain = GeluWords(constants, dot_for(kernel.features).split)
    wide = GeluHalves(constants, halves) if halves else None
    lanes = kernel.features.lanes if wide is None else 2 * kernel.features.lanes

    def emit(i: Expr, n: int) -> None:
        codes = load(source, i, lanes=n)
        store(target, wide(codes) if wide is not None and n == lanes else plain(codes), i)

    for_flat(x_type.size, lanes, emit)


SHIFTGELU = Template("shiftgelu", _gelu_body)


class GeluWords:
    """GELU of any codes in int32 lanes: takes and returns registers."""

    def __init__(self, constants: tuple[Buffer, Buffer, Buffer], split: bool) -> None:
        """Read the tensors of `gelu_constants`; `split`: see `compiler.kernels.arith`."""
        rescale, params, _ = constants
        self.to_tail = Rescale(rescale, split)
        scalar = scalars(params, 7)
        self.x_zero, self.linear, self.tail, self.shift, self.zero, self.low, self.high = scalar
        self.half = bind(1 << (self.shift - 1))

    def __call__(self, codes: Expr) -> Expr:
        """Codes of any integer type to int32."""
        lanes = lanes_of(codes)
        none = const(0, "int32", lanes)
        centred = bind(cast(codes, "int32") - splat(self.x_zero, lanes))
        v = self.to_tail(bind(tirx.max(centred, none - centred)))
        total = tirx.max(centred, none) * splat(self.linear, lanes)
        total = total - emit_tail(v, Words()) * splat(self.tail, lanes)
        rounded = (total + splat(self.half, lanes)) >> splat(self.shift, lanes)
        return clamp(rounded + splat(self.zero, lanes), self.low, self.high)


class GeluHalves:
    """GELU of a register of codes in 16-bit lanes (module docstring)."""

    def __init__(self, constants: tuple[Buffer, Buffer, Buffer], halves: Halves) -> None:
        """Read the tensors of `gelu_constants`."""
        rescale, params, pairs = constants
        self.halves, self.lanes = halves, halves.lanes // 2
        x_zero, _, _, shift, zero, low, high = scalars(params, 7)
        self.shift = shift
        self.half = bind(1 << (shift - 1))
        words = (bind(cast(v, "int16")) for v in (x_zero, zero, low, high))
        self.x_zero, self.zero, self.low, self.high = words
        self.pairs = [_pair(pairs, i, self.lanes) for i in range(3)]
        # The addend of `Rescale` is half << up; its shift is 32 - up or 32 + down.
        in_shift = bind(cast(32 - load(rescale, 3) + load(rescale, 4), "int32"))
        self.in_half = bind(1 << (in_shift - 17))
        self.in_shift = bind(in_shift - 16)

    def __call__(self, codes: Expr) -> Expr:
        """Codes that fit into int16, in any order of lanes, to int16."""
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
        rest = self.halves.multiply_pairs(pairs, self.pairs[1]) >> const(16, "int32", self.lanes)
        total = product + rest + splat(self.in_half, self.lanes)
        return bind(total >> splat(self.in_shift, self.lanes))

    def _combine(self, pairs: Expr) -> Expr:
        total = self.halves.multiply_pairs(pairs, self.pairs[2])
        return bind((total + splat(self.half, self.lanes)) >> splat(self.shift, self.lanes))


def _pair(pairs: Buffer, index: int, lanes: int) -> Expr:
    """Two multipliers as int16 words, in every int32 lane."""
    low, high = (cast(load(pairs, index, i), "int32") for i in range(2))
    words = splat(bind((low & 0xFFFF) | (high << 16)), lanes)
    return bind(reinterpret(words, f"int16x{2 * lanes}"))


def emit_tail(v: Expr, q: Fixed) -> Expr:
    """`numerics.shiftgelu.shiftgelu_tail`."""
    g = q.horner(EXPONENT_COEFFICIENTS, v)
    n = bind(g >> q.const(OCTAVE_BITS, g))
    fraction = (g & q.const((1 << OCTAVE_BITS) - 1, g)) << q.const(15 - OCTAVE_BITS, g)
    return q.mulhrs(v, q.rounding_shift(q.exp2_fraction(bind(fraction)), n))
