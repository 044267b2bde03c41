"""Reads clamps of real numbers: ReLU, minimum and maximum with a number, clip."""

from typing import Any, NamedTuple

from vitq.relay_passes.expressions import Expr, op_name
from vitq.relay_passes.reading.context import Context


class Clamp(NamedTuple):
    """A value between two numbers.

    Attributes:
        data: what is clamped.
        bounds: the smallest and the largest value, perhaps infinite.
    """

    data: Expr
    bounds: tuple[float, float]


def number(arg: Expr, ctx: Context) -> float | None:
    """Return a scalar operand's value: a constant of one element, or a number of the program."""
    plain: Any = getattr(arg, "value", None)
    plain = getattr(plain, "value", plain)  # of an immediate
    if isinstance(plain, int | float):
        return float(plain)
    real = ctx.real(arg)
    return float(real.reshape(())) if real is not None and real.size == 1 else None


def read_clamp(expr: Expr, ctx: Context) -> Clamp | None:
    """Read any nest of clamps.

    Args:
        expr: what may be clamped.
        ctx: the function.

    Returns:
        What is clamped and its bounds; None where nothing is.
    """
    low, high, found = float("-inf"), float("inf"), False
    while True:
        call = ctx.definition(expr)
        ends = _ends(call, ctx)
        if ends is None or ends[0] > ends[1]:
            break
        inner_low, inner_high = ends
        # what is outside clamps last
        low, high = max(low, min(inner_low, high)), min(high, max(inner_high, low))
        expr, found = call.args[0], True
    return Clamp(expr, (low, high)) if found else None


def _ends(call: Expr, ctx: Context) -> tuple[float, float] | None:
    """Return the bounds of one call; None where it is no clamp by numbers."""
    name = op_name(call)
    if name == "relax.nn.relu":
        return 0.0, float("inf")
    if name in ("relax.maximum", "relax.minimum"):
        end = number(call.args[1], ctx)
        if end is None:
            return None
        return (end, float("inf")) if name == "relax.maximum" else (float("-inf"), end)
    if name == "relax.clip":
        low, high = (number(arg, ctx) for arg in call.args[1:3])
        return None if low is None or high is None else (low, high)
    return None
