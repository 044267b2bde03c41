"""Functions of one number that are written in pieces: recognized by what they compute.

    x / sqrt(2) -> erf -> + 1 -> * x -> * 0.5                         GELU
    x^3 -> * 0.044715 -> + x -> * sqrt(2 / pi) -> tanh -> ...         GELU by tanh
    softplus -> tanh -> * x                                           Mish

An operator that occurs only in such functions (`spelled`) is looked at from both sides: what it
reads, through operators of each element and numbers, are possible arguments, and everything that is
made of such an argument and numbers alone is a possible result. The function from one to the other
is computed on a grid and compared with those that have a name. The largest that has one counts.
"""

from typing import Any, NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

from vitq.quantization.graph.builder import Operand
from vitq.quantization.graph.functions import Function
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of

ELEMENTWISE = frozenset({
    "add", "clone", "div", "erf", "mul", "neg", "pow", "reciprocal", "rsub", "sigmoid", "softplus",
    "square", "sub", "tanh",
})  # fmt: skip
GELU = {
    "none": F.gelu,
    "tanh": lambda x: F.gelu(x, approximate="tanh"),
}
NAMED: dict[str, Function] = {"mish": F.mish}
GRID = torch.linspace(-20, 20, 4001, dtype=torch.float64)
"""Where functions are compared."""
TOLERANCE = 1e-5
"""Of the largest difference: constants are written with six digits or more."""
FURTHEST = 40
"""Operators behind an argument that are looked at."""


class Found(NamedTuple):
    """A function in pieces.

    Attributes:
        source: its argument.
        end: its result.
        inner: the operators between.
        kind: a name of `NAMED`, or a form of `GELU`.
    """

    source: FxNode
    end: FxNode
    inner: set[FxNode]
    kind: str


def compose(w: Walk, node: FxNode) -> bool:
    """Remember the function that an operator is a part of, and tell whether there is one.

    Args:
        w: what is known; the operators inside are passed over, the last one gets the result.
        node: an operator of `ELEMENTWISE`.
    """
    source: Any = node
    while (source := _argument(w, source)) is not None:
        found = _largest(w, source, node)
        if found is not None:
            w.composed.update(dict.fromkeys(found.inner))
            w.composed[found.end] = (_apply, found)
            return True
        if name_of(source) not in ELEMENTWISE:
            break
    return False


def _apply(w: Walk, found: Found) -> Operand:
    """Return the function's result."""
    x = w.x(found.source)
    if found.kind in GELU:
        return w.build.rowwise(OpKind.GELU, x, {"approximate": found.kind})
    return w.build.pointwise(x, found.kind)


def _number(w: Walk, arg: Any) -> float | None:
    """Return a number, or a constant that holds one."""
    found = w.tensor(arg)
    return float(found) if found is not None and found.numel() == 1 else None


def _argument(w: Walk, node: FxNode) -> FxNode | None:
    """Return what an operator reads beside numbers, if that is one tensor."""
    tensors = {arg for arg in node.all_input_nodes if _number(w, arg) is None}
    return tensors.pop() if len(tensors) == 1 else _common(w, tensors)


def _common(w: Walk, tensors: set[FxNode]) -> FxNode | None:
    """Return what several operands are all made of: of x and x^3, x."""
    for one in tensors:
        others = tensors - {one}
        if others and all(one in _region_inputs(w, other) for other in others):
            return one
    return None


def _region_inputs(w: Walk, node: FxNode) -> set[FxNode]:
    """Return what an operator is made of, through operators of each element."""
    found: set[FxNode] = set()
    pending = [node]
    while pending and len(found) < FURTHEST:
        one = pending.pop()
        if name_of(one) in ELEMENTWISE:
            inputs = [arg for arg in one.all_input_nodes if _number(w, arg) is None]
            found.update(inputs)
            pending += inputs
    return found


def _largest(w: Walk, source: FxNode, node: FxNode) -> Found | None:
    """Return the largest function of an argument that has a name and `node` inside."""
    values: dict[FxNode, torch.Tensor] = {source: GRID}
    after = source.next
    for _ in range(FURTHEST):
        if after.op != "call_function":
            if after.op == "output":
                break
        elif name_of(after).rstrip("_") in ELEMENTWISE and not name_of(after).endswith("_"):
            value = _computed(w, after, values)
            if value is not None:
                values[after] = value
        after = after.next
    for end in reversed(list(values)):
        kind = _name_of(values[end]) if end is not source else ""
        if not kind:
            continue
        inside = _between(end, values, source)
        if node in inside:
            hidden = {one for one in inside if one is not end and set(one.users) <= inside}
            return Found(source, end, hidden, kind)
    return None


def _computed(w: Walk, node: FxNode, values: dict[FxNode, torch.Tensor]) -> torch.Tensor | None:
    """Compute an operator on the grid, if it reads the argument's functions and numbers alone."""
    if not any(arg in values for arg in node.all_input_nodes):
        return None
    args: list[Any] = []
    for arg in node.args:
        known = values.get(arg) if isinstance(arg, torch.fx.Node) else None
        value = known if known is not None else _number(w, arg)
        if value is None:
            return None
        args.append(value)
    kept = {key: value for key, value in node.kwargs.items() if key == "alpha"}
    found: torch.Tensor = node.target(*args, **kept)
    return found


def _name_of(value: torch.Tensor) -> str:
    """Return which function a grid's values are of; empty if of none."""
    for kind, function in {**GELU, **NAMED}.items():
        if float((function(GRID) - value).abs().max()) <= TOLERANCE:
            return kind
    return ""


def _between(end: FxNode, values: dict[FxNode, torch.Tensor], source: FxNode) -> set[FxNode]:
    """Return the operators that a result is made of."""
    found: set[FxNode] = set()
    pending = [end]
    while pending:
        one = pending.pop()
        if one is not source and one in values and one not in found:
            found.add(one)
            pending += one.all_input_nodes
    return found
