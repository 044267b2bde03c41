"""Follows elements through layout operators by running the operators on their indices.

Whatever the order of reshapes, transposes and slices, the result says which element of the root
ends where: no pass has to recognize a particular spelling of "split the heads".
"""

from collections.abc import Callable

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.rows import MISSING
from vitq.relay_passes.expressions import LAYOUT_OPS, PAD, Expr, is_layout, op_name, shape_of
from vitq.relay_passes.reading.relax_numpy import LAYOUT, pads_of

Lookup = Callable[[Expr], Expr]


def layout_chain(
    expr: Expr, lookup: Lookup, names: tuple[str, ...] = LAYOUT_OPS
) -> tuple[Expr, list[Expr]]:
    """Return the layout operators between a tensor and what computed it.

    Args:
        expr: a tensor.
        lookup: a variable's definition.
        names: the operators to follow.

    Returns:
        The root tensor, and the layout calls from the root to `expr`.
    """
    chain: list[Expr] = []
    while is_layout(call := lookup(expr), names):
        chain.append(call)
        expr = call.args[0]
    return expr, chain[::-1]


def follow(ids: IntArray, chain: list[Expr]) -> IntArray:
    """Move an array of indices through layout operators; what a pad adds is `MISSING`."""
    for call in chain:
        if op_name(call) == PAD:
            ids = np.pad(ids, pads_of(call), constant_values=MISSING)
        else:
            ids = LAYOUT[op_name(call)](call, [ids])
    return ids


def channel_ids(root: Expr, axis: int) -> IntArray:
    """For each element of `root` its index along `axis`."""
    shape = shape_of(root)
    dims = [1] * len(shape)
    dims[axis] = -1
    return np.broadcast_to(np.arange(shape[axis], dtype=np.int32).reshape(dims), shape)


def element_ids(root: Expr) -> IntArray:
    """Count through each element of `root`."""
    shape = shape_of(root)
    return np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)


def element_order_kept(chain: list[Expr]) -> bool:
    """Whether a chain of reshapes and permutes leaves the row-major order of elements alone."""
    ids = element_ids(chain[0].args[0])
    return bool(np.array_equal(follow(ids, chain).reshape(-1), ids.reshape(-1)))
