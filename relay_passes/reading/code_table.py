"""Reads a table of attention weights: what looks it up, and the two ranges that it holds."""

from typing import NamedTuple

import numpy as np

from vitq.numerics.twin_codes import (
    TWIN_BITS,
    WEIGHT_MAX,
    TwinCodes,
    describe_twin,
    twin_choices,
    twin_weights,
)
from vitq.relay_passes.expressions import Expr, dtype_of, is_constant
from vitq.relay_passes.reading.context import Context, DeclineError

WEIGHTS = np.arange(WEIGHT_MAX + 1)
TWINS = [twin for bits in TWIN_BITS for twin in twin_choices(bits)]


class CodeTable(NamedTuple):
    """A look-up of 8-bit codes.

    Attributes:
        codes: that are looked up, uint8.
        table: in which.
    """

    codes: Expr
    table: Expr


def read_code_table(expr: Expr, ctx: Context) -> CodeTable | None:
    """Recognize ``take(table, i)`` with ``i = astype(codes, int32)``.

    The ONNX frontend writes the index of a Gather as ``where(less(i, 0), i + 256, i)``; codes are
    not negative.

    Args:
        expr: what may be a look-up.
        ctx: the function.

    Returns:
        None for anything else.
    """
    take = ctx.call(expr, "relax.take")
    if take is None:
        return None
    index = take.args[1]
    chosen = ctx.call(index, "relax.where")
    if chosen is not None:
        condition, _, index = chosen.args
        less = ctx.call(condition, "relax.less")
        if less is None or less.args[0] != index:
            return None
    cast = ctx.call(index, "relax.astype")
    if cast is None or dtype_of(cast.args[0]) != "uint8":
        return None
    return CodeTable(cast.args[0], take.args[0])


def twin_of_table(table: Expr) -> TwinCodes:
    """Return the ranges whose weights a table holds.

    Raises:
        DeclineError: for a table of anything else.
    """
    if not is_constant(table):
        raise DeclineError("a table of weights that is not constant")
    values = table.value.numpy()
    for twin in TWINS:
        if np.array_equal(values, twin_weights(WEIGHTS, twin)):
            return twin
    known = ", ".join(describe_twin(twin) for twin in TWINS[:2])
    raise DeclineError(f"a table of weights that are no two ranges ({known}, ...)")
