"""A depthwise convolution's taps as a node's attributes."""

from typing import Any

from vitq.numerics.convolution import Geometry
from vitq.quantization.graph.graph import Node


def geometry_attrs(place: Geometry) -> dict[str, Any]:
    """Return attributes that JSON can hold."""
    return {key: list(value) for key, value in place._asdict().items()}


def geometry_of(node: Node) -> Geometry:
    """Return the taps of a depthwise convolution's node."""
    return Geometry(*(tuple(node.attrs[key]) for key in Geometry._fields))
