"""Packing at run time: operands that are weights of a product but not constants (K, V)."""

from tvm import tirx

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    cast,
    const,
    for_chunks,
    load,
    serial,
    store,
    view,
)
from vitq.compiler.kernels.cpu.dot import Dot
from vitq.compiler.kernels.cpu.microkernel import Read
from vitq.compiler.kernels.tensor import TensorType

WORD_BYTES = 4


def pack_rows(read: Read, channels: int, inner: int, dtype: str, dot: Dot) -> Buffer:
    """Pack a (channels, inner) matrix: K of attention, a transposed right operand.

    Args:
        read: the matrix.
        channels: N.
        inner: K.
        dtype: int8 or uint8; unsigned is stored minus 128 where the primitive wants signed.
        dot: the primitive.

    Returns:
        (groups, steps, lanes * depth); missing channels and products are 0.
    """
    groups, steps, depth = dot.groups(channels), dot.steps(inner), dot.depth
    packed = _packed(groups, steps, dtype, dot)
    whole = inner - inner % depth
    with serial(channels) as n:
        group, lane = bind(n // dot.lanes), bind(n % dot.lanes)

        def copy(i: Expr, lanes: int) -> None:
            value = _stored(read(n, i, lanes), dtype, dot)
            store(packed, value, group, i // depth, lane * depth + i % depth)

        if whole:
            with serial(whole // depth) as step:
                copy(step * depth, depth)
        for i in range(whole, inner):
            copy(i, 1)
        for i in range(inner, steps * depth):
            store(
                packed, const(0, str(packed.ty.dtype)), group, steps - 1, lane * depth + i % depth
            )
    for lane in range(channels - (groups - 1) * dot.lanes, dot.lanes):
        with serial(steps) as step:
            zero = const(0, str(packed.ty.dtype), depth)
            store(packed, zero, groups - 1, step, lane * depth)
    return packed


def pack_columns(read: Read, inner: int, channels: int, dtype: str, dot: Dot) -> Buffer:
    """Pack an (inner, channels) matrix: V of attention.

    Args:
        read: the matrix.
        inner: K, its rows.
        channels: N, its columns.
        dtype: int8 or uint8; see `pack_rows`.
        dot: the primitive.

    Returns:
        (groups, steps, lanes * depth); missing products are 0, missing channels undefined.
    """
    groups, steps, depth = dot.groups(channels), dot.steps(inner), dot.depth
    packed = _packed(groups, steps, dtype, dot)
    width = dot.lanes * max(depth // 4, 1)
    words = view(packed, TensorType((groups, steps, width), "int32")) if depth > 1 else None

    def step_rows(step: Expr, rows: int) -> None:
        def copy(c: Expr, lanes: int) -> None:
            values = [_stored(read(step * depth + d, c, lanes), dtype, dot) for d in range(rows)]
            zero = const(0, str(packed.ty.dtype), lanes)
            values += [zero] * (depth - rows)
            group, lane = c // dot.lanes, c % dot.lanes
            if lanes > 1 and words is not None:
                store(words, _interleave(values, lanes), group, step, 0)
            else:
                for d, value in enumerate(values):
                    store(packed, value, group, step, lane * depth + d)

        for_chunks(channels, dot.lanes, copy)

    if inner // depth:
        with serial(inner // depth) as step:
            step_rows(step, depth)
    if inner % depth:
        step_rows(steps - 1, inner % depth)
    return packed


def _packed(groups: int, steps: int, dtype: str, dot: Dot) -> Buffer:
    return alloc((groups, steps, dot.lanes * dot.depth), dot.stored(dtype, weights=True))


def _stored(value: Expr, dtype: str, dot: Dot) -> Expr:
    """Unsigned values minus 128 where the primitive wants signed ones."""
    if dtype != "uint8" or not dot.b_signed:
        return value
    return bind(cast(cast(value, "int32") - 128, "int8"))


def _interleave(values: list[Expr], lanes: int) -> Expr:
    """Byte or word d of each int32 lane, or byte d of each two, from the d-th vector."""
    if len(values) == 2 * WORD_BYTES:
        parts = [_interleave(values[i : i + WORD_BYTES], lanes) for i in (0, WORD_BYTES)]
        return bind(tirx.Shuffle(parts, [j for i in range(lanes) for j in (i, lanes + i)]))
    bits = 32 // len(values)
    total = const(0, "int32", lanes)
    for d, value in enumerate(values):
        part = cast(value, "int32") & const((1 << bits) - 1, "int32", lanes)
        total = total | bind(part << const(bits * d, "int32", lanes))
    return bind(total)


def stored_zero_point(zero_point: Expr, dtype: str, dot: Dot, weights: bool) -> Expr:
    """Return the code that stands for 0 after `pack_rows`, `pack_columns` or `stage_rows`."""
    if weights:
        offset = -128 if dtype == "uint8" and dot.b_signed else 0
    else:
        offset = dot.offset(dtype)
    return bind(zero_point + offset)


def emit_column_sums(packed: Buffer, group: Expr, steps: int, dot: Dot) -> Expr:
    """Return sums of one group's packed weights, int32 lanes."""
    acc = alloc((dot.lanes,), "int32")
    store(acc, const(0, "int32", dot.lanes), 0)
    with serial(steps) as step:
        weights = dot.weights(packed, group, step)
        store(acc, dot.accumulate(load(acc, 0, lanes=dot.lanes), dot.ones_row(), weights), 0)
    return load(acc, 0, lanes=dot.lanes)


def offset_sums(packed: Buffer, dtype: str, dot: Dot) -> Buffer | None:
    """Accumulators that undo what `Dot.offset` adds to activations that have no zero point.

    Args:
        packed: (groups, steps, lanes * depth) weights.
        dtype: of the activations.
        dot: the primitive.

    Returns:
        ``-offset * sum(weights)`` as (groups, lanes), or None where nothing is added.
    """
    offset = dot.offset(dtype)
    if not offset:
        return None
    groups, steps = (int(extent) for extent in packed.shape[:2])
    start = alloc((groups, dot.lanes), "int32")
    with serial(groups) as g:
        total = emit_column_sums(packed, g, steps, dot)
        store(start, total * const(-offset, "int32", dot.lanes), g, 0)
    return start


def emit_row_sums(rows: Buffer, row: Expr, steps: int, dot: Dot) -> Expr:
    """Return the sum of one row as stored, in every lane."""
    acc = alloc((dot.lanes,), "int32")
    store(acc, const(0, "int32", dot.lanes), 0)
    with serial(steps) as step:
        a = dot.activations(rows, row, step)
        store(acc, dot.accumulate(load(acc, 0, lanes=dot.lanes), a, dot.ones()), 0)
    return load(acc, 0, lanes=dot.lanes)
