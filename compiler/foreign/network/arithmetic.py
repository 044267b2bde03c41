"""Operators of numbers: element by element, and over axes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

from vitq.compiler.foreign.network.call import Call, operator
from vitq.compiler.foreign.network.values import Host, Value, is_host, to_tensor
from vitq.numerics.errors import VitqError

Binary = Callable[[Any, Any], Any]
BINARY: dict[str, tuple[Binary, Binary]] = {
    "Add": (torch.add, np.add),
    "Sub": (torch.sub, np.subtract),
    "Mul": (torch.mul, np.multiply),
    "Div": (torch.div, np.divide),
    "Pow": (torch.pow, np.power),
    "Equal": (torch.eq, np.equal),
    "Greater": (torch.gt, np.greater),
    "GreaterOrEqual": (torch.ge, np.greater_equal),
    "Less": (torch.lt, np.less),
    "LessOrEqual": (torch.le, np.less_equal),
    "And": (torch.logical_and, np.logical_and),
    "Or": (torch.logical_or, np.logical_or),
    "Mod": (torch.remainder, np.mod),
}
"""In PyTorch, and on the host."""
UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Abs": torch.abs,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}
ON_HOST: dict[str, Callable[[Host], Host]] = {
    "Abs": np.abs,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Reciprocal": np.reciprocal,
    "Sin": np.sin,
    "Sqrt": np.sqrt,
}
FLOATS = (1, 10, 11, 16)
"""ONNX's types float32, float16, float64 and bfloat16: all are computed in float32."""


@operator(*BINARY)
def binary(call: Call) -> Value:
    """Compute an operator of two numbers, with broadcasting."""
    in_torch, on_host = BINARY[call.op]
    first, second = call.value(0), call.value(1)
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        integers = call.op == "Div" and all(v.dtype.kind in "iuO" for v in (first, second))
        return np.asarray((np.floor_divide if integers else on_host)(first, second))
    number = call.number(1)
    if number is not None and np.ndim(call.host(1)) <= to_tensor(first).ndim:
        return in_torch(to_tensor(first), number)
    number = call.number(0)
    if number is not None and np.ndim(call.host(0)) <= to_tensor(second).ndim:
        return _from_number(call.op, number, to_tensor(second))
    return in_torch(to_tensor(first), to_tensor(second))


def _from_number(op: str, number: float, x: torch.Tensor) -> torch.Tensor:
    """Compute an operator whose first operand is one number."""
    if op == "Div" and number == 1:
        return torch.reciprocal(x)
    if op in ("Add", "Mul"):
        return x + number if op == "Add" else x * number
    return BINARY[op][0](torch.full((1,), number), x)


@operator(*UNARY, *ON_HOST)
def unary(call: Call) -> Value:
    """Compute a function of each number."""
    x = call.value(0)
    if isinstance(x, np.ndarray) and call.op in ON_HOST:
        return np.asarray(ON_HOST[call.op](x))
    if call.op not in UNARY:
        raise VitqError(f"{call.op} of what is in the pictures")
    return UNARY[call.op](to_tensor(x))


@operator("Min", "Max")
def extreme(call: Call) -> Value:
    """Compute the smaller or larger of two: a clamp where one is a number."""
    first, second = call.value(0), call.value(1)
    if len(call.operands) != 2:
        raise VitqError(f"{call.op} of {len(call.operands)} operands")
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return (np.minimum if call.op == "Min" else np.maximum)(first, second)
    for index, other in ((1, first), (0, second)):
        number = call.number(index)
        if number is not None:
            x = to_tensor(other)
            return x.clamp(max=number) if call.op == "Min" else x.clamp(min=number)
    chosen = torch.minimum if call.op == "Min" else torch.maximum
    return chosen(to_tensor(first), to_tensor(second))


@operator("Sum")
def total(call: Call) -> torch.Tensor:
    """Add any number of tensors."""
    found = call.x(0)
    for index in range(1, len(call.operands)):
        found = found + call.x(index)
    return found


@operator("Clip")
def clip(call: Call) -> torch.Tensor:
    """Clamp: the ends are attributes of older opsets, operands of newer ones."""
    low, high = (
        call.number(index) if call.has(index) else call.get(name)
        for index, name in ((1, "min"), (2, "max"))
    )
    if (call.has(1) and low is None) or (call.has(2) and high is None):
        raise VitqError("Clip to what is computed")
    x = call.x()
    if (low, high) == (0, 6):
        return F.relu6(x)
    return x if low is None and high is None else x.clamp(low, high)


@operator("Cast", "CastLike")
def cast(call: Call) -> Value:
    """Change the type: floats stay float32, what is on the host stays there."""
    x, to = call.value(0), call.get("to")
    if call.op == "CastLike":
        like = call.value(1)
        floats = like.is_floating_point() if isinstance(like, torch.Tensor) else False
        to = 1 if floats else 7
    if is_host(x):
        return _cast_on_host(x, to)  # type: ignore[arg-type]
    x = to_tensor(x)
    if to in FLOATS:
        return x.to(torch.float32)
    return x.bool() if to == 9 else x.to(torch.int64)


def _cast_on_host(x: Host, to: int) -> Host:
    if x.dtype == object:  # sizes with a symbol stay what they are
        return x
    return x.astype(np.float64 if to in FLOATS else np.bool_ if to == 9 else np.int64)


REDUCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "ReduceMean": torch.mean,
    "ReduceSum": torch.sum,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL2": torch.linalg.vector_norm,
}
REDUCTIONS_ON_HOST: dict[str, Callable[..., Any]] = {
    "ReduceMean": np.mean,
    "ReduceSum": np.sum,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
}


@operator(*REDUCTIONS, "ReduceProd")
def reduce(call: Call) -> Value:
    """Reduce over axes."""
    axes, keeps = call.axes(), bool(call.get("keepdims", 1))
    x = call.value(0)
    if isinstance(x, np.ndarray):
        over = None if axes is None else tuple(axes)
        return np.asarray(REDUCTIONS_ON_HOST[call.op](x, axis=over, keepdims=keeps))
    if call.op not in REDUCTIONS:
        raise VitqError(f"{call.op} of what is in the pictures")
    if axes is None:
        if call.get("noop_with_empty_axes", 0):
            return x
        axes = list(range(x.ndim))
    return REDUCTIONS[call.op](x, dim=axes, keepdim=keeps)


@operator("Where")
def where(call: Call) -> Value:
    """Choose by a mask."""
    parts = [call.value(index) for index in range(3)]
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.where(*(np.asarray(part) for part in parts))
    known = call.number(0)
    mask, first, second = map(to_tensor, parts)
    if known is not None:
        chosen, other = (first, second) if known else (second, first)
        if chosen.ndim >= other.ndim and other.numel() == 1:
            return chosen
    return torch.where(mask.bool(), first, second)


@operator("IsNaN")
def is_nan(call: Call) -> Host:
    """Return False: exporters ask it of softmax, whose rows are never hidden as a whole.

    A row that is would be another model: `check_network` compares with onnxruntime.
    """
    return np.array(False)


@operator("Gelu", "com.microsoft.Gelu")
def gelu(call: Call) -> torch.Tensor:
    """GELU."""
    return F.gelu(call.x(), approximate=call.get("approximate", "none"))


@operator("com.microsoft.FastGelu", "com.microsoft.BiasGelu")
def biased_gelu(call: Call) -> torch.Tensor:
    """GELU of a sum: the fast one is the form by tanh, its bias may be left out."""
    x = call.x() + call.x(1) if call.has(1) else call.x()
    return F.gelu(x, approximate="tanh" if call.op.endswith("FastGelu") else "none")


@operator("com.microsoft.QuickGelu")
def quick_gelu(call: Call) -> torch.Tensor:
    """X * sigmoid(alpha * x)."""
    x = call.x()
    return x * torch.sigmoid(call.get("alpha", 1.702) * x)


@operator("Elu", "LeakyRelu", "HardSigmoid", "Celu", "Selu", "PRelu")
def sloped(call: Call) -> torch.Tensor:
    """Compute a function with parameters."""
    x, alpha = call.x(), call.get("alpha")
    if call.op == "PRelu":
        return F.prelu(x, call.x(1).reshape(-1))
    if call.op == "HardSigmoid":
        if np.isclose(alpha or 0, 1 / 6) and call.get("beta", 0.5) == 0.5:
            return F.hardsigmoid(x)
        return torch.clamp((0.2 if alpha is None else alpha) * x + call.get("beta", 0.5), 0, 1)
    if call.op == "Selu":
        if alpha is not None:
            raise VitqError("Selu of its own factors")
        return F.selu(x)
    if call.op == "LeakyRelu":
        return F.leaky_relu(x, 0.01 if alpha is None else alpha)
    return (F.elu if call.op == "Elu" else F.celu)(x, 1.0 if alpha is None else alpha)


@operator("Softmax")
def softmax(call: Call) -> torch.Tensor:
    """Softmax over an axis; before opset 13 over that axis and all behind it."""
    x, axis = call.x(), call.get("axis", -1 if call.opset >= 13 else 1)
    if call.opset < 13 and axis % x.ndim != x.ndim - 1:
        return torch.softmax(x.flatten(axis % x.ndim), -1).reshape(x.shape)
    return torch.softmax(x, axis)
