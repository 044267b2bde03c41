"""Which function converts which operator of PyTorch."""

from collections.abc import Callable
from typing import Any

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.writes import overwrite

Spelling = Callable[[Walk, FxNode], Operand | None]

_SPELLINGS: dict[str, Spelling] = {}


def spelling(*names: str) -> Callable[[Spelling], Spelling]:
    """Convert the operators of these names; one that works in place has ``_`` behind its name."""

    def register(function: Spelling) -> Spelling:
        for name in names:
            _SPELLINGS[name] = function
        return function

    return register


def spell(walk: Walk, node: FxNode) -> Operand | None:
    """Convert one node.

    Args:
        walk: what is known so far.
        node: not fixed.

    Returns:
        Its result; None if whoever reads it converts it.

    Raises:
        Refusal: if the graph cannot express it.
    """
    if node in walk.composed:
        made = walk.composed[node]
        return None if made is None else made[0](walk, made[1])
    name = name_of(node)
    found = _SPELLINGS.get(name)
    in_place = found is None and name.endswith("_") and name[:-1] in _SPELLINGS
    if in_place:
        found = _SPELLINGS[name[:-1]]
    if found is None:
        raise Refusal(name)
    result = found(walk, node)
    if in_place and result is not None:
        overwrite(walk, node, result, spell)
    return result


def arguments(node: FxNode, **defaults: Any) -> list[Any]:
    """Return a node's arguments in the order of `defaults`, by place, by name or by default."""
    given = list(node.args)
    rest = list(defaults.items())[len(given) :]
    return given + [node.kwargs.get(name, default) for name, default in rest]
