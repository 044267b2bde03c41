"""FuseAttention: scores, Shiftmax and the weighted sum become one operator."""

import numpy as np
from tvm import relax

from vitq.numerics.arrays import IntArray
from vitq.numerics.attention import QkvShape, attention_params, split_heads
from vitq.numerics.shiftmax import CodeParams, NormalizeParams
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import Expr, dtype_of, op_name, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.tracing import element_ids, follow, layout_chain
from vitq.relay_passes.rewriting import BindingPass


class FuseAttention(BindingPass):
    """Fuses one layer's attention into ``vitq.attention``.

    Before, with q, k, v = split_heads(qkv) by any layout operators::

        c = vitq.shiftmax_codes(vitq.matmul(q, k))
        vitq.normalized_matmul(c, v)                       # (B, H, N, D)

    After::

        permute_dims(vitq.attention(reshape(qkv, (B, N, 3, H, D))), (0, 2, 1, 3))

    Exact: the same integers in the same order. That q, k and v are the three parts of qkv is found
    by following element numbers through the layout operators. Refuses q, k, v of different
    layers or another split, and codes that are not int8.
    """

    requires = (Property.OUTPUT_CODES, Property.LAYOUT_SIMPLE)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        if op_name(value) != names.NORMALIZED_MATMUL:
            return None
        codes, v, _ = dialect.operands(value)
        shiftmax = ctx.call(codes, names.SHIFTMAX_CODES)
        scores = None if shiftmax is None else dialect.operands(shiftmax)[0]
        product = None if scores is None else ctx.call(scores, names.MATMUL)
        if shiftmax is None or product is None:
            raise DeclineError("the scores are not directly a vitq.matmul")
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
        fused = ctx.emit(dialect.attention(split, params, dtype_of(value)), "attention")
        return relax.op.permute_dims(fused, [0, 2, 1, 3])


def _qkv_shape(attended: Expr) -> QkvShape:
    """Read the shape of the tensor whose attention has the shape (B, H, N, D)."""
    if len(shape_of(attended)) != 4:
        raise DeclineError(f"attention of rank {len(shape_of(attended))}")
    batch, heads, tokens, width = shape_of(attended)
    return QkvShape(batch, tokens, heads, width)


def _common_root(parts: tuple[Expr, Expr, Expr], attended: Expr, ctx: Context) -> Expr:
    """Return the one tensor whose three parts q, k and v are."""
    chains = [layout_chain(part, ctx.definition) for part in parts]
    root = chains[0][0]
    if any(other != root for other, _ in chains):
        raise DeclineError("q, k and v do not come from one tensor")
    if dtype_of(root) != "int8":
        raise DeclineError(f"q, k and v are {dtype_of(root)}: int8 is needed")
    shape = _qkv_shape(attended)
    if shape_of(root) != shape.joined:
        raise DeclineError(
            f"qkv of shape {shape_of(root)} is not (B, N, 3 H D) for {shape_of(attended)}"
        )
    ids = element_ids(root)
    expected = split_heads(ids.reshape(shape.shape))
    for index, (_, chain) in enumerate(chains):
        moved: IntArray = follow(ids, chain)
        if not np.array_equal(moved, expected[index]):
            raise DeclineError(f"the {'qkv'[index]} part is not split as (B, N, 3, H, D)")
    return root
