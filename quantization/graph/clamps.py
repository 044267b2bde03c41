"""Clamps among the functions of a graph: between which numbers; nothing here loads torch.

{"function": "relu"}                            0 and infinity, as `numerics.pointwise.CLAMPS` says
{"function": "clamp", "ends": [-1.0, None]}     -1 and infinity: JSON has no infinite numbers
"""

from typing import Any

from vitq.numerics.pointwise import CLAMP, CLAMPS, Ends
from vitq.quantization.graph.graph import Node

INFINITY = float("inf")


def clamp_attrs(low: float | None, high: float | None) -> dict[str, Any]:
    """Return the attributes of a clamp, by the shortest name that it has.

    Args:
        low: smallest value; None where there is none.
        high: likewise.
    """
    ends = (-INFINITY if low is None else float(low), INFINITY if high is None else float(high))
    name = next((name for name, known in CLAMPS.items() if known == ends), None)
    if name is not None:
        return {"function": name}
    return {"function": CLAMP, "ends": [None if abs(end) == INFINITY else end for end in ends]}


def ends_of(node: Node) -> Ends | None:
    """Return the numbers that a pointwise node clamps between; None of another function."""
    function = node.attrs["function"]
    if function != CLAMP:
        return CLAMPS.get(function)
    low, high = node.attrs["ends"]
    return -INFINITY if low is None else low, INFINITY if high is None else high
