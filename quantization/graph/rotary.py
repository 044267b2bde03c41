"""Rotary position embeddings, brought to one form: two products with tables and their sum.

    before    y = x cos + cat(-x[:, d/2:], x[:, :d/2]) sin      of some tokens, others in front
    after     y = x cos' + take(x, order) sin'                   of all tokens

Whatever splits, negates and joins the channels is an order of them and factors, which go into the
table: sin' = sin * factors, and interleaved pairs (EVA) are the same as halves (DINOv3). Tokens
that are not rotated (class token, registers) are rotated by 0: rows of 1 in cos' and of 0 in sin'.
Exact. `quantization.plan.rotations` then finds the sum and gives it one rounding.
"""

from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.graph.moving import moved

Tables = dict[tuple[tuple[int, ...], bytes], str]
"""Constants that were made, by their values."""


class Turned(NamedTuple):
    """A value made of the elements of another one.

    Attributes:
        ids: flat index of each of its elements in that one, at batch 1.
        factors: what each is multiplied by.
    """

    ids: IntArray
    factors: FloatArray


def simplify_rotations(graph: Graph) -> None:
    """Rewrite all rotations of a float graph (module docstring)."""
    tables: Tables = {}
    for node in graph:
        if node.op is OpKind.ADD and len(set(node.inputs)) == 2:
            _order_channels(graph, node, tables)
            graph.remove_dead()  # what is not read any more counts as a reader below
            _include_prefix(graph, node, tables)


def _constant(graph: Graph, value: FloatArray, like: Node, tables: Tables) -> str:
    """Return a constant of a value: one for all that have the same."""
    key = (value.shape, value.tobytes())
    if tables.get(key) not in graph.nodes:
        node = Node(f"{like.name}.table{len(tables)}", OpKind.CONSTANT, (), value.shape, None)
        node.module = like.module
        graph.insert_after(graph.input.name, node)
        graph.set_param(node, "value", value)
        tables[key] = node.name
    return tables[key]


def _split(graph: Graph, product: Node) -> tuple[Node, Node] | None:
    """Return a product's other factor and its constant table; None for another node."""
    if product.op is not OpKind.MULTIPLY or len(graph.consumers(product.name)) != 1:
        return None
    one, two = graph.operand(product, 0), graph.operand(product, 1)
    if two.op is OpKind.CONSTANT:
        return one, two
    return (two, one) if one.op is OpKind.CONSTANT else None


def _order_channels(graph: Graph, total: Node, tables: Tables) -> None:
    """Turn what splits, negates and joins one operand's channels into an order and factors."""
    products = [graph.operand(total, index) for index in range(2)]
    for straight, product in (products, products[::-1]):
        plain, crossed = _split(graph, straight), _split(graph, product)
        if plain is None or crossed is None or plain[0] is crossed[0]:
            return
        x = plain[0]
        found = _turned(graph, crossed[0], x)
        order = None if found is None else _order(found.ids)
        if found is None or order is None:
            continue
        take = Node(f"{product.name}.turned", OpKind.TAKE, (x.name,), x.shape, x.batch_axis)
        take.module = product.module
        take.attrs = {"axis": len(x.shape) - 1, "indices": order}
        value = _compact(graph.real(crossed[1], "value") * found.factors)
        graph.insert_after(x.name, take)
        product.inputs = (take.name, _constant(graph, value, product, tables))
        value = _compact(graph.real(plain[1], "value"))
        straight.inputs = (x.name, _constant(graph, value, straight, tables))
        return


def _turned(graph: Graph, node: Node, root: Node) -> Turned | None:
    """Follow the elements of `root` to a value that layout and constant factors make of it."""
    if node is root:
        shape = root.shape
        ids = np.arange(int(np.prod(shape))).reshape(shape)
        return Turned(ids, np.ones(shape, np.float32))
    if node.op is OpKind.CONCAT:
        parts = [_turned(graph, graph.nodes[name], root) for name in node.inputs]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        axis = node.attrs["axis"]
        arrays = (np.concatenate([part[i] for part in known], axis) for i in range(2))
        return Turned(*arrays)
    if node.op is OpKind.MULTIPLY:
        split = _split(graph, node)
        above = None if split is None else _turned(graph, split[0], root)
        if split is None or above is None:
            return None
        return Turned(above.ids, above.factors * graph.real(split[1], "value"))
    if node.op not in LAYOUT_OPS or node.op in (OpKind.PAD, OpKind.EXPAND):
        return None
    above = _turned(graph, graph.operand(node), root)
    return None if above is None else Turned(*(moved(node, array) for array in above))


def _order(ids: IntArray) -> list[int] | None:
    """Return the order of the last axis that makes some elements; None where that is not all."""
    channels = ids.shape[-1]
    rows = ids.reshape(-1, channels)
    order = rows[0]
    expected = np.arange(len(rows))[:, None] * channels + order
    same = np.array_equal(rows, expected) and order.max() < channels
    return [int(index) for index in order] if same else None


def _compact(value: FloatArray) -> FloatArray:
    """Keep one element along each axis on which all are the same."""
    for axis in range(value.ndim):
        first = value.take([0], axis)
        value = first if np.array_equal(np.broadcast_to(first, value.shape), value) else value
    return np.ascontiguousarray(value, np.float32)


def _include_prefix(graph: Graph, total: Node, tables: Tables) -> None:
    """Rotate by 0 what is joined in front of, or behind, a rotation of the other tokens."""
    readers = graph.consumers(total.name)
    products = [graph.operand(total, index) for index in range(2)]
    split = [_split(graph, product) for product in products]
    if len(readers) != 1 or readers[0].op is not OpKind.CONCAT or None in split:
        return
    joined, turned = readers[0], [part[0] for part in split if part is not None]
    take = next((node for node in turned if node.op is OpKind.TAKE), None)
    rest = next((node for node in turned if node is not take), None)
    if take is None or rest is None or take.inputs != (rest.name,):
        return
    if rest.op is not OpKind.SLICE or len(graph.consumers(rest.name)) != 2:
        return
    axis, whole = rest.attrs["axis"], graph.operand(rest)
    parts = [graph.nodes[name] for name in joined.inputs]
    if axis != joined.attrs["axis"] or not _covers(parts, total, rest, whole, axis):
        return
    start, length = rest.attrs["start"], whole.shape[axis]
    for product, part, other in zip(products, split, turned, strict=True):
        assert part is not None, "checked above"
        x, fill = (take, 0.0) if other is take else (whole, 1.0)
        value = _extended(graph.real(part[1], "value"), (start, length), axis, fill, total.shape)
        product.shape = whole.shape
        product.inputs = (x.name, _constant(graph, value, product, tables))
    take.inputs, take.shape = (whole.name,), whole.shape
    total.shape = whole.shape
    for reader in graph.consumers(joined.name):
        graph.replace_input(reader, joined.name, total.name)
    for label, name in graph.outputs.items():
        graph.outputs[label] = total.name if name == joined.name else name
    graph.remove_dead()


def _covers(parts: list[Node], total: Node, rest: Node, whole: Node, axis: int) -> bool:
    """Whether the joined parts are the whole tensor, one of them rotated."""
    at = 0
    for part in parts:
        source = rest if part is total else part
        attrs = source.attrs
        is_slice = source.op is OpKind.SLICE and source.inputs == (whole.name,)
        if not is_slice or attrs["axis"] != axis or attrs["start"] != at:
            return False
        at = attrs["stop"]
    return at == whole.shape[axis]


def _extended(
    value: FloatArray, place: tuple[int, int], axis: int, fill: float, shape: tuple[int, ...]
) -> FloatArray:
    """Return a table for all tokens, `fill` where nothing is rotated.

    Args:
        value: the table of the rotated tokens, broadcastable to `shape`.
        place: the first of them, and how many there are in all.
        axis: of the tokens.
        fill: for the others.
        shape: of the rotated tokens' values.
    """
    value = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
    value = value.repeat(shape[axis], axis) if value.shape[axis] == 1 else value
    pads = [(0, 0)] * value.ndim
    pads[axis] = (place[0], place[1] - place[0] - shape[axis])
    return np.pad(value, pads, constant_values=fill).astype(np.float32)
