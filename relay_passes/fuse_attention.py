"""FuseAttention: scores, Shiftmax and the weighted sum become one operator."""

import numpy as np
from tvm import relax

from vitq.numerics.arrays import IntArray
from vitq.numerics.attention import PARTS, QkvShape, attention_params, split_heads
from vitq.numerics.shiftmax import CodeParams, NormalizeParams
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import Expr, constant, dtype_of, op_name, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.tracing import follow, layout_chain
from vitq.relay_passes.rewriting import BindingPass


class FuseAttention(BindingPass):
    """Fuses one layer's attention into ``vitq.attention``.

    Before, with q, k, v = split_heads(qkv) by any layout operators::

        c = vitq.shiftmax_codes(vitq.matmul(q, k))
        vitq.normalized_matmul(c, v)                       # (B, H, N, D)

    After::

        permute_dims(vitq.attention(reshape(qkv, (B, N, 3, H, D))), (0, 2, 1, 3))

    With biases or masks between the product and the codes, behind reshapes of the scores, it is
    ``vitq.offset_attention``: their sum is one constant for each window and head, and equal ones
    are stored once.

    Exact: the same integers in the same order. That q, k and v are the three parts of qkv is found
    by following element numbers through the layout operators. Three linear layers of one tensor
    become one, whose channels are theirs. Refuses q, k, v of different tensors or another split,
    and codes that are not int8.
    """

    requires = (Property.OUTPUT_CODES, Property.LAYOUT_SIMPLE)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        if op_name(value) != names.NORMALIZED_MATMUL:
            return None
        codes, v, _ = dialect.operands(value)
        shiftmax = ctx.call(codes, names.SHIFTMAX_CODES)
        if shiftmax is None:
            raise DeclineError("the weights are no codes of Shiftmax")
        scores = dialect.operands(shiftmax)[0]
        product, offset = _product(scores, ctx)
        q, k, _ = dialect.operands(product)
        qkv = _common_root((q, k, v), value, ctx)
        q_zero_point, k_zero_point = dialect.scalars(product)
        v_zero_point, *norm = dialect.scalars(value)
        params = attention_params(
            (q_zero_point, k_zero_point, v_zero_point),
            CodeParams(*dialect.scalars(shiftmax)),
            NormalizeParams(*norm),
        )
        split = ctx.emit(relax.op.reshape(qkv, _qkv_shape(value).shape), "qkv")
        if offset is None:
            fused = dialect.attention(split, params, dtype_of(value))
        else:
            fused = dialect.offset_attention(split, *_distinct(offset), params, dtype_of(value))
        return relax.op.permute_dims(ctx.emit(fused, "attention"), [0, 2, 1, 3])


def _product(scores: Expr, ctx: Context) -> tuple[Expr, IntArray | None]:
    """Return the product that scores are made of, and what is added to it in their shape."""
    shape = shape_of(scores)
    total: IntArray | None = None
    while True:
        call = ctx.definition(scores)
        if op_name(call) == names.OFFSET:
            scores, _ = dialect.operands(call)
            added = np.broadcast_to(dialect.array(call, 1), shape_of(scores)).reshape(shape)
            total = added if total is None else total + added
        elif op_name(call) == "relax.reshape" and shape_of(call) != shape_of(call.args[0]):
            scores = call.args[0]
        elif op_name(call) == names.MATMUL and shape_of(call) == shape:
            return call, total
        else:
            raise DeclineError("the scores are not a vitq.matmul and constants")


def _distinct(offset: IntArray) -> tuple[IntArray, IntArray]:
    """Store equal constants once.

    Args:
        offset: (B, H, N, N).

    Returns:
        The different ones (G, N, N), and (W, H) which one each head of a window has; W is the
        shortest period along the batch axis.
    """
    found: dict[bytes, int] = {}
    batch, heads = offset.shape[:2]
    ids = np.array([
        [found.setdefault(offset[b, h].tobytes(), len(found)) for h in range(heads)]
        for b in range(batch)
    ])
    periods = (w for w in range(1, batch + 1) if batch % w == 0)
    period = next(w for w in periods if np.array_equal(ids[w:], ids[:-w]) or w == batch)
    first = [np.argwhere(ids == i)[0] for i in range(len(found))]
    return np.stack([offset[b, h] for b, h in first]), ids[:period]


def _qkv_shape(attended: Expr) -> QkvShape:
    """Read the shape of the tensor whose attention has the shape (B, H, N, D)."""
    if len(shape_of(attended)) != 4:
        raise DeclineError(f"attention of rank {len(shape_of(attended))}")
    batch, heads, tokens, width = shape_of(attended)
    return QkvShape(batch, tokens, heads, width)


def _common_root(parts: tuple[Expr, Expr, Expr], attended: Expr, ctx: Context) -> Expr:
    """Return the one tensor whose three parts q, k and v are."""
    chains = [layout_chain(part, ctx.definition) for part in parts]
    roots = [root for root, _ in chains]
    shape = _qkv_shape(attended)
    if any(dtype_of(root) != "int8" for root in roots):
        raise DeclineError(f"q, k and v are {', '.join(map(dtype_of, roots))}: int8 is needed")
    ids = np.arange(np.prod(shape.shape), dtype=np.int32).reshape(shape.joined)
    if all(root == roots[0] for root in roots):
        if shape_of(roots[0]) != shape.joined:
            raise DeclineError(
                f"qkv of shape {shape_of(roots[0])} is not (B, N, 3 H D) for {shape_of(attended)}"
            )
        given = [ids] * PARTS
    else:
        given = np.split(ids, PARTS, axis=-1)
    expected = split_heads(ids.reshape(shape.shape))
    for index, (root, chain) in enumerate(chains):
        is_whole = shape_of(root) == given[index].shape
        if not is_whole or not np.array_equal(follow(given[index], chain), expected[index]):
            raise DeclineError(f"the {'qkv'[index]} part is not split as (B, N, 3, H, D)")
    return roots[0] if given[0] is ids else ctx.emit(_joined(roots, ctx), "qkv")


def _joined(roots: list[Expr], ctx: Context) -> Expr:
    """Return one linear layer for three that read the same tensor."""
    layers = [ctx.call(root, names.LINEAR) for root in roots]
    found = [layer for layer in layers if layer is not None]
    if len(found) < PARTS:
        raise DeclineError("q, k and v do not come from one tensor, nor from three linear layers")
    x, *_ = dialect.operands(found[0])
    bounds = dialect.scalars(found[0])
    if any(dialect.operands(f)[0] != x or dialect.scalars(f) != bounds for f in found[1:]):
        raise DeclineError("the layers of q, k and v read different tensors or have other bounds")
    count = len(dialect.operands(found[0])) - 2
    rows = [np.concatenate([dialect.array(f, 1 + i) for f in found]) for i in range(count)]
    return dialect.make(names.LINEAR, [x, *map(constant, rows)], bounds, "int8")
