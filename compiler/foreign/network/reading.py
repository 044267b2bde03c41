"""Reads a float ONNX file: checked, its functions inlined, its ends found, what is behind cut."""

import logging
from pathlib import Path
from typing import Any

from vitq.compiler.foreign.facts import Facts, label, op_of
from vitq.compiler.foreign.network.call import OPERATORS
from vitq.compiler.foreign.network.network import Network
from vitq.compiler.foreign.preparing import (
    CHANNELS,
    channels_first,
    drop_initializers,
    ends_of,
    picture_sizes,
)
from vitq.compiler.foreign.reading import checked, loaded, parsed
from vitq.compiler.foreign.refusal import counted, named
from vitq.compiler.support.limits import LARGEST_SIDE
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)

BEHIND = ("Softmax", "ArgMax", "LogSoftmax")
"""Operators at the end that only say which class is best, or by how much."""
FLOAT32 = 1
UNKNOWN = "build the model without them, or bring it as a PyTorch module"


def read_network(path: Path) -> Network:
    """Return a float file as a module.

    Args:
        path: the ``.onnx`` file; large tensors may lie beside it.

    Returns:
        The module, in eval mode; see `Network`.

    Raises:
        VitqError: no ONNX, damaged, several inputs, unknown operators (all listed), a quantized
            file.
    """
    import onnx.inliner

    model = onnx.inliner.inline_local_functions(loaded(path))
    checked(model, path)
    drop_initializers(model.graph)
    facts = Facts(model)
    pictures, results = ends_of(facts, path)
    if pictures.type.tensor_type.elem_type not in (FLOAT32, 10, 16):
        raise VitqError(
            f"{path}: its input {pictures.name} holds integers: export a model that takes "
            "normalized float pictures"
        )
    outputs = tuple(_scores(facts, value.name) for value in results)
    _prune(model.graph, facts, outputs)
    _require_known(model.graph, path)
    channels_first(Facts(model), pictures)
    dims = picture_sizes(pictures, path)
    if max(dims[1:]) > LARGEST_SIDE:
        sides = "x".join(map(str, dims[1:]))
        raise VitqError(f"{path}: pictures of {sides}: at most {LARGEST_SIDE} a side")
    last = dims[3] in CHANNELS and dims[1] not in CHANNELS
    batch, channels, height, width = dims if not last else [dims[0], dims[3], *dims[1:3]]
    size = (height, width) if height and width else None
    try:
        found = Network(model, pictures.name, outputs, size, channels or 3, batch, last)
    except VitqError as error:
        raise VitqError(f"{path}: {error}") from error
    return found.eval()


def files_of(path: Path) -> list[Path]:
    """Return a file, and those beside it that hold its large tensors.

    Args:
        path: the ``.onnx`` file.

    Raises:
        VitqError: no readable ONNX file.
    """
    places = {
        entry.value
        for tensor in parsed(path).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path, *(path.parent / place for place in sorted(places))]


def _require_known(graph: Any, path: Path) -> None:
    """Refuse operators that no function computes, all at once."""
    unknown = [node for node in graph.node if op_of(node) not in {*OPERATORS, "Constant"}]
    if unknown:
        ops, names = counted(map(op_of, unknown)), named([label(node) for node in unknown])
        raise VitqError(f"{path}: operators that are not supported: {ops} ({names}): {UNKNOWN}")


def _scores(facts: Facts, name: str) -> str:
    """Return what a result ranks: a softmax or argmax at the end is left out, and said."""
    node = facts.made.get(name)
    while node is not None and node.op_type in BEHIND:
        logger.info(
            "the file's last operator, %s (%s), is left out: the library gives the scores before "
            "it",
            *(label(node), node.op_type),
        )
        name = node.input[0]
        node = facts.made.get(name)
    return name


def _prune(graph: Any, facts: Facts, outputs: tuple[str, ...]) -> None:
    """Drop what no result reads."""
    live, pending = set(), list(outputs)
    while pending:
        node = facts.made.get(pending.pop())
        if node is not None and id(node) not in live:
            live.add(id(node))
            pending += node.input
    kept = [node for node in graph.node if id(node) in live]
    copies = [type(node).FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)
