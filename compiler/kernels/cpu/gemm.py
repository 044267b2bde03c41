"""Linear layers and the patch embedding: int8 products with a fused requantization.

Weights are packed on the host: `Dot.pack`, and those of few bits `compiler.kernels.cpu.narrow`. One
template makes all of the family: what happens to the accumulators is
    `compiler.kernels.cpu.epilogue`'s
matter, and a residual addition or a GELU may follow in registers. One launch of the thread pool
does all: first each row is brought into the form that the dot product reads (patches of pixels are
gathered, rows that a table moves are read from where they are), then come the products.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from vitq.compiler.kernels.cpu.blocking import TileEpilogue, blocking, emit_blocked
from vitq.compiler.kernels.cpu.blocking import knobs as blocking_knobs
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    const,
    finished,
    for_chunks,
    lanes_of,
    load,
    parallel,
    region,
    serial,
    view,
)
from vitq.compiler.kernels.cpu.dot import Dot
from vitq.compiler.kernels.cpu.dots import dot_for, features_for_weights
from vitq.compiler.kernels.cpu.elementwise import add_fits_halves
from vitq.compiler.kernels.cpu.epilogue import AddStep, Finish, GeluStep, SecondStep
from vitq.compiler.kernels.cpu.halves import halves_for
from vitq.compiler.kernels.cpu.microkernel import Product, needs_staging
from vitq.compiler.kernels.cpu.narrow import Narrow, narrow_for
from vitq.compiler.kernels.cpu.requantizing import Requantize, RequantizeSpec, pack_requantize
from vitq.compiler.kernels.cpu.shiftgelu import GeluSpec, gelu_spec
from vitq.compiler.kernels.gathering import gathered
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Knob, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.add import AddParams
from vitq.numerics.arrays import IntArray
from vitq.numerics.linear import GEMM_OPERANDS

GEMM_BUFFERS = 5
"""Packed weight, multiplier, addend, shift, bounds."""
HALF_LIMIT = 2**15
HALF_TYPES = ("int8", "uint8", "int16")


@dataclass(frozen=True)
class LinearSpec:
    """What the code depends on.

    Attributes:
        requantize: form of the first step.
        halves: whether codes are in 16-bit lanes until they are stored.
        patch: edge of a patch; 0 for a linear layer.
        narrow: how weights of few bits are packed.
        gelu: of the GELU that follows, if one does.
    """

    requantize: RequantizeSpec
    halves: bool
    patch: int = 0
    narrow: Narrow | None = None
    gelu: GeluSpec | None = None


def lower_linear(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.linear``: x (..., K), weight (N, K) -> (..., N)."""
    spec, packed = _prepare(operands[0], constants, out, features)
    return _call(LINEAR, operands, (0, *packed), out, features, spec)


def lower_linear_add(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.linear_add``: the codes of ``vitq.linear`` plus a residual (..., N)."""
    spec, packed = _prepare(operands[0], constants, out, features)
    params = constants[GEMM_OPERANDS + 1].astype(np.int64)
    info = np.iinfo(operands[GEMM_OPERANDS].dtype)
    limits = int(constants[6][0]), int(constants[6][1])
    residual = int(info.min), int(info.max)
    fits = add_fits_halves(AddParams(*(int(v) for v in params)), limits, residual, out.dtype)
    spec = replace(spec, halves=spec.halves and fits)
    order: tuple[int | IntArray, ...] = (0, *packed, GEMM_OPERANDS, params)
    return _call(LINEAR_ADD, operands, order, out, features, spec)


def lower_linear_gelu(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.linear_gelu``: GELU of the codes of ``vitq.linear``."""
    spec, packed = _prepare(operands[0], constants, out, features)
    limits = int(constants[6][0]), int(constants[6][1])
    params = constants[GEMM_OPERANDS].astype(np.int64)
    gelu = gelu_spec(params, limits, out.dtype, features)
    spec = replace(spec, halves=spec.halves and gelu.halves, gelu=gelu)
    return _call(LINEAR_GELU, operands, (0, *packed, params), out, features, spec)


def lower_patch_embed(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.patch_embed``: pixels (B, Cin, H, W), weight (N, Cin, P, P) -> (B, L, N)."""
    spec, packed = _prepare(operands[0], constants, out, features)
    spec = replace(spec, patch=operands[1].shape[-1])
    return _call(PATCH_EMBED, operands, (0, *packed), out, features, spec)


def lower_gather_linear(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.gather_linear``: x (B, R, K), rows (M,), then as ``vitq.linear`` -> (B, M, N)."""
    return gathered(GATHER_LINEAR, lower_linear, operands, constants, out, features)


def lower_gather_linear_add(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.gather_linear_add``: the codes of ``vitq.gather_linear`` plus a residual."""
    return gathered(GATHER_LINEAR_ADD, lower_linear_add, operands, constants, out, features)


def _prepare(
    x: TensorType, constants: Mapping[int, IntArray], out: TensorType, features: CpuFeatures
) -> tuple[LinearSpec, tuple[IntArray, ...]]:
    """Return the form of the first step, and what the kernel reads of `GEMM_BUFFERS`."""
    dot, halves = dot_for(features), halves_for(features)
    spec, packed = pack_requantize(constants, dot.offset(x.dtype), dot)
    low, high = constants[6]
    fits = halves is not None and halves.lanes == 2 * dot.lanes and out.dtype in HALF_TYPES
    fits = fits and int(low) >= -HALF_LIMIT and int(high) < HALF_LIMIT
    weight = constants[1].reshape(constants[1].shape[0], -1)
    dense, narrow = dot.pack(weight), narrow_for(weight)
    return LinearSpec(spec, fits, 0, narrow), (narrow.pack(dense) if narrow else dense, *packed)


def _call(
    template: Template,
    operands: Sequence[TensorType],
    order: tuple[int | IntArray, ...],
    out: TensorType,
    features: CpuFeatures,
    spec: LinearSpec,
) -> KernelCall:
    inputs = tuple(operands[o] if isinstance(o, int) else tensor_of(o) for o in order)
    if not isinstance(order[1], int):
        multiplied = spec.narrow.expanded(order[1]) if spec.narrow else order[1]
        features = features_for_weights(features, multiplied)
    return KernelCall(Kernel(template, inputs, out, features, spec), order)


def _shape(kernel: Kernel) -> tuple[int, int]:
    """Rows and inner dimension of the product."""
    x, patch = kernel.inputs[0], kernel.spec.patch
    if not patch:
        return kernel.out.rows.shape[0], x.rows.shape[1]
    batch, channels, height, width = x.shape
    return batch * (height // patch) * (width // patch), channels * patch * patch


def _knobs(kernel: Kernel) -> dict[str, Knob]:
    rows, groups = _shape(kernel)[0], kernel.inputs[1].shape[0]
    dot, halves = dot_for(kernel.features), halves_for(kernel.features)
    in_pairs = halves is not None and halves.for_group(dot.lanes).lanes > dot.lanes
    spec: LinearSpec = kernel.spec
    return blocking_knobs(dot, rows, groups, spec.halves and in_pairs, spec.narrow is not None)


def _body(kernel: Kernel, schedule: Schedule, x: Buffer, *rest: Buffer) -> None:
    dot = dot_for(kernel.features)
    rows, inner = _shape(kernel)
    dtype = kernel.inputs[0].dtype
    *constants, result = rest
    table = constants.pop() if kernel.template in GATHERING else None
    how = blocking(schedule, dot, rows, kernel.inputs[1].shape[0])
    target = view(result, kernel.out.rows)

    def multiply(left: Buffer) -> None:
        narrow = kernel.spec.narrow
        up = narrow.up if narrow else 0
        product = Product(dot, left, constants[0], dot.steps(inner), narrow=narrow, up=up)
        channels = kernel.out.shape[-1]
        emit_blocked(product, rows, channels, how, lambda: _finish(kernel, constants, target, dot))

    if not kernel.spec.patch and table is None and not needs_staging(dot, inner, dtype):
        multiply(view(x, kernel.inputs[0].rows))
        return
    staged = alloc(dot.rows_shape(rows, inner), dot.stored(dtype, weights=False))

    def stage(i: Expr) -> None:
        if kernel.spec.patch:
            _stage_line(kernel, x, staged, i)
        else:
            _stage_row(kernel, x, staged, i, i if table is None else _moved_row(kernel, table, i))

    across = kernel.inputs[0].shape[-1] // kernel.spec.patch if kernel.spec.patch else 1
    count = rows // across
    if count == 1 or prod(how.items(rows, kernel.inputs[1].shape[0])) == 1:
        with serial(count) as i:
            stage(i)
        multiply(staged)
        return
    with region():
        with finished(), parallel(count) as i:
            stage(i)
        multiply(staged)


def _finish(kernel: Kernel, constants: Sequence[Buffer], target: Buffer, dot: Dot) -> TileEpilogue:
    """Return what happens to a tile's accumulators."""
    spec: LinearSpec = kernel.spec
    halves = halves_for(kernel.features) if spec.halves else None
    halves = halves.for_group(dot.lanes) if halves else None
    first = Requantize(spec.requantize, dot, tuple(constants[1:GEMM_BUFFERS]))
    more = tuple(constants[GEMM_BUFFERS:])
    second: SecondStep
    if kernel.template in (LINEAR_ADD, GATHER_LINEAR_ADD):
        rows = TensorType(kernel.out.shape, kernel.inputs[GEMM_BUFFERS + 1].dtype).rows
        second = AddStep(view(more[0], rows), more[1], halves)
    elif spec.gelu is not None:
        second = GeluStep(more[0], spec.gelu, halves)
    else:
        second = SecondStep()
    return Finish(first, second, halves, target)


def _facts(kernel: Kernel) -> tuple[str, ...]:
    """Weights that are unpacked."""
    narrow = kernel.spec.narrow
    return (f"{narrow.bits}-bit weights",) if narrow else ()


LINEAR = Template("linear", _body, _knobs, _facts)
LINEAR_ADD = Template("linear_add", _body, _knobs, _facts)
LINEAR_GELU = Template("linear_gelu", _body, _knobs, _facts)
PATCH_EMBED = Template("patch_embed", _body, _knobs, _facts)
GATHER_LINEAR = Template("gather_linear", _body, _knobs, _facts)
GATHER_LINEAR_ADD = Template("gather_linear_add", _body, _knobs, _facts)
GATHERING = (GATHER_LINEAR, GATHER_LINEAR_ADD)


def _moved_row(kernel: Kernel, table: Buffer, row: Expr) -> Expr:
    """Return the row of the input that a row of the product is."""
    _, rows, _ = kernel.inputs[0].shape
    moved = kernel.inputs[-1].size
    return bind(row // moved * rows + load(table, row % moved))


def _stage_row(kernel: Kernel, x: Buffer, staged: Buffer, row: Expr, source: Expr) -> None:
    """One row of a linear layer's input."""
    flat = view(x, kernel.inputs[0].rows)
    inner, dot = kernel.inputs[0].shape[-1], dot_for(kernel.features)

    def copy(i: Expr, lanes: int) -> None:
        _store_staged(kernel, staged, load(flat, source, i, lanes=lanes), row, i)

    for_chunks(inner, min(4 * dot.lanes, inner), copy)
    _pad(kernel, staged, row)


def _stage_line(kernel: Kernel, x: Buffer, staged: Buffer, line: Expr) -> None:
    """One line of patches: each becomes a row, channels first; pixels are read as they lie."""
    patch = kernel.spec.patch
    _, channels, height, width = kernel.inputs[0].shape
    down, across = height // patch, width // patch
    image, top = bind(line // down), bind(line % down * patch)
    with serial(channels) as channel, serial(patch) as y, serial(across) as place:

        def copy(i: Expr, lanes: int) -> None:
            at = image, channel, top + y, place * patch + i
            column = (channel * patch + y) * patch + i
            value = load(x, *at, lanes=lanes)
            _store_staged(kernel, staged, value, line * across + place, column)

        for_chunks(patch, min(patch, 16), copy)
    with serial(across) as place:
        _pad(kernel, staged, line * across + place)


def _store_staged(kernel: Kernel, staged: Buffer, value: Expr, row: Expr, column: Expr) -> None:
    """Store activations as the primitive reads them: flipped or widened, padded with zeros."""
    dot, dtype = dot_for(kernel.features), kernel.inputs[0].dtype
    offset = dot.offset(dtype)
    flipped = value ^ const(-offset, dtype, lanes_of(value)) if offset else value
    dot.store_row(staged, bind(flipped), row, column)


def _pad(kernel: Kernel, staged: Buffer, row: Expr) -> None:
    """Zeros behind a row's last activation."""
    dot, inner = dot_for(kernel.features), _shape(kernel)[1]
    for i in range(inner, dot.steps(inner) * dot.depth):
        dot.store_row(staged, const(0, kernel.inputs[0].dtype), row, i)
