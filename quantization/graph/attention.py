"""Attention as torch calls it, spelled out.

scaled_dot_product_attention(q, k, v)  ->  softmax((q @ k.T) * factor) @ v
"""

from typing import Any, NamedTuple

from vitq.quantization.graph.graph import Node, OpKind

OPTIONS = ("attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
"""Names of the arguments behind query, key and value."""


class Operand(NamedTuple):
    """A tensor of the graph.

    Attributes:
        name: of its node.
        shape: at batch 1.
        batch_axis: that grows with the batch.
    """

    name: str
    shape: tuple[int, ...]
    batch_axis: int | None


def attention_nodes(
    name: str, query: Operand, key: Operand, value: Operand, factor: float
) -> list[Node]:
    """Return permute, matmul, scale, softmax and matmul.

    Args:
        name: of the last one, which the others' begin with.
        query: (..., N, D).
        key: (..., M, D).
        value: (..., M, E).
        factor: of the scores, a float32 number.
    """
    rank = len(query.shape)
    scores = (*query.shape[:-1], key.shape[-2])
    axes = [*range(rank - 2), rank - 1, rank - 2]
    flipped = (*key.shape[:-2], key.shape[-1], key.shape[-2])
    steps: list[tuple[str, OpKind, tuple[str, ...], tuple[int, ...], dict[str, Any]]] = [
        ("key_t", OpKind.PERMUTE, (key.name,), flipped, {"axes": axes}),
        ("scores", OpKind.MATMUL, (query.name, f"{name}.key_t"), scores, {}),
        ("scaled", OpKind.SCALE, (f"{name}.scores",), scores, {"factor": factor}),
        ("softmax", OpKind.SOFTMAX, (f"{name}.scaled",), scores, {}),
    ]
    nodes = [
        Node(f"{name}.{suffix}", op, inputs, shape, query.batch_axis, attrs=attrs)
        for suffix, op, inputs, shape, attrs in steps
    ]
    out = (*query.shape[:-1], value.shape[-1])
    inputs = (f"{name}.softmax", value.name)
    return [*nodes, Node(name, OpKind.MATMUL, inputs, out, query.batch_axis)]
