"""Results as maps of classes: the argmax of scores, appended to a quantized graph.

    scores (N, classes, H, W), quantized, one scale  ->  argmax  ->  classes (N, H, W) uint8

It comes last, so that calibration, methods and pictures made without data see the scores: a class
has no gradient and no range. The result keeps the scores' name; the only one without a name of its
own is called `CLASSES`.
"""

from collections.abc import Sequence

import numpy as np

from vitq.numerics.argmax import MOST_CLASSES
from vitq.numerics.arrays import FloatArray
from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import QuantParams
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.outputs import FEATURES

CLASSES = "classes"
MAP_RANK = 4


def append_argmax(graph: Graph) -> Graph:
    """Let a quantized graph return the class of each pixel instead of the scores.

    Args:
        graph: quantized; edited in place.

    Returns:
        The same graph.

    Raises:
        VitqError: no result is a map, or one has more classes than a uint8 can say.
    """
    check_maps(graph)
    outputs = {}
    for name, source in graph.outputs.items():
        scores = graph.nodes[source]
        if not is_map(scores.shape):
            outputs[name] = source
            continue
        shape = (scores.shape[0], *scores.shape[2:])
        node = Node(f"{source}.argmax", OpKind.ARGMAX, (source,), shape, 0, attrs={"axis": 1})
        node.module = scores.module
        node.out = QuantParams(np.asarray(1, np.float32), np.asarray(0), 0, MOST_CLASSES - 1)
        graph.nodes[node.name] = node
        outputs[CLASSES if name == FEATURES else name] = node.name
    graph.outputs = outputs
    return graph


def check_maps(graph: Graph) -> None:
    """Refuse what has no argmax, before long work begins.

    Raises:
        VitqError: see `append_argmax`.
    """
    shapes = graph.layout.shapes
    maps = {name: shape for name, shape in shapes.items() if is_map((1, *shape))}
    if not maps:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise VitqError(
            f"--output argmax is for maps of scores (N, classes, height, width): the model returns "
            f"{found} of each picture; leave it out, or choose a map with --output-features"
        )
    for name, shape in maps.items():
        if shape[0] > MOST_CLASSES:
            raise VitqError(
                f"--output argmax: {name} has {shape[0]} classes, and a uint8 says {MOST_CLASSES}: "
                "leave --output argmax out"
            )


def is_map(shape: Sequence[int]) -> bool:
    """Whether a result is (N, classes, H, W)."""
    return len(shape) == MAP_RANK


def class_map(result: FloatArray) -> FloatArray:
    """Return the classes of a float model's map (N, C, H, W), any other result as it is."""
    return result.argmax(1).astype(np.float32) if is_map(result.shape) else result
