"""Evaluates what a file computes of shapes, once these are fixed.

An exporter writes a class token that is expanded to the batch as
``Expand(token, Concat(Gather(Shape(x), 0), [1, C]))``; with the batch known that is a constant.
Only small integers are evaluated here, by onnx's own reference; floats are the passes' matter.
"""

from typing import Any

import numpy as np

from vitq.compiler.foreign.facts import OWN_DOMAINS, Facts
from vitq.numerics.arrays import IntArray

ARITHMETIC = frozenset(
    "Add Cast Concat ConstantOfShape Div Equal Gather Greater Identity Mul Pow Reshape Slice "
    "Squeeze Sub Unsqueeze Where".split()
)
LARGEST = 64
"""Elements of a shape's arithmetic."""


def fold_shapes(model: Any) -> bool:
    """Replace nodes whose result is known by constants; `model` is changed.

    Args:
        model: with the shapes that are known in its ``value_info``.

    Returns:
        Whether anything was.
    """
    import onnx

    facts = Facts(model)
    sizes = _known_sizes(facts)
    known: dict[str, IntArray] = {}
    kept, outputs = [], {value.name for value in facts.graph.output}
    for node in facts.nodes:
        result = None
        if node.domain in OWN_DOMAINS and len(node.output) == 1 and node.output[0] not in outputs:
            result = _result(node, facts, sizes, known)
        if result is None:
            kept.append(node)
            continue
        known[node.output[0]] = result
        model.graph.initializer.append(onnx.numpy_helper.from_array(result, node.output[0]))
    if known:
        del model.graph.node[:]
        model.graph.node.extend(kept)
    return bool(known)


def _known_sizes(facts: Facts) -> dict[str, list[int]]:
    """Return the shape of each tensor that has a fixed one."""
    found = {}
    for value in (*facts.graph.input, *facts.graph.value_info):
        tensor = value.type.tensor_type
        sizes = [dim.dim_value for dim in tensor.shape.dim]
        if tensor.HasField("shape") and all(size > 0 for size in sizes):
            found[value.name] = sizes
    return found


def _result(
    node: Any, facts: Facts, sizes: dict[str, list[int]], known: dict[str, IntArray]
) -> IntArray | None:
    """Evaluate a node; None where its operands are not known, or it is none of a shape's."""
    if node.op_type == "Shape" and node.input and node.input[0] in sizes:
        limits = {a.name: a.i for a in node.attribute}
        part = sizes[node.input[0]][limits.get("start", 0) : limits.get("end", None)]
        return np.array(part, np.int64)
    if node.op_type not in ARITHMETIC or not any(name in known for name in node.input):
        return None
    operands = {}
    for name in node.input:
        value = known[name] if name in known else facts.array(name)
        if name and (value is None or value.size > LARGEST or value.dtype.kind not in "iub"):
            return None
        operands[name] = value
    return _evaluated(node, operands, facts.opset)


def _evaluated(node: Any, operands: dict[str, Any], opset: int) -> IntArray | None:
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(node, opsets={"": opset})
        result = np.asarray(evaluator.run(None, {k: v for k, v in operands.items() if k})[0])
    except Exception:  # a damaged node: the importer will say so
        return None
    is_small = result.size <= LARGEST and result.dtype.kind in "iub"
    return result.copy() if is_small else None
