"""What the results of a traced model are called.

The program returns a flat list; the way to it (``out_spec``) is that of the model's own result, so
that names are found as `tensors_of` finds them in a result at run time:

    | the model returns | names |
    |---|---|
    | one tensor of class scores, however it is packed | logits |
    | one other tensor | its own name, or features |
    | dict, dataclass, named tuple | keys; nested ones with dots: aux.0 |
    | tuple, list | 0, 1, ... |

One tensor is of class scores if it is (N, classes), no LayerNorm makes it, and the model does not
say that it has no classes (timm's ``num_classes`` of 0): an embedding has no first choice. Of
several tensors the one called ``logits`` is.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils import _pytree

from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, OpKind
from vitq.quantization.graph.outputs import FEATURES, LOGITS

logger = logging.getLogger(__name__)

KEEPS_NAMES = "_vitq_keeps_names"
"""Mark of a model whose results were chosen by name."""
LEFT = "_vitq_left_out"
"""Of a model: which of its results the last call left out, as text."""
_NORMS = frozenset({OpKind.LAYER_NORM})


def tensors_of(value: Any, kind: type, path: str = "") -> Iterator[tuple[str, Any]]:
    """Find what a result holds, with its name.

    Args:
        value: any packing.
        kind: of what is looked for.
        path: name of `value` itself.

    Yields:
        Name and tensor, in order.
    """
    if isinstance(value, kind):
        yield path, value
        return
    for key, inner in members(value):
        yield from tensors_of(inner, kind, f"{path}.{key}" if path else str(key))


def named_tensors(value: Any, kind: type) -> dict[str, Any]:
    """Return what `tensors_of` finds, by name.

    Raises:
        VitqError: two of them have one name: a key with a dot, and the way to an inner one.
    """
    found: dict[str, Any] = {}
    for name, tensor in tensors_of(value, kind):
        if name in found:
            raise VitqError(
                f"the model returns two results that are called {name}: give keys without dots"
            )
        found[name] = tensor
    return found


def members(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield key and value of what a packing holds itself; nothing of anything else."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif hasattr(value, "_fields") and isinstance(value, tuple):
        yield from zip(getattr(value, "_fields", ()), value, strict=True)
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a result is in the program's list."""

    key: str


def result_nodes(results: tuple[Any, ...], name: Callable[[Any], str]) -> dict[str, str]:
    """Nodes of the program's results by their place; `with_outputs` gives them names.

    Args:
        results: of the program's output.
        name: of a node of the graph.
    """
    return {
        str(place): name(node)
        for place, node in enumerate(results)
        if isinstance(node, torch.fx.Node)
    }


def with_outputs(
    graph: Graph, program: torch.export.ExportedProgram, model: torch.nn.Module
) -> Graph:
    """Give the results of a traced graph their names.

    Args:
        graph: just traced, its outputs by place; edited in place.
        program: that it was read from.
        model: that was exported.

    Returns:
        The same graph.

    Raises:
        VitqError: a result without a tensor, or one that is no row for each picture.
    """
    count = len(program.graph_signature.user_outputs)
    places = [_Place(str(place)) for place in range(count)]
    spec = program.call_spec.out_spec
    packed = places if spec is None else _pytree.tree_unflatten(places, spec)
    found = {name: p.key for name, p in tensors_of(packed, _Place) if p.key in graph.outputs}
    if not found:
        raise VitqError("the model returns no tensor: return the logits (N, classes) or features")
    is_chosen = getattr(model, KEEPS_NAMES, False)
    if len(found) == 1 and not is_chosen:
        ((name, key),) = found.items()
        found = {_only_name(graph, key, name, model): key}
    if getattr(model, LEFT, "") and not is_chosen:
        logger.info(
            "%s: of its results %s are taken, and not %s (--output-features chooses others)",
            *(type(model).__name__, ", ".join(found), getattr(model, LEFT)),
        )
    graph.outputs = {name: graph.outputs[key] for name, key in found.items()}
    for name, node in graph.outputs.items():
        shape, axis = graph.nodes[node].shape, graph.nodes[node].batch_axis
        if axis != 0 or shape[0] != 1:
            why = (
                "does not depend on the picture" if axis is None else f"is {shape} for one picture"
            )
            raise VitqError(
                f"the model's result {name} {why}: return tensors whose first dimension is the "
                "number of pictures, or choose others with --output-features"
            )
        if len(shape) == 1:
            raise VitqError(
                f"the model's result {name} is one number for each picture, without an axis: "
                "return it as (N, 1)"
            )
    return graph


def _only_name(graph: Graph, key: str, name: str, model: torch.nn.Module) -> str:
    """Name of the only result (module docstring)."""
    node = graph.nodes[graph.outputs[key]]
    is_row = len(node.shape) == 2
    while node.op in LAYOUT_OPS and node.inputs:
        node = graph.operand(node)
    has_classes = getattr(model, "num_classes", None) != 0 and node.op not in _NORMS
    return LOGITS if is_row and has_classes else name or FEATURES
