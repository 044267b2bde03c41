"""Layout operators on NumPy arrays: where elements go, of whatever kind they are."""

from typing import Any

import numpy as np

from vitq.quantization.graph.graph import Node, OpKind


def moved(node: Node, x: Any, batch: int = 1) -> Any:
    """Run a layout operator of one input.

    Args:
        node: the operator.
        x: an array of its input's shape.
        batch: how many pictures.

    Returns:
        The array that it makes, a view where it can be; zeros where it pads. None for another
        operator.
    """
    attrs = node.attrs
    if node.op is OpKind.RESHAPE:
        return x.reshape(node.shape_at(batch))
    if node.op is OpKind.PERMUTE:
        return x.transpose(attrs["axes"])
    if node.op is OpKind.EXPAND:
        return np.broadcast_to(x, node.shape_at(batch))
    if node.op is OpKind.SELECT:
        return x[(slice(None),) * attrs["axis"] + (attrs["index"],)]
    if node.op is OpKind.SLICE:
        return x[(slice(None),) * attrs["axis"] + (slice(attrs["start"], attrs["stop"]),)]
    if node.op is OpKind.TAKE:
        return x.take(attrs["indices"], attrs["axis"])
    if node.op is OpKind.PAD:
        return np.pad(x, attrs["pads"])
    return None
