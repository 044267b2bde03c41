"""Functions of one number, and RMS normalization, in standard ONNX operators.

`relay_passes.lower_pointwise` recognizes a function by what it computes, so that any spelling will
do; these are the shortest.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from vitq.numerics.errors import VitqError
from vitq.numerics.pointwise import QUICK_GELU_FACTOR
from vitq.quantization.graph.clamps import ends_of
from vitq.quantization.graph.graph import Node

Emit = Callable[..., str]
Constant = Callable[[str, Any], str]
SINGLE = {
    "abs": "Abs",
    "exp": "Exp",
    "hardswish": "HardSwish",
    "mish": "Mish",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "tanh": "Tanh",
}
"""Functions that are one operator without attributes."""


def write_function(node: Node, x: str, emit: Emit, constant: Constant) -> str:
    """Write a pointwise node.

    Args:
        node: its function and parameter.
        x: the value that it reads.
        emit: writes an operator: its type, inputs and output, attributes; returns the output.
        constant: writes an initializer: its name and value; returns the name.

    Returns:
        The result's name.

    Raises:
        VitqError: for a function that has no spelling.
    """
    function, name = node.attrs["function"], node.name
    parameter = node.attrs.get("parameter")
    if function in SINGLE:
        return emit(SINGLE[function], [x], name)
    if function in ("silu", "quick_gelu"):
        inner = x
        if function == "quick_gelu":
            factor = constant("quick_gelu.factor", np.float32(QUICK_GELU_FACTOR))
            inner = emit("Mul", [x, factor], f"{name}.steeper")
        return emit("Mul", [x, emit("Sigmoid", [inner], f"{name}.gate")], name)
    ends = ends_of(node)
    if ends is not None:
        names = [
            constant(f"{name}.{which}", np.float32(end)) if np.isfinite(end) else ""
            for which, end in zip(("low", "high"), ends, strict=True)
        ]
        return emit("Clip", [x, *names] if names[1] else [x, names[0]], name)
    if function == "log_sigmoid":
        above = emit("Softplus", [emit("Neg", [x], f"{name}.negative")], f"{name}.below")
        return emit("Neg", [above], name)
    if function in ("reciprocal", "rsqrt"):
        below = x if function == "reciprocal" else emit("Sqrt", [x], f"{name}.root")
        return emit("Div", [constant("one", np.float32(1)), below], name)
    if function == "square":
        return emit("Pow", [x, constant("square.exponent", np.float32(2))], name)
    if function == "hardsigmoid":
        return emit("HardSigmoid", [x], name, alpha=1 / 6, beta=0.5)
    if function == "elu":
        return emit("Elu", [x], name, alpha=1.0 if parameter is None else float(parameter))
    if function == "leaky_relu":
        return emit("LeakyRelu", [x], name, alpha=float(node.attrs["parameter"]))
    raise VitqError(f"{name}: the function {function} cannot be written as ONNX QDQ")


def write_rms_norm(node: Node, x: str, gamma: str, emit: Emit, constant: Constant) -> str:
    """Write ``x / sqrt(mean(x * x) + eps) * gamma`` over the last axis.

    Args:
        node: its eps.
        x: the value that it reads.
        gamma: (C,).
        emit: writes an operator.
        constant: writes an initializer.

    Returns:
        The result's name.
    """
    name = node.name
    last = constant("last_axis", np.array([-1], np.int64))
    eps = constant(f"{name}.eps", np.float32(node.attrs["eps"]))
    square = emit("Mul", [x, x], f"{name}.square")
    mean = emit("ReduceMean", [square, last], f"{name}.mean", keepdims=1)
    root = emit("Sqrt", [emit("Add", [mean, eps], f"{name}.moved")], f"{name}.root")
    return emit("Mul", [emit("Div", [x, root], f"{name}.unit"), gamma], name)
