"""HoistQuantize: quantizers move up to the operator that computes what they quantize."""

from tvm import relax

from vitq.numerics.requantize import clamp_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import (
    Expr,
    bindings_of,
    constant,
    dtype_of,
    op_name,
    shape_of,
    substitute,
)
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context
from vitq.relay_passes.reading.joining import Group, Leaf, joined_factors, joined_quantizer
from vitq.relay_passes.reading.matching import (
    Quantizer,
    quantize_call,
    read_dequantize,
    read_quantize,
)
from vitq.relay_passes.reading.scaling import scaled_chain
from vitq.relay_passes.rewriting import BindingPass


class HoistQuantize(BindingPass):
    """Moves quantize above layout operators, and joins several into one per-channel quantizer.

    Before::

        y = linear(x)                       # (B, N, 3 C)
        q, k, v = split_heads(y)            # reshape, permute_dims, strided_slice
        quantize(q, s_q), quantize(k, s_k), quantize(v, s_v)

    After::

        y = quantize(linear(x), s, axis=2)  # s = s_q for channels of q, ...
        q, k, v = split_heads(y)

    so that the linear layer requantizes where it computes. Which channel ends in which quantizer
    is found by running the layout operators on channel numbers. Exact: each element meets the
    same factors, scale, zero point and bounds as before.

    Factors on the way (``q * D**-0.5``) move along: ``multiply(linear(x), f)`` with f = 1 for the
    channels that have none. Where parts differ in type or bounds (q and k go on to a layer
    normalization in 16 bits, v does not), the root gets the widest, and a part with narrower ones
    a ``vitq.requantize`` by 1, which only clamps.

    Refuses where a channel reaches two different quantizers or factors, where no part's type holds
    the others (int8 and uint8), and leaves a root alone whose quantizers all follow it directly
    with one set of parameters.
    """

    requires = (
        Property.LAYOUT_CANONICAL,
        Property.INPUT_UINT8,
        Property.NORM_SCALES_FOLDED,
        Property.CONCATS_DISTRIBUTED,
    )
    ensures = (Property.QUANTIZERS_HOISTED,)

    def __init__(self) -> None:
        """Begin without groups."""
        super().__init__()
        self._groups: dict[Expr, Group] = {}
        self._definitions: dict[Expr, Expr] = {}
        self._mapping: dict[Expr, Expr] = {}

    def prepare(self, function: Expr) -> None:
        """Group the quantizers by the tensor they come from."""
        self._definitions = {b.var: b.value for b in bindings_of(function)}
        roots: dict[Expr, Group] = {}
        for binding in bindings_of(function):
            quantizer = read_quantize(binding.value)
            if quantizer is None:
                continue
            root, chain, factors = scaled_chain(quantizer.data, self._lookup)
            if root not in self._definitions or read_dequantize(self._lookup(root)) is not None:
                continue
            leaf = Leaf(binding.var, quantizer, chain, factors)
            roots.setdefault(root, Group(root, [])).leaves.append(leaf)
        for group in roots.values():
            if len(group.leaves) > 1 or group.leaves[0].chain:
                self._groups.update({leaf.var: group for leaf in group.leaves})

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        group = self._groups.get(var)
        if group is None:
            return None
        leaf = next(leaf for leaf in group.leaves if leaf.var == var)
        quantizer = ctx.quantizer(value)
        assert quantizer is not None, "a leaf is a quantizer"
        if group.codes is None:
            root, _, _ = scaled_chain(quantizer.data, ctx.definition)
            group.codes = _hoisted(group, root, self._channel_axis(group.root), ctx)
        codes = group.codes
        for layout in leaf.chain:
            if layout not in group.moved:
                moved = substitute(layout, {layout.args[0]: codes})
                group.moved[layout] = ctx.emit(moved, "layout")
            codes = group.moved[layout]
        return _narrowed(codes, group.codes, leaf.quantizer, ctx)

    def _lookup(self, expr: Expr) -> Expr:
        """Look up a variable's definition before the pass."""
        return self._definitions.get(expr, expr)

    def _channel_axis(self, root: Expr) -> int:
        """Axis 1 of a convolution (a bias may follow), the last axis of anything else."""
        call = self._lookup(root)
        if op_name(call) == "relax.add":
            call = self._lookup(call.args[0])
        return 1 if op_name(call) == "relax.nn.conv2d" else len(shape_of(root)) - 1


def _hoisted(group: Group, root: Expr, axis: int, ctx: Context) -> Expr:
    """Return the root, scaled and quantized once."""
    joined = joined_quantizer(group, axis)
    inner = len(shape_of(root)) - 1 - axis
    for name, value in joined_factors(group, axis):
        shape = (*value.shape, *[1] * inner) if value.ndim else ()
        operator = relax.op.divide if name == "relax.divide" else relax.op.multiply
        factor = constant(value.reshape(shape), dtype_of(root))
        root = ctx.emit(operator(root, factor), "scaled")
    return ctx.emit(quantize_call(root, joined.qparams, joined.dtype), "hoisted")


def _narrowed(codes: Expr, hoisted: Expr, part: Quantizer, ctx: Context) -> Expr:
    """Bring a part's codes into its own bounds and type; the root's stay as they are."""
    joined = ctx.quantizer(hoisted)
    assert joined is not None, "emitted as a quantizer"
    low, high = part.qparams.qmin, part.qparams.qmax
    if (joined.dtype, joined.qparams.qmin, joined.qparams.qmax) == (part.dtype, low, high):
        return codes
    return dialect.requantize(codes, clamp_params(low, high), part.dtype)
