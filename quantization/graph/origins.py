"""Where a node comes from: the PyTorch module that computes it, and the line of its code.

``torch.export`` notes for each operator the stack of modules (by their names in the model) and the
stack of Python calls. A node's module is the innermost one: ``blocks.0.attn.qkv`` for a linear
layer, ``blocks.0.attn`` for the product of scores inside of it. Its line is the innermost one that
is not PyTorch's own. A stored tensor that is used like an activation is called by its own name.

A person is shown `label_of`, which is as good as unique:

    | node | shown as |
    |---|---|
    | linear, convolution, LayerNorm, GELU of a module of their own | blocks.0.attn.qkv |
    | anything else | blocks.0.attn: exp |
    | one of several selects | blocks.0.attn: select 2 |
    | of a model that does not say | linear_5 |
"""

import re
from pathlib import Path
from typing import Any

from vitq.quantization.graph.graph import LAYER_OPS, Graph, Node, OpKind

OWN_MODULE = frozenset({*LAYER_OPS, OpKind.LAYER_NORM, OpKind.GELU})
"""Operators that a module usually holds alone, so that its name says enough."""
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in ')
_PACKAGES = ("site-packages", "dist-packages")


def with_origins(graph: Graph, program: Any) -> Graph:
    """Give every node of a traced graph its module and the line of code.

    Args:
        graph: just traced; edited in place.
        program: the ``torch.export.ExportedProgram`` that it was read from.

    Returns:
        The same graph.
    """
    found = {node.name: node for node in program.graph.nodes}
    stored = {
        **program.graph_signature.inputs_to_parameters,
        **program.graph_signature.inputs_to_buffers,
    }
    for node in graph:
        traced = found.get(node.name) or found.get(node.name.split(".")[0])
        if traced is None:
            continue
        node.module = stored.get(traced.name) or module_of(traced)
        node.source = _source(traced)
    return graph


def module_of(traced: Any) -> str:
    """Return the name of the innermost module that computes a traced node, empty if none does."""
    stack = list((traced.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _source(traced: Any) -> str:
    """File and line of the innermost call outside of PyTorch, as short as they can be found."""
    frames = _FRAME.findall(traced.meta.get("stack_trace") or "")
    for name, line in reversed(frames):
        path = Path(name)
        parts = path.parts
        package = next((parts.index(p) + 1 for p in _PACKAGES if p in parts), None)
        if package is not None and parts[package] == "torch":
            continue
        if package is not None:
            return f"{Path(*parts[package:])}:{line}"
        here = Path.cwd()
        return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line}"
    return ""


def label_of(node: Node) -> str:
    """Return what a node is called for a person (module docstring)."""
    if not node.module:
        return node.name
    if node.op in OWN_MODULE or node.op is OpKind.CONSTANT:
        return node.module
    which = f" {node.attrs['index']}" if node.op is OpKind.SELECT else ""
    return f"{node.module}: {node.op}{which}"
