"""Product of two tensors: `numerics.multiply` in int32 lanes, its rescaling in int64 ones."""

from collections.abc import Mapping, Sequence

from vitq.compiler.kernels.cpu.arith import clamp
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
from vitq.compiler.kernels.cpu.elementwise import scalars
from vitq.compiler.kernels.cpu.fixed import Longs
from vitq.compiler.kernels.forms.dyadic import rescaled
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.multiply import MultiplyParams


def lower_multiply(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.multiply``: a * b, broadcastable to each other."""
    return KernelCall(Kernel(MULTIPLY, tuple(operands), out, features), (0, 1, 2))


class Product:
    """The rescaled product of numbers: takes and returns registers."""

    def __init__(self, params: Buffer) -> None:
        """Read MultiplyParams."""
        self.zeros = scalars(params, 2)
        wide = [load(params, i) for i in range(2, len(MultiplyParams._fields))]
        self.multiplier, self.shift, zero, self.low, self.high = wide
        half = const(1, "int64") << (self.shift - const(1, "int64"))
        self.addend = bind(half + (zero << self.shift))

    def __call__(self, a: Expr, b: Expr, lanes: int) -> Expr:
        """Numbers in int32 lanes, zero points subtracted, to codes in int64 lanes."""
        constants = (splat(x, lanes) for x in (self.multiplier, self.addend, self.shift))
        product = cast(bind(a * b), "int64")
        return clamp(rescaled(Longs(), product, *constants), self.low, self.high)


def _multiply_body(
    kernel: Kernel, schedule: Schedule, a: Buffer, b: Buffer, params: Buffer, result: Buffer
) -> None:
    types = kernel.inputs[:2]
    path = walk(kernel.out.shape, [tensor.shape for tensor in types], kernel.features.lanes)
    sources = [view(x, tensor.flat) for x, tensor in zip((a, b), types, strict=True)]
    target, product = view(result, kernel.out.flat), Product(params)

    def centred(operand: int, at: Expr, lanes: int) -> Expr:
        own = lanes if path.along[operand] else 1
        code = cast(load(sources[operand], at, lanes=own), "int32")
        return splat(bind(code - splat(product.zeros[operand], own)), lanes // own)

    def emit(at: Expr, starts: list[Expr], lanes: int) -> None:
        left, right = (centred(k, start, lanes) for k, start in enumerate(starts))
        store(target, product(left, right, lanes), at)

    path.emit(emit)


MULTIPLY = Template("multiply", _multiply_body)
