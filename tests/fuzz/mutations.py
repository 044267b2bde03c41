"""Small damage to files: to bytes, to JSON, to ONNX graphs. A generator decides all of it."""

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

Random = np.random.Generator
ODD_NUMBERS = [0, 1, -1, 2, 7, 255, 256, -128, 1 << 15, 1 << 31, -(1 << 31), 1 << 40, 1 << 62]
ODD_VALUES: list[Any] = [
    *ODD_NUMBERS, 0.5, 1e-45, 1e38, float("nan"), float("inf"), True, None, "", "x", "int8", [],
    {}, [[]], [1, 2], "../x", "\0", "9" * 500, 1 << 90, "\x1b[31m",
]  # fmt: skip
ODD_BYTES = [
    b"\0",
    b"\xff",
    b"\n",
    b",",
    b'"',
    b"\r",
    b"-1",
    b"99999999999999999999",
    b"\xef\xbb\xbf",
]


def pick(random: Random, values: Any) -> Any:
    """One of some values."""
    return values[int(random.integers(len(values)))]


def bytes_damaged(data: bytes, random: Random) -> bytes:
    """Flip, cut, repeat or insert bytes, in one to four places."""
    content = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        at = int(random.integers(len(content) + 1))
        kind = int(random.integers(6))
        size = int(min(2 ** random.uniform(0, 10), len(content) - at))
        if kind == 0 and at < len(content):
            content[at] ^= 1 << int(random.integers(8))
        elif kind == 1:
            del content[at:]
        elif kind == 2:
            del content[at : at + size]
        elif kind == 3:
            content[at:at] = content[at : at + size]
        elif kind == 4:
            content[at:at] = pick(random, ODD_BYTES)
        elif at < len(content):
            content[at] = int(random.integers(256))
    return bytes(content)


def json_damaged(data: bytes, random: Random) -> bytes:
    """Change, drop or add values anywhere in JSON; sometimes its bytes instead."""
    if random.random() < 0.2:
        return bytes_damaged(data, random)
    lines = data.splitlines()
    if len(lines) > 1 and lines[0].endswith(b"]"):  # a line for each record
        index = int(random.integers(len(lines)))
        lines[index] = json_damaged(lines[index], random)
        return b"\n".join(lines) + b"\n"
    content = json.loads(data)
    for _ in range(int(random.integers(1, 4))):
        place = _some_place(content, random)
        if place is None:
            continue
        holder, key = place
        kind = int(random.integers(4))
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[pick(random, ["x", "", "format", f"{key}2"])] = copy.deepcopy(
                pick(random, ODD_VALUES)
            )
        else:
            holder[key] = copy.deepcopy(pick(random, ODD_VALUES))
    return json.dumps(content).encode()


def _some_place(content: Any, random: Random) -> tuple[Any, Any] | None:
    """A container somewhere and one of its keys, each as likely as its depth allows."""
    found = None
    while isinstance(content, (dict, list)) and content:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        found = content, pick(random, list(keys))
        content = content[found[1]]
        if random.random() < 0.3:
            break
    return found


def onnx_damaged(data: bytes, random: Random) -> bytes:
    """Change nodes, attributes, edges, constants and shapes of a graph; sometimes bytes."""
    if random.random() < 0.15:
        return bytes_damaged(data, random)
    model = onnx.ModelProto.FromString(data)
    for _ in range(int(random.integers(1, 4))):
        if model.graph.node:
            pick(random, GRAPH_DAMAGE)(model, random)
    return model.SerializeToString()


def _attribute(model: Any, random: Random) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    attribute = pick(random, pick(random, nodes).attribute)
    if attribute.ints:
        attribute.ints[int(random.integers(len(attribute.ints)))] = pick(random, ODD_NUMBERS)
    else:
        attribute.i = pick(random, ODD_NUMBERS)
        attribute.f = float(pick(random, [0.0, -1.0, 1e38, np.nan]))


def _drop_attribute(model: Any, random: Random) -> None:
    node = pick(random, model.graph.node)
    if node.attribute:
        del node.attribute[int(random.integers(len(node.attribute)))]


def _add_attribute(model: Any, random: Random) -> None:
    name = pick(random, ["axis", "perm", "keepdims", "block_size", "group", "to", "saturate"])
    value = pick(random, [0, -1, 9, [0, 1], [3, 2, 1, 0], 1.5, "x"])
    pick(random, model.graph.node).attribute.append(onnx.helper.make_attribute(name, value))


def _operator(model: Any, random: Random) -> None:
    ops = sorted({node.op_type for node in model.graph.node} | {"Softmax", "Where", "Split"})
    pick(random, model.graph.node).op_type = pick(random, ops)


def _edge(model: Any, random: Random) -> None:
    node = pick(random, model.graph.node)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)]
    if node.input:
        node.input[int(random.integers(len(node.input)))] = pick(random, [*names, "", "nobody"])


def _drop_input(model: Any, random: Random) -> None:
    node = pick(random, model.graph.node)
    if node.input:
        del node.input[int(random.integers(len(node.input)))]


def _drop_node(model: Any, random: Random) -> None:
    """Its readers read what it read."""
    index = int(random.integers(len(model.graph.node)))
    node = model.graph.node[index]
    source, gone = (node.input[0] if node.input else ""), set(node.output)
    del model.graph.node[index]
    for other in model.graph.node:
        for i, name in enumerate(other.input):
            if name in gone:
                other.input[i] = source


def _swap_nodes(model: Any, random: Random) -> None:
    nodes = list(model.graph.node)
    a, b = (int(random.integers(len(nodes))) for _ in range(2))
    nodes[a], nodes[b] = nodes[b], nodes[a]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _constant(model: Any, random: Random) -> None:
    """Other values of the same shape, or another shape or type."""
    if not model.graph.initializer:
        return
    tensor = pick(random, model.graph.initializer)
    array = np.array(onnx.numpy_helper.to_array(tensor))
    kind = int(random.integers(5))
    if kind == 0:
        array = array.astype(pick(random, ["int8", "uint8", "int16", "int32", "int64", "float16"]))
    elif kind == 1:
        array = array.reshape(-1)[: int(random.integers(array.size + 1))]
    elif kind == 2:
        array = np.expand_dims(array, 0)
    elif array.dtype.kind == "f":
        array[...] = pick(random, [0, -1, np.nan, np.inf, 1e-45, 1e38])
    else:
        info = np.iinfo(array.dtype)
        array[...] = pick(random, [info.min, info.max, 0, 1, 3])
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def _tensor_proto(model: Any, random: Random) -> None:
    """A tensor whose fields contradict each other."""
    if not model.graph.initializer:
        return
    tensor = pick(random, model.graph.initializer)
    kind = int(random.integers(4))
    if kind == 0:
        tensor.raw_data = bytes_damaged(tensor.raw_data, random)
    elif kind == 1:
        tensor.data_type = int(random.integers(0, 26))
    elif kind == 2:
        tensor.dims.append(pick(random, [0, 2, -1, 1 << 40]))
    else:
        tensor.name = pick(random, ["", "x", tensor.name + "2"])


def _picture_size(model: Any, random: Random) -> None:
    value = pick(random, [*model.graph.input, *model.graph.output])
    tensor = value.type.tensor_type
    kind = int(random.integers(4))
    if kind == 0:
        tensor.elem_type = int(random.integers(0, 20))
    elif kind == 1 and tensor.shape.dim:
        pick(random, tensor.shape.dim).dim_value = pick(random, ODD_NUMBERS)
    elif kind == 2:
        tensor.shape.dim.add().dim_value = pick(random, [1, 3, 5])
    else:
        value.name = pick(random, ["", "x", "nobody", *model.graph.node[-1].output])


def _version(model: Any, random: Random) -> None:
    kind = int(random.integers(3))
    if kind == 0:
        model.opset_import[0].version = pick(random, [0, 1, 9, 12, 13, 17, 18, 20, 23, 99, -1])
    elif kind == 1:
        entry = model.metadata_props.add()
        entry.key = f"vitq.{pick(random, ['nonlinear', 'mean', 'std', 'preprocessing'])}"
        entry.value = pick(random, ["", "x", "1 2 3", "nan 0 1", "{}", "[1]", "vitq", "0 0 0"])
    else:
        pick(random, model.graph.node).domain = pick(random, ["com.microsoft", "x", "ai.onnx.ml"])


GRAPH_DAMAGE: list[Callable[[Any, Random], None]] = [
    _attribute, _attribute, _drop_attribute, _add_attribute, _operator, _edge, _edge, _drop_input,
    _drop_node, _drop_node, _swap_nodes, _constant, _constant, _constant, _tensor_proto,
    _picture_size, _version,
]  # fmt: skip
