"""How much memory calibration takes: a walk holds values of all pictures, observers few of each.

The methods that search (`quantization.plan.methods.Search`) go node by node over all pictures
(`quantization.ranges.sequential`): what a node reads, its result and the copies that are made of it
are in memory at once, twice where biases are corrected by the float network's. ``minmax`` and
``percentile`` see a few pictures at a time and keep samples of a fixed size.
"""

import math

from vitq.quantization.graph.graph import Graph
from vitq.quantization.plan.methods import Method, Search

FLOAT_BYTES = 4
COPIES = 3
"""Of the result at hand: as it is computed, quantized, and rows or samples of it."""


def walk_bytes(graph: Graph, pictures: int, method: Method) -> int:
    """Return about how many bytes the values of calibration pictures take at most.

    Args:
        graph: float, as traced or in the shape that is quantized.
        pictures: how many.
        method: how ranges are found; 0 for one that streams.
    """
    if method.search is Search.NONE:
        return 0
    last_use = {name: node.name for node in graph for name in node.inputs}
    live = dict[str, int]()
    largest = 0
    for node in graph:
        live[node.name] = math.prod(node.shape_at(2)) - math.prod(node.shape_at(1))
        networks = 2 if method.correct_bias else 1
        held = networks * sum(live.values()) + COPIES * live[node.name]
        largest = max(largest, held)
        for name in node.inputs:
            if last_use[name] == node.name:
                live.pop(name, None)
    return largest * FLOAT_BYTES * pictures
