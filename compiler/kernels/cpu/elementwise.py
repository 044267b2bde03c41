"""Elementwise kernels: residual addition and requantization.

Tensors are walked flat in vectors of int32 lanes. `add` is int32 throughout (its multipliers are
made for that); `requantize` multiplies in 64 bits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitq.compiler.kernels.cpu.arith import clamp
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    bind,
    cast,
    for_chunks,
    lanes_of,
    load,
    parallel,
    reinterpret,
    splat,
    store,
    view,
)
from vitq.compiler.kernels.cpu.fixed import Halves, Longs
from vitq.compiler.kernels.cpu.halves import halves_for
from vitq.compiler.kernels.forms.dyadic import rescaled
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.add import AddParams
from vitq.numerics.arrays import IntArray
from vitq.numerics.dyadic import Dyadic, addend
from vitq.numerics.errors import VitqError

HALF_LIMIT = 2**15
Interval = tuple[int, int]
ROW = 4096
"""Elements of one parallel iteration of a flat walk."""


def scalars(params: Buffer, count: int, dtype: str = "int32") -> list[Expr]:
    """Read the first `count` int64 parameters as scalars of `dtype`."""
    return [bind(cast(load(params, i), dtype)) for i in range(count)]


def for_flat(size: int, lanes: int, body: Any) -> None:
    """Walk a flat tensor in parallel blocks of vectors."""
    whole = size // ROW
    if whole:
        with parallel(whole) as block:
            for_chunks(ROW, lanes, body, block * ROW)
    for_chunks(size - whole * ROW, lanes, body, whole * ROW)


def lower_add(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.add``: a + b with b broadcastable to a."""
    infos = [np.iinfo(operand.dtype) for operand in operands[:2]]
    codes = [(int(info.min), int(info.max)) for info in infos]
    p = AddParams(*(int(v) for v in constants[2]))
    halves = halves_for(features) is not None and add_fits_halves(p, codes[0], codes[1], out.dtype)
    return KernelCall(Kernel(ADD, tuple(operands), out, features, halves), (0, 1, 2))


def add_fits_halves(p: AddParams, a: Interval, b: Interval, out_dtype: str) -> bool:
    """Whether `AddHalves` computes the contract's bits for codes within `a` and `b`."""
    half = 1 << (p.shift - 1)
    constant = half + (abs(p.zero_point) << p.shift)
    constant += abs(p.a_zero_point * p.a_multiplier) + abs(p.b_zero_point * p.b_multiplier)
    products = HALF_LIMIT * (abs(p.a_multiplier) + abs(p.b_multiplier))
    return (
        min(a[0], b[0], p.qmin) >= -HALF_LIMIT
        and max(a[1], b[1], p.qmax) < HALF_LIMIT
        and max(abs(p.a_multiplier), abs(p.b_multiplier)) < HALF_LIMIT
        and products + constant < 2**31
        and out_dtype in ("int8", "uint8", "int16")
    )


class AddWords:
    """The sum of codes in int32 lanes: takes and returns registers."""

    def __init__(self, params: Buffer) -> None:
        """Read AddParams."""
        za, zb, self.ma, self.mb, self.shift, self.zero, self.low, self.high = scalars(params, 8)
        self.constant = bind((1 << (self.shift - 1)) - za * self.ma - zb * self.mb)

    def __call__(self, a: Expr, b: Expr) -> Expr:
        """Codes of any integer type to int32."""
        lanes = lanes_of(a)
        total = cast(a, "int32") * splat(self.ma, lanes) + cast(b, "int32") * splat(self.mb, lanes)
        rounded = (total + splat(self.constant, lanes)) >> splat(self.shift, lanes)
        return clamp(rounded + splat(self.zero, lanes), self.low, self.high)


class AddHalves:
    """The sum of registers of 16-bit codes: both products are one ``vpmaddwd``."""

    def __init__(self, params: Buffer, halves: Halves) -> None:
        """Read AddParams."""
        self.halves, self.lanes = halves, halves.lanes // 2
        za, zb, ma, mb, self.shift, zero, low, high = scalars(params, 8)
        self.constant = bind((1 << (self.shift - 1)) - za * ma - zb * mb + (zero << self.shift))
        self.low, self.high = (bind(cast(v, "int16")) for v in (low, high))
        both = splat(bind((ma & 0xFFFF) | (mb << 16)), self.lanes)
        self.multipliers = bind(reinterpret(both, f"int16x{halves.lanes}"))

    def __call__(self, a: Expr, b: Expr) -> Expr:
        """int16 to int16."""
        sums = (self._round(pairs) for pairs in self.halves.unpack(a, b))
        return clamp(self.halves.pack(*sums), self.low, self.high)

    def _round(self, pairs: Expr) -> Expr:
        total = self.halves.multiply_pairs(pairs, self.multipliers)
        return bind((total + splat(self.constant, self.lanes)) >> splat(self.shift, self.lanes))


def _period(a: TensorType, b: TensorType) -> int:
    """How many trailing elements of `a` all of `b` covers, repeated over the rest."""
    shape = b.shape
    while shape and shape[0] == 1:
        shape = shape[1:]
    if shape != a.shape[len(a.shape) - len(shape) :]:
        raise VitqError(
            f"vitq.add: {b.shape} must equal the trailing axes of {a.shape}; broadcast it before"
        )
    return b.size


def _add_body(
    kernel: Kernel, schedule: Schedule, a: Buffer, b: Buffer, params: Buffer, result: Buffer
) -> None:
    a_type, b_type, _ = kernel.inputs
    period = _period(a_type, b_type)
    repeats = a_type.size // period

    x, y = view(a, a_type.flat), view(b, b_type.flat)
    target = view(result, kernel.out.flat)
    words = AddWords(params)
    halves = halves_for(kernel.features) if kernel.spec else None
    wide = AddHalves(params, halves) if halves else None
    lanes = halves.lanes if halves else kernel.features.lanes

    def emit(i: Expr, j: Expr, n: int) -> None:
        left, right = load(x, i, lanes=n), load(y, j, lanes=n)
        if wide is not None and n == lanes:
            store(target, wide(bind(cast(left, "int16")), bind(cast(right, "int16"))), i)
        else:
            store(target, words(left, right), i)

    if repeats == 1:
        for_flat(a_type.size, lanes, lambda i, n: emit(i, i, n))
        return
    with parallel(repeats) as r:
        for_chunks(period, lanes, lambda i, n: emit(r * period + i, i, n))


ADD = Template("add", _add_body)


def lower_requantize(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.requantize``: per tensor or per channel of the last axis."""
    multiplier, shift, params = (constants[i] for i in (1, 2, 3))
    dyadic = Dyadic(multiplier.astype(np.int64), shift.astype(np.int64))
    x_zero, zero, low, high = (int(v) for v in params)
    add = addend(np.full(multiplier.shape, -x_zero, np.int64), dyadic, zero)
    packed = (
        dyadic.multiplier,
        add,
        dyadic.shift,
        np.array([low, high], np.int64),
    )
    inputs = (operands[0], *(tensor_of(c) for c in packed))
    return KernelCall(Kernel(REQUANTIZE, inputs, out, features), (0, *packed))


def _requantize_body(
    kernel: Kernel,
    schedule: Schedule,
    x: Buffer,
    multiplier: Buffer,
    add: Buffer,
    shift: Buffer,
    bounds: Buffer,
    result: Buffer,
) -> None:
    x_type = kernel.inputs[0]
    channels = kernel.inputs[1].size

    period = x_type.shape[-1] if channels > 1 else x_type.size
    rows = x_type.size // period
    source, target = view(x, x_type.flat), view(result, kernel.out.flat)
    low, high = load(bounds, 0), load(bounds, 1)

    def emit(r: Expr, i: Expr, lanes: int) -> None:
        at = r * period + i
        m, b, s = (
            load(c, i, lanes=lanes) if channels > 1 else splat(load(c, 0), lanes)
            for c in (multiplier, add, shift)
        )
        code = cast(load(source, at, lanes=lanes), "int64")
        store(target, clamp(rescaled(Longs(), code, m, b, s), low, high), at)

    if rows == 1:
        for_flat(period, kernel.features.lanes, lambda i, n: emit(0, i, n))
        return
    with parallel(rows) as r:
        for_chunks(period, kernel.features.lanes, lambda i, n: emit(r, i, n))


REQUANTIZE = Template("requantize", _requantize_body)
