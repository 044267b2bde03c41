"""Products of tensors and sums of two: `numerics.multiply` in int32 lanes, rescaled in int64 ones.

Where the shift is 32 or more, as in nearly all products (16-bit codes reach 2**30, and 8-bit ones a
quarter of an output's step), the upper word of the 64-bit sum is enough:

    (p m + addend) >> shift  =  high(p m + addend) >> (shift - 32)

so that all but the multiplication stays in int32 lanes.
"""

from collections.abc import Mapping, Sequence

from vitq.compiler.kernels.cpu.arith import clamp, multiply_add, wide_factor, wide_splat
from vitq.compiler.kernels.cpu.broadcast import walk
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    bind,
    cast,
    const,
    load,
    splat,
    store,
    view,
)
from vitq.compiler.kernels.cpu.dots import dot_for
from vitq.compiler.kernels.cpu.elementwise import scalars
from vitq.compiler.kernels.cpu.fixed import Longs
from vitq.compiler.kernels.forms.dyadic import rescaled
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.multiply import MultiplyAddParams, MultiplyParams

WORD = 32
RESCALING = 5
"""Multiplier, shift, zero point and bounds."""


def lower_multiply(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.multiply``: a * b, broadcastable to each other."""
    return _lowered(
        MULTIPLY, MultiplyParams(*map(int, constants[2])).shift, operands, out, features
    )


def lower_multiply_add(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.multiply_add``: a * b + c * d, broadcastable to each other."""
    shift = MultiplyAddParams(*map(int, constants[4])).shift
    return _lowered(MULTIPLY_ADD, shift, operands, out, features)


def _lowered(
    template: Template,
    shift: int,
    operands: Sequence[TensorType],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    kernel = Kernel(template, tuple(operands), out, features, shift >= WORD)
    return KernelCall(kernel, tuple(range(len(operands))))


class Rescale:
    """Brings sums of products to codes: takes and returns registers.

    Args:
        params: zero points of the factors, then those of the result's rescaling.
        factors: how many.
        features: of the processor.
        is_high: the shift is 32 or more.
    """

    def __init__(self, params: Buffer, factors: int, features: CpuFeatures, is_high: bool) -> None:
        self.zeros = scalars(params, factors)
        wide = [load(params, i) for i in range(factors, factors + RESCALING)]
        self.multiplier, self.shift, zero, self.low, self.high = wide
        half = const(1, "int64") << (self.shift - const(1, "int64"))
        self.addend = bind(half + (zero << self.shift))
        self.split, self.is_high = dot_for(features).split, is_high
        if is_high:
            words = (self.shift - const(WORD, "int64"), self.low, self.high)
            self.shift, self.low, self.high = (bind(cast(x, "int32")) for x in words)

    def __call__(self, product: Expr, lanes: int) -> Expr:
        """Numbers in int32 lanes to codes."""
        if self.is_high:
            factor = wide_factor(self.multiplier, lanes, self.split)
            addend = wide_splat(self.addend, lanes, self.split)
            high = multiply_add(product, factor, addend, self.split).high()
            return clamp(bind(high >> splat(self.shift, lanes)), self.low, self.high)
        constants = (splat(x, lanes) for x in (self.multiplier, self.addend, self.shift))
        return clamp(rescaled(Longs(), cast(product, "int64"), *constants), self.low, self.high)


def _body(kernel: Kernel, schedule: Schedule, *buffers: Buffer) -> None:
    *factors, params, result = buffers
    types = kernel.inputs[: len(factors)]
    path = walk(kernel.out.shape, [tensor.shape for tensor in types], kernel.features.lanes)
    sources = [view(x, tensor.flat) for x, tensor in zip(factors, types, strict=True)]
    target = view(result, kernel.out.flat)
    rescale = Rescale(params, len(factors), kernel.features, kernel.spec)

    def centred(operand: int, at: Expr, lanes: int) -> Expr:
        own = lanes if path.along[operand] else 1
        code = cast(load(sources[operand], at, lanes=own), "int32")
        return splat(bind(code - splat(rescale.zeros[operand], own)), lanes // own)

    def emit(at: Expr, starts: list[Expr], lanes: int) -> None:
        numbers = [centred(k, start, lanes) for k, start in enumerate(starts)]
        total = numbers[0] * numbers[1]
        if len(numbers) > 2:
            total = bind(total) + numbers[2] * numbers[3]
        store(target, rescale(bind(total), lanes), at)

    path.emit(emit)


MULTIPLY = Template("multiply", _body)
MULTIPLY_ADD = Template("multiply_add", _body)
