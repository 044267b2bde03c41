"""SelectTokensEarly: only the tokens that a head reads are normalized."""

from tvm import relax

from vitq.relay_passes.canonicalize_layout import slice_ranges
from vitq.relay_passes.expressions import Expr, ints, normalize_axis, op_name, shape_of, uses_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context, DeclineError
from vitq.relay_passes.reading.matching import QUANTIZERS, quantize_call, read_quantize
from vitq.relay_passes.rewriting import BindingPass

NORM = "relax.nn.layer_norm"
SLICE = "relax.strided_slice"


class SelectTokensEarly(BindingPass):
    """Moves a slice of tokens above the layer normalization before it.

    Before -> after::

        slice(layer_norm(x), tokens)            -> layer_norm(slice(x, tokens))
        slice(quantize(layer_norm(x)), tokens)  -> quantize(layer_norm(slice(x, tokens)))

    Exact: each token is normalized by itself. Refuses where the slice cuts the normalized axis,
    where the quantizer is per channel, or where something else reads all tokens.
    """

    requires = (Property.LAYOUT_CANONICAL,)

    def __init__(self) -> None:
        """Begin without knowledge of uses."""
        super().__init__()
        self._only_sliced: set[str] = set()

    def prepare(self, function: Expr) -> None:
        """Find the tensors that nothing but slices read."""
        for var, uses in uses_of(function).items():
            readers = [op_name(use.value) for use in uses]
            if readers and all(name in (SLICE, *QUANTIZERS) for name in readers):
                self._only_sliced.add(var.name)

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        if op_name(value) != SLICE:
            return None
        chain = [value.args[0]]
        found = ctx.definition(value.args[0])
        quantizer = read_quantize(found)
        if quantizer is not None:
            chain.append(quantizer.data)
        norm = ctx.call(chain[-1], NORM)
        if norm is None:
            return None
        if any(link.name not in self._only_sliced for link in chain):
            raise DeclineError("something else reads the normalized tokens")
        if quantizer is not None and not quantizer.is_per_tensor:
            raise DeclineError("the quantizer is per channel")
        rank = len(shape_of(norm))
        normalized = {normalize_axis(axis, rank) for axis in ints(norm.attrs.axes)}
        cut = {axis for axis, begin, end in slice_ranges(value) if _cuts(norm, axis, begin, end)}
        if normalized & cut:
            raise DeclineError("the slice cuts the normalized axis")
        part = ctx.emit(substitute_data(value, norm.args[0]), "tokens")
        result = substitute_data(norm, part)
        if quantizer is None:
            return result
        return quantize_call(ctx.emit(result, "norm"), quantizer.qparams, quantizer.dtype)


def _cuts(data: Expr, axis: int, begin: int, end: int) -> bool:
    """Whether a slice leaves anything of an axis out."""
    return begin != 0 or end < shape_of(data)[axis]


def substitute_data(call: Expr, data: Expr) -> Expr:
    """Return the same call on another first operand."""
    return relax.Call(call.op, [data, *call.args[1:]], call.attrs, call.ty_args)
