"""Reads what an exponential is taken of: a distance from the row's maximum, perhaps on a grid."""

from typing import NamedTuple

import numpy as np

from vitq.numerics.log_codes import LEVELS, STEPS
from vitq.relay_passes.expressions import Expr, ints, normalize_axis, shape_of
from vitq.relay_passes.reading.context import Context, DeclineError

SPELLING = 1e-6
"""Relative difference allowed between a file's float32 constant and the number itself."""
SMALLEST_WEIGHT = 1 / 510
"""What is smaller than half of an 8-bit step is no weight."""


class Grid(NamedTuple):
    """Where an exponent is rounded to, see `numerics.log_codes`.

    Attributes:
        steps: for each octave.
        levels: codes.
        zero: whether what lies beyond them weighs nothing.
    """

    steps: int
    levels: int
    zero: bool


class Exponent(NamedTuple):
    """What an exponential is taken of.

    Attributes:
        scores: the tensor whose distance from its row's maximum counts.
        grid: None where it is not rounded.
    """

    scores: Expr
    grid: Grid | None


def read_exponent(expr: Expr, ctx: Context) -> Exponent:
    """Recognize ``x - max(x)``, or the same on a grid.

    The grid is ``where(k > last, end, k) * -ln(2) / r`` with ``k = floor((max(x) - x) * r log2(e) +
    0.5)``, where `end` is the last code or so far that it is no 8-bit weight.

    Args:
        expr: of the exponential.
        ctx: the function.

    Returns:
        The scores and the grid.

    Raises:
        DeclineError: where it is anything else.
    """
    scaled = ctx.call(expr, "relax.multiply")
    if scaled is None:
        return Exponent(_scores(expr, ctx, flipped=False), None)
    size = _number(scaled.args[1], ctx)
    codes, last, zero = _limited(scaled.args[0], size, ctx)
    rounded = _operand(codes, "relax.floor", ctx)
    moved = _operand(rounded.args[0], "relax.add", ctx)
    steps = _operand(moved.args[0], "relax.multiply", ctx)
    if _number(moved.args[1], ctx) != 0.5:
        raise DeclineError("the exponent's grid is not rounded half up")
    factor = _number(steps.args[1], ctx) / np.log2(np.e)
    r = round(factor)
    close = np.isclose([factor, -size * r], [r, np.log(2)], rtol=SPELLING, atol=0)
    if r not in STEPS or last + 1 not in LEVELS or not np.all(close):
        raise DeclineError("the exponent's grid is none of numerics.log_codes")
    grid = Grid(r, int(last) + 1, zero)
    return Exponent(_scores(steps.args[0], ctx, flipped=True), grid)


def _limited(expr: Expr, size: float, ctx: Context) -> tuple[Expr, float, bool]:
    """Return the codes, the last of them, and whether what lies beyond weighs nothing."""
    chosen = _operand(expr, "relax.where", ctx)
    condition, beyond, codes = chosen.args
    greater = _operand(condition, "relax.greater", ctx)
    last, end = _number(greater.args[1], ctx), _number(beyond, ctx)
    zero = end != last
    if greater.args[0] != codes or (zero and np.exp(end * size) > SMALLEST_WEIGHT):
        raise DeclineError("codes beyond the last one weigh neither what that does nor 0")
    return codes, last, zero


def _scores(expr: Expr, ctx: Context, flipped: bool) -> Expr:
    """Return the x of ``x - max(x)``, or of ``max(x) - x``."""
    difference = ctx.call(expr, "relax.subtract")
    if difference is None:
        raise DeclineError("an exponential that is not exp(x - max(x))")
    scores, peak = difference.args[::-1] if flipped else difference.args
    largest = ctx.call(peak, "relax.max")
    if largest is None or largest.args[0] != scores:
        raise DeclineError("an exponential that is not exp(x - max(x))")
    rank = len(shape_of(expr))
    axes = [] if largest.attrs.axis is None else ints(largest.attrs.axis)
    if [normalize_axis(axis, rank) for axis in axes] != [rank - 1] or not largest.attrs.keepdims:
        raise DeclineError("the maximum is not over the last axis")
    return scores


def _operand(expr: Expr, name: str, ctx: Context) -> Expr:
    """Read a call that must be there."""
    call = ctx.call(expr, name)
    if call is None:
        raise DeclineError(f"an exponential whose grid has no {name.removeprefix('relax.')}")
    return call


def _number(expr: Expr, ctx: Context) -> float:
    """Read a constant scalar."""
    real = ctx.real(expr)
    if real is None or real.size != 1:
        raise DeclineError("an exponential whose grid is not constant")
    return float(real.reshape(()))
