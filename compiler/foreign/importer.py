"""ONNX becomes Relax, with each operator's name: what cannot be read is one line with the node.

TVM's frontend numbers its variables (``lv123``). Here each is called after the node that computes
it, so that whatever is said of it later can name the user's own node.
"""

import io
import re
import warnings
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
from tvm import IRModule, relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter, get_constant

from vitq.compiler.foreign.facts import Facts, label, op_of
from vitq.compiler.foreign.preparing import MADE_FOR, Prepared
from vitq.compiler.foreign.refusal import refusal
from vitq.numerics.errors import VitqError, reason
from vitq.relay_passes.expressions import MAIN, bindings_of, is_constant, is_tensor

LONGEST_NAME = 80
CONSTANT_PADS = 11
"""From this opset on the widths of a Pad are an input."""
REMEDY = "if onnxruntime runs the file, please report it; else export it again"


class Named:
    """Which node a variable came from.

    Attributes:
        nodes: variable -> (name in the file, operator).
    """

    def __init__(self) -> None:
        self.nodes: dict[str, tuple[str, str]] = {}

    def complete(self, mod: IRModule) -> None:
        """Give the parts of an operator, which come before its result, its name, too."""
        parts: list[str] = []
        for binding in bindings_of(mod[MAIN]):
            found = self.nodes.get(binding.var.name)
            if found is None:
                parts.append(binding.var.name)
                continue
            self.nodes |= dict.fromkeys(parts, found)
            parts = []

    def of(self, variable: str) -> tuple[str, str]:
        """Return the node of a variable, or of the one that a pass named its variable after.

        Args:
            variable: ``x``, or ``x_part``, ``x1``.

        Returns:
            Its name and operator; the variable itself and nothing where none is known.
        """
        for end in range(len(variable), 0, -1):
            found = self.nodes.get(variable[:end])
            if found is not None:
                return found
        return variable, ""


class _Importer(ONNXGraphImporter):
    """TVM's importer, which binds each operator under its node's name."""

    def __init__(self, shapes: dict[str, list[int]], named: Named) -> None:
        super().__init__(shapes, "float32")
        self._named = named
        self._waiting: list[Any] = []
        self.node: Any = None

    def _construct_nodes(self, graph: Any) -> None:
        self._waiting = list(graph.node)[::-1]
        super()._construct_nodes(graph)

    def _parse_attr(self, attr_proto: Any) -> dict[str, Any]:
        """Read a node's attributes: the first thing that is done for each."""
        self.node = self._waiting.pop()
        found: dict[str, Any] = super()._parse_attr(attr_proto)
        return found

    def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
        result = (
            self._zero_pad(inputs, attrs) if op_name == "Pad" and opset >= CONSTANT_PADS else None
        )
        if result is None:
            result = super()._convert_operator(op_name, inputs, attrs, opset)
        if isinstance(result, relax.Tuple):
            return relax.Tuple([self._bound(part) for part in result.fields])
        return self._bound(result)

    def _zero_pad(self, inputs: Any, attrs: Any) -> Any:
        """Return a pad with zeros as Relax's operator (TVM's frontend makes a function of it)."""
        pads, value = (get_constant(inputs[i], [self._nodes, self._params]) for i in (1, 2))
        zero = value is None or (is_constant(value) and not value.value.numpy().any())
        mode = attrs.get("mode", b"constant")
        if inputs[3] is not None or mode != b"constant" or not zero or not is_constant(pads):
            return None
        before, after = np.split(pads.value.numpy(), 2)
        if min(*before, *after) < 0:
            return None
        return relax.op.nn.pad(inputs[0], np.stack([before, after], 1).reshape(-1).tolist())

    def _bound(self, result: Any) -> Any:
        """Bind what an operator computes, under its node's name; leave constants and shapes."""
        if isinstance(result, relax.DataflowVar):  # TVM has bound it already
            self._named.nodes.setdefault(result.name, (label(self.node), op_of(self.node)))
        is_operator = isinstance(result, relax.Call) and is_tensor(result)
        if not is_operator or is_constant(result):
            return result
        variable = self.bb.emit(result, identifier(label(self.node)))
        self._named.nodes[variable.name] = (label(self.node), op_of(self.node))
        return variable


def identifier(name: str) -> str:
    """Return a node's name as a variable's."""
    letters = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[-LONGEST_NAME:]
    return f"n{letters}" if not letters or letters[0].isdigit() else letters


def to_relax(prepared: Prepared, path: Path) -> tuple[IRModule, Named]:
    """Import a prepared model.

    Args:
        prepared: from `preparing.prepare`.
        path: for messages.

    Returns:
        The module, and the names of its nodes.

    Raises:
        VitqError: what TVM's frontend does not take, with the node.
    """
    model, named = prepared.model, Named()
    facts = Facts(model)
    importer = _Importer({prepared.input_name: list(prepared.shape)}, named)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mod = importer.from_onnx(model.graph, facts.opset)
    except VitqError:
        raise
    except Exception as error:
        with suppress(Exception):
            importer.bb._end_block()  # else TVM warns of it later, on standard error
        node = importer.node
        where = "" if node is None else f"node {label(node)} ({op_of(node)}): "
        what = f"{where}it cannot be imported: {reason(error)}"
        remedy = f"{MADE_FOR.format(prepared.shape[0])}, or {REMEDY}"
        raise refusal(
            path, what, [], facts, REMEDY if prepared.shape[0] == 1 else remedy
        ) from error
    named.complete(mod)
    return mod, named
