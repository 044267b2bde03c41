"""Draw samples of a node's value by importance, and weigh its rows.

A value holds all calibration pictures. Behind the selection of one token (`extend_selection`) it
also holds rows of other tokens: 32 pictures are 32 class tokens, too few to say what a layer of 192
inputs may do. The rows of the selected token and the others have `EVEN_SHARE` of the weight each.

Where all tokens are results, too, nothing is selected early: the same layers then read every token,
and the selected one is a row among hundreds, although it is a result of its own. In the layers
behind the last attention it keeps its share (`selected_importance`), whatever else is asked for.
"""

import torch

from vitq.numerics.arrays import FloatArray
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.ranges.importance import EVEN_SHARE

SAMPLES = 1 << 15
ROWS = 2048
EXTRA_TOKENS = 7
"""Other tokens taken from each picture."""
_PER_ROW = {OpKind.LAYER_NORM, OpKind.LINEAR, OpKind.GELU, OpKind.ADD, OpKind.SCALE}


class Sampler:
    """Samples of values over a number of pictures.

    Args:
        pictures: how many.
        importance: node name -> importance at batch 1
            (`quantization.ranges.importance`); a node that is not there is even.
    """

    def __init__(self, pictures: int, importance: dict[str, torch.Tensor]) -> None:
        self.pictures = pictures
        self.importance = importance
        self._generator = torch.Generator().manual_seed(0)

    def values(self, node: Node, value: torch.Tensor) -> FloatArray:
        """(S,) elements of a node's value, drawn with probability proportional to importance."""
        own, others = self._split(node, value)
        importance = self._importance(node)
        drawn = [self._draw(own, importance, SAMPLES)]
        if others is not None:
            drawn.append(self._draw(others, importance.expand(1, -1), SAMPLES))
        found: FloatArray = torch.cat(drawn).numpy()
        return found

    def rows(self, node: Node, value: torch.Tensor) -> FloatArray:
        """(R, C) rows (last axis) of a node's value, drawn likewise."""
        rows = value.reshape(-1, value.shape[-1])
        weights = self.row_weights(node, value)
        count = min(ROWS, 2 * len(rows))
        drawn = torch.multinomial(weights, count, replacement=True, generator=self._generator)
        found: FloatArray = rows[drawn].numpy()
        return found

    def row_weights(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        """(rows,) weights of a node's rows, sum 1: the importance's means over channels."""
        _, others = self._split(node, value)
        per_row = self._importance(node).reshape(*node.shape).mean(-1)
        assert node.batch_axis is not None
        repeats = [1] * per_row.ndim
        repeats[node.batch_axis] = self.pictures
        weights = per_row.repeat(repeats).reshape(-1).to(torch.float64)
        weights = weights / weights.sum()
        if others is None:
            return weights
        extra = torch.full((len(others),), EVEN_SHARE / len(others), dtype=torch.float64)
        return torch.cat([(1 - EVEN_SHARE) * weights, extra])

    def channel_weights(self, node: Node) -> torch.Tensor:
        """(C,) importance of a node's channels (last axis), mean 1."""
        found = self._importance(node).reshape(-1, node.shape[-1]).mean(0)
        return found / found.mean()

    def _importance(self, node: Node) -> torch.Tensor:
        even = torch.ones(node.shape)
        return self.importance.get(node.name, even).reshape(node.shape)

    def _split(self, node: Node, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(pictures, *shape) of the node itself, and the rows of other tokens if there are any."""
        axis = node.batch_axis
        assert axis is not None
        own = self.pictures * node.shape[axis]
        others = value[own:] if axis == 0 and value.shape[0] > own else None
        mine = value.narrow(axis, 0, own).unflatten(axis, (self.pictures, node.shape[axis]))
        return mine.movedim(axis, 0), others

    def _draw(self, values: torch.Tensor, importance: torch.Tensor, count: int) -> torch.Tensor:
        flat = values.reshape(values.shape[0], -1)
        where = torch.multinomial(
            importance.reshape(-1), count, replacement=True, generator=self._generator
        )
        which = torch.randint(0, flat.shape[0], (count,), generator=self._generator)
        return flat[which, where]


def selected_importance(graph: Graph) -> dict[str, torch.Tensor]:
    """Return the importance of nodes of all tokens of which one is a result of its own.

    Args:
        graph: float, after `quantization.graph.rewrites`.

    Returns:
        Node name -> (1, T, C), mean 1: the selected tokens share `EVEN_SHARE`, all tokens the rest.
        Of nodes that work row by row up to the results; there are none where the selection is read
        alone, as it then stands above them all.
    """
    selected: dict[str, set[int]] = {}
    for node in reversed(list(graph)):
        if not _is_by_row(node):
            continue
        readers = graph.consumers(node.name)
        if all(r.name in selected or _is_of_tokens(graph, r) for r in readers):
            selected[node.name] = {
                token
                for reader in readers
                for token in selected.get(reader.name, _selected_tokens(graph, reader))
            }
    return {
        name: _share_of(sorted(tokens), graph.nodes[name].shape)
        for name, tokens in selected.items()
        if tokens
    }


def _is_of_tokens(graph: Graph, reader: Node) -> bool:
    """Whether a node takes one token, or some of them as a result."""
    if reader.op is OpKind.SLICE:
        readers = graph.consumers(reader.name)
        is_result = all(r.op is OpKind.REQUANTIZE and not graph.consumers(r.name) for r in readers)
        return is_result and reader.attrs["axis"] == 1
    return _selects_token(graph, reader)


def _selected_tokens(graph: Graph, reader: Node) -> set[int]:
    if reader.op is not OpKind.SELECT:
        return set()
    return {reader.attrs["index"] % graph.operand(reader).shape[1]}


def _is_by_row(node: Node) -> bool:
    """Whether a node computes each token's row from the same row, of all tokens."""
    works = node.op in _PER_ROW or node.op is OpKind.REQUANTIZE
    return works and len(node.shape) == 3 and node.batch_axis == 0


def _share_of(tokens: list[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Return an importance of a node's shape, mean 1."""
    found = torch.full(shape, 1 - EVEN_SHARE)
    found[:, tokens] += EVEN_SHARE * shape[1] / len(tokens)
    return found


def extendable(graph: Graph, select: Node) -> bool:
    """Whether all that follows a selection of a token works row by row up to the output.

    What it is added to must have as many rows: a constant, or other selections like this one.
    """
    tokens = graph.operand(select).shape[1:2]
    pending, seen = [select], {select.name}
    while pending:
        node = pending.pop()
        readers = graph.consumers(node.name)
        if any(len(graph.nodes[name].shape) != 2 for r in readers for name in r.inputs):
            return False
        if node.op is OpKind.SELECT:
            if not _selects_token(graph, node) or graph.operand(node).shape[1:2] != tokens:
                return False
            near = readers
        elif node.op in _PER_ROW or node.op is OpKind.REQUANTIZE:
            near = readers + [graph.nodes[name] for name in node.inputs]
        else:
            return False
        new = [n for n in near if n.name not in seen and n.op is not OpKind.CONSTANT]
        seen.update(n.name for n in new)
        pending.extend(new)
    return True


def _selects_token(graph: Graph, select: Node) -> bool:
    if select.op is not OpKind.SELECT:
        return False
    source = graph.operand(select)
    return len(source.shape) == 3 and select.attrs["axis"] == 1 and source.batch_axis == 0


def extend_selection(select: Node, value: torch.Tensor) -> torch.Tensor:
    """Rows of the selected token, then rows of other tokens of all pictures.

    Args:
        select: of one token, `extendable`.
        value: (N, T, C).

    Returns:
        (N + others, C).
    """
    index, tokens = select.attrs["index"] % value.shape[1], value.shape[1]
    others = [t for t in range(tokens) if t != index]
    chosen = others[:: max(1, len(others) // EXTRA_TOKENS)]
    rows = value[:, chosen].reshape(-1, value.shape[-1])
    return torch.cat([value[:, index], rows])
