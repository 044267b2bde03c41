"""Tensors of a graph under construction: their shapes, and where the pictures of a batch lie."""

from typing import NamedTuple

import numpy as np

CHANNELS_LAST, CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
"""Permutations of a map's axes, each the other's inverse."""


class Operand(NamedTuple):
    """A tensor of the graph.

    Attributes:
        name: of its node.
        shape: at batch 1.
        batch_axis: that grows with the batch.
    """

    name: str
    shape: tuple[int, ...]
    batch_axis: int | None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


class Refusal(Exception):  # noqa: N818 - no error: it is listed
    """An operator or a form of one that the graph cannot express."""


def keep_pictures(x: Operand, axis: int) -> None:
    """Refuse what would mix or drop the pictures of a batch."""
    if axis == x.batch_axis:
        raise Refusal("an operator along the pictures of a batch")


def without(batch_axis: int | None, axis: int) -> int | None:
    """Return where the batch is after an axis went."""
    return batch_axis if batch_axis is None or batch_axis < axis else batch_axis - 1


def broadcast(a: Operand, b: Operand) -> tuple[tuple[int, ...], int | None]:
    """Return shape and batch axis of what two tensors make, element by element."""
    shape = tuple(np.broadcast_shapes(a.shape, b.shape))
    places = {x.batch_axis + len(shape) - x.rank for x in (a, b) if x.batch_axis is not None}
    if len(places) > 1:
        raise Refusal("an operator that mixes the pictures of a batch")
    place = next(iter(places), None)
    if place is not None:
        for x in (a, b):
            at = place - len(shape) + x.rank
            if x.batch_axis is None and at >= 0 and x.shape[at] != 1:
                raise Refusal("an operator that mixes the pictures of a batch")
    return shape, place
