"""Matrix products: linear layers, matmul, einsum."""

from typing import Any

import numpy as np

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.spellings.registry import arguments, spelling


def affine(w: Walk, weight: Any, bias: Any) -> dict[str, str]:
    """Return the parameters (weight, bias) of a layer, with zeros for a bias that is absent."""
    key = w.key(weight)
    if bias is not None:
        return {"weight": key, "bias": w.key(bias)}
    zero = f"{key}.zero_bias"
    w.build.tensors[zero] = np.zeros(w.build.tensors[key].shape[0], np.float32)
    return {"weight": key, "bias": zero}


@spelling("linear")
def linear(w: Walk, node: FxNode) -> Operand:
    """Apply a linear layer: x W^T + b."""
    x, weight, bias = arguments(node, x=None, weight=None, bias=None)
    if w.tensor(weight) is None and w.tensor(x) is not None:
        raise Refusal("a weight computed at run time")
    return w.build.linear(w.x(x), affine(w, weight, bias))


@spelling("addmm")
def addmm(w: Walk, node: FxNode) -> Operand:
    """Apply a linear layer: b + x W."""
    bias, x, weight = node.args[:3]
    return _by_weight(w, w.x(x), weight, bias)


def _by_weight(w: Walk, x: Operand, weight: Any, bias: Any = None) -> Operand:
    """Multiply by a fixed matrix (K, N): a linear layer."""
    value = w.tensor(weight)
    if value is None or value.ndim != 2:
        raise Refusal("a weight computed at run time")
    key = w.build.tensor(value.detach().float().t().contiguous().numpy(), "weight")
    if bias is None:
        zero = w.build.tensor(np.zeros(value.shape[1]), "bias")
        return w.build.linear(x, {"weight": key, "bias": zero})
    return w.build.linear(x, {"weight": key, "bias": w.key(bias)})


@spelling("matmul", "bmm", "mm")
def matmul(w: Walk, node: FxNode) -> Operand:
    """Multiply matrices; by a fixed one, a linear layer."""
    first, second = node.args[:2]
    value = w.tensor(second)
    if value is not None and value.ndim == 2:
        return _by_weight(w, w.x(first), second)
    a, b = w.alike(first), w.alike(second)
    if min(a.rank, b.rank) < 2:
        raise Refusal(f"{name_of(node)} of a vector")
    return w.build.matmul(a, b)


@spelling("baddbmm")
def baddbmm(w: Walk, node: FxNode) -> Operand:
    """Add a product: beta * c + alpha * (a @ b)."""
    beta, alpha = node.kwargs.get("beta", 1), node.kwargs.get("alpha", 1)
    product = w.build.matmul(w.x(node.args[1]), w.x(node.args[2]))
    if alpha != 1:
        product = w.build.times(product, alpha)
    if beta == 0:
        return product
    addend = w.alike(node.args[0])
    return w.build.add(product, addend if beta == 1 else w.build.times(addend, beta))


@spelling("einsum")
def einsum(w: Walk, node: FxNode) -> Operand:
    """Permute, and multiply matrices: 'bhid,bhjd->bhij' of one or two tensors."""
    equation, args = node.args[0].replace(" ", ""), list(node.args[1])
    inputs, _, output = equation.partition("->")
    terms = inputs.split(",")
    if "." in equation or not output or len(args) > 2 or any(len(set(t)) < len(t) for t in terms):
        raise Refusal(f"einsum {equation}")
    operands = [w.alike(arg) for arg in args]
    if len(args) == 1:
        if sorted(terms[0]) != sorted(output):
            raise Refusal(f"einsum {equation}")
        return w.build.permute(operands[0], [terms[0].index(c) for c in output])
    return _product(w, equation, terms, output, operands)


def _product(
    w: Walk, equation: str, terms: list[str], output: str, operands: list[Operand]
) -> Operand:
    """Order both as (shared..., rows, summed) and (shared..., summed, columns).

    The pictures' axis is a shared one of extent 1 where only one operand has it.
    """
    first, second = terms
    summed = [c for c in first if c in second and c not in output]
    if any(c not in output and c not in summed for c in first + second):
        raise Refusal(f"einsum {equation}")
    pictures = [t[x.batch_axis] for t, x in zip(terms, operands, strict=True)
                if x.batch_axis is not None]  # fmt: skip
    if any(c in summed for c in pictures):
        raise Refusal(f"einsum {equation} over the pictures of a batch")
    shared = [c for c in output if (c in first and c in second) or c in pictures]
    shared.sort(key=lambda c: c not in pictures)
    rows = [c for c in first if c not in shared and c not in summed]
    columns = [c for c in second if c not in shared and c not in summed]
    sizes = {
        c: n for t, x in zip(terms, operands, strict=True) for c, n in zip(t, x.shape, strict=True)
    }
    a = _grouped(w, operands[0], first, shared, [rows, summed], sizes)
    b = _grouped(w, operands[1], second, shared, [summed, columns], sizes)
    product = w.build.matmul(a, b)
    found = [*shared, *rows, *columns]
    product = w.build.reshape(product, [sizes[c] for c in found], product.batch_axis)
    return w.build.permute(product, [found.index(c) for c in output])


def _grouped(
    w: Walk, x: Operand, term: str, shared: list[str], groups: list[list[str]],
    sizes: dict[str, int],
) -> Operand:  # fmt: skip
    """Permute axes to (shared..., groups...) and make each group one axis."""
    present = [c for c in shared if c in term]
    x = w.build.permute(x, [term.index(c) for c in [*present, *groups[0], *groups[1]]])
    batch = x.batch_axis
    if batch is not None:
        batch = shared.index(present[batch])
    lead = [sizes[c] if c in term else 1 for c in shared]
    tail = [int(np.prod([sizes[c] for c in group])) for group in groups]
    return w.build.reshape(x, [*lead, *tail], batch)
