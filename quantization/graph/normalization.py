"""The picture's normalization, folded into every layer that reads the picture first.

What stands between the picture and such a layer, F, moves elements, puts zeros around, or resizes
by constant weights: it is linear, keeps channels apart and makes 0 of 0. With x = (p - mean) / std

    W F(x) + b  =  W' F(p) + b',        W'[:, k] = W[:, k] / std[channel of k],
                                        b' = W F(-mean / std) + b

so that the graph's input is the pixel's value p in [0, 1], whose uint8 code with scale 1/255 is
exact. Where F puts zeros around (a padded first convolution), fewer pixels meet a border position
and b' depends on the position: the layer keeps that of most positions, and a constant that is 0
there is added behind it.
"""

import numpy as np

from vitq.numerics.arrays import FloatArray
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph, Node, OpKind

_LAYERS = (OpKind.CONV2D, OpKind.LINEAR)
SAME = 1e-6
"""Biases that differ less, relative to the largest, are one."""


def fold_normalization(graph: Graph, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Fold the normalization (module docstring); edits the graph in place.

    Args:
        graph: float, its input normalized.
        mean: of each channel, in [0, 1] units.
        std: likewise.

    Raises:
        VitqError: if something else than layers read the input, it is a result, or mean and std
            are no normalization.
    """
    channels = graph.input.shape[1]
    if len(mean) != channels or len(std) != channels:
        raise VitqError(f"mean and std need {channels} values, one for each input channel")
    if not (np.all(np.isfinite([*mean, *std])) and min(std) > 0):
        raise VitqError("mean and std must be finite, and std positive")
    spread = np.asarray(std, np.float64)
    dark = -np.asarray(mean, np.float64) / spread
    for layer, path in _paths(graph):
        if not path and layer.op is OpKind.CONV2D:
            _fold_patches(graph, layer, dark, spread)
        else:
            _fold_behind(graph, layer, path, dark, spread)


def _paths(graph: Graph) -> list[tuple[Node, list[Node]]]:
    """All layers that read the picture, with what stands between, from the picture on."""
    found: list[tuple[Node, list[Node]]] = []
    names = {node: name for name, node in graph.outputs.items()}
    pending: list[tuple[Node, list[Node]]] = [(graph.input, [])]
    wrong: list[str] = []
    while pending:
        node, path = pending.pop(0)
        if node.name in names:
            raise VitqError(
                f"the model's result {names[node.name]} is the picture itself, moved at most: "
                "there is nothing to quantize in it; return other tensors, or choose them with "
                "--output-features"
            )
        for reader in graph.consumers(node.name):
            if reader.op in _LAYERS:
                found.append((reader, path))
            elif _is_linear(graph, reader, node):
                pending.append((reader, [*path, reader]))
            else:
                wrong.append(str(reader.op))
    if wrong or not found:
        raise VitqError(
            "the picture must go into one patch convolution, or convolutions and linear layers "
            f"through layout, not into: {', '.join(wrong)}"
        )
    return found


def _is_linear(graph: Graph, reader: Node, node: Node) -> bool:
    """Whether an operator may stand between picture and layer."""
    if reader.op is OpKind.MATMUL:
        others = [graph.nodes[name] for name in reader.inputs if name != node.name]
        return len(others) == 1 and others[0].op is OpKind.CONSTANT
    return reader.op in _MOVES


def _fold_patches(graph: Graph, conv: Node, dark: FloatArray, std: FloatArray) -> None:
    weight = graph.real(conv, "weight").astype(np.float64)
    bias = graph.real(conv, "bias").astype(np.float64)
    weight = weight / std.reshape(1, -1, 1, 1)
    shift = np.einsum("ocij,c->o", weight, -dark * std)
    graph.set_param(conv, "weight", weight.astype(np.float32))
    graph.set_param(conv, "bias", (bias - shift).astype(np.float32))


def _fold_behind(
    graph: Graph, layer: Node, path: list[Node], dark: FloatArray, std: FloatArray
) -> None:
    weight = graph.real(layer, "weight").astype(np.float64)
    bias = graph.real(layer, "bias").astype(np.float64)
    black = _rows(layer, weight, _run(graph, path, dark)) @ weight.reshape(len(weight), -1).T + bias
    channel = _channels(graph, layer, path, weight, len(std))
    flat = weight.reshape(len(weight), -1) / std[channel]
    graph.set_param(layer, "weight", flat.reshape(weight.shape).astype(np.float32))
    common, delta = _split(black)
    graph.set_param(layer, "bias", common.astype(np.float32))
    if not np.any(delta):
        return
    if layer.op is OpKind.CONV2D:
        delta = delta.T.reshape(layer.shape)
    value = _of_any_batch(layer, delta.reshape(layer.shape))
    border = Node(f"{layer.name}.border", OpKind.CONSTANT, (), value.shape, None)
    total = Node(f"{layer.name}.filled", OpKind.ADD, (), layer.shape, layer.batch_axis)
    border.module = total.module = layer.module
    for reader in graph.consumers(layer.name):
        graph.replace_input(reader, layer.name, total.name)
    total.inputs = (layer.name, border.name)
    graph.set_param(border, "value", value.astype(np.float32))
    graph.insert_after(layer.name, border)
    graph.insert_after(border.name, total)


def _of_any_batch(layer: Node, value: FloatArray) -> FloatArray:
    """Keep one of the parts of a picture that lie on the batch's axis (TNT's patches)."""
    axis = layer.batch_axis
    if axis is None or value.shape[axis] == 1:
        return value
    one = value.take([0], axis)
    if np.abs(value - one).max() > SAME * np.abs(value).max():
        raise VitqError(
            f"{layer.name} reads parts of the picture that are padded differently: pad each alike, "
            "or the whole picture"
        )
    return one


def _rows(layer: Node, weight: FloatArray, x: FloatArray) -> FloatArray:
    """Return what a layer multiplies at each position: (positions, K)."""
    if layer.op is OpKind.LINEAR:
        return x.reshape(-1, x.shape[-1])
    patch = weight.shape[2]
    _, channels, height, width = x.shape
    tiles = x.reshape(channels, height // patch, patch, width // patch, patch)
    return tiles.transpose(1, 3, 0, 2, 4).reshape(-1, channels * patch * patch)


def _channels(
    graph: Graph, layer: Node, path: list[Node], weight: FloatArray, channels: int
) -> np.ndarray:
    """Return the picture's channel that each column of the weights meets; 0 where only zeros do."""
    numbers = _run(graph, path, np.arange(1.0, channels + 1))
    rows = _rows(layer, weight, numbers)
    found = np.rint(rows.max(axis=0)).astype(np.int64)
    if np.any((np.abs(rows - found) > 1e-3) & (np.abs(rows) > 1e-3)):
        raise VitqError("the picture's channels are mixed before the first layer: mean and std")
    return np.maximum(found - 1, 0)


def _split(black: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the most frequent row, and what each row has beyond it."""
    steps = np.rint(black / (SAME * max(float(np.abs(black).max()), 1e-30)))
    _, first, counts = np.unique(steps, axis=0, return_index=True, return_counts=True)
    common = black[first[counts.argmax()]]
    delta = black - common
    delta[np.abs(delta) <= 2 * SAME * np.abs(black).max()] = 0
    return common, delta


def _run(graph: Graph, path: list[Node], values: FloatArray) -> FloatArray:
    """Send one number for each channel through what stands before a layer."""
    shape = graph.input.shape
    x = np.broadcast_to(values.reshape(1, -1, 1, 1), shape).astype(np.float64)
    before = graph.input.name
    for node in path:
        x, before = _step(graph, node, x, before), node.name
    return x


def _step(graph: Graph, node: Node, x: FloatArray, before: str) -> FloatArray:
    if node.op is OpKind.MATMUL:
        left = node.inputs[0] != before
        other = graph.real(graph.operand(node, 0 if left else 1), "value").astype(np.float64)
        return other @ x if left else x @ other
    return _MOVES[node.op](node, x)


def _take(node: Node, x: FloatArray) -> FloatArray:
    return x.take(node.attrs["indices"], node.attrs["axis"])


def _slice(node: Node, x: FloatArray) -> FloatArray:
    return x.take(range(node.attrs["start"], node.attrs["stop"]), node.attrs["axis"])


_MOVES = {
    OpKind.RESHAPE: lambda node, x: x.reshape(node.shape),
    OpKind.PERMUTE: lambda node, x: x.transpose(node.attrs["axes"]),
    OpKind.SELECT: lambda node, x: x.take(node.attrs["index"], node.attrs["axis"]),
    OpKind.SLICE: _slice,
    OpKind.TAKE: _take,
    OpKind.PAD: lambda node, x: np.pad(x, node.attrs["pads"]),
}
