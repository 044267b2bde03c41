"""CheckIntegerOnly: nothing but integer operators and integer layout is left."""

from collections.abc import Mapping
from typing import NamedTuple

from tvm import IRModule, relax

from vitq.numerics.errors import VitqError
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import (
    MAIN,
    PAD,
    TAKE,
    Expr,
    bindings_of,
    dtype_of,
    is_float,
    is_tensor,
    op_name,
    shape_of,
)
from vitq.relay_passes.module_pass import ModulePass
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.matching import DEQUANTIZERS, QUANTIZERS

INTEGER_LAYOUT = (
    "relax.reshape",
    "relax.permute_dims",
    "relax.strided_slice",
    "relax.concat",
    "relax.broadcast_to",
    "relax.maximum",
    TAKE,
    PAD,
)
QDQ = (*QUANTIZERS, *DEQUANTIZERS)


class FloatIsland(NamedTuple):
    """An operator that is not integer.

    Attributes:
        var: the variable that it is bound to.
        text: what it is.
        reason: why a pass left it; empty where none said so.
    """

    var: str
    text: str
    reason: str


class CheckIntegerOnly(ModulePass):
    """Lists every operator that did not become an integer one, and why.

    Changes nothing. A quantize or dequantize is listed only where no other float operator explains
    it: repairing the operator between them removes them too.
    """

    ensures = (Property.INTEGER_ONLY,)

    def __init__(
        self,
        declines: Mapping[str, str] | None = None,
        found: list[FloatIsland] | None = None,
    ) -> None:
        """Take the reasons that earlier passes gave, by variable name.

        Args:
            declines: the reasons.
            found: is filled with what is left before the error is raised.
        """
        self.declines = {} if declines is None else declines
        self._found = [] if found is None else found

    def __call__(self, mod: IRModule) -> IRModule:
        """Check ``main``.

        Args:
            mod: the module at the end of the pipeline.

        Returns:
            The same module.

        Raises:
            VitqError: naming all offenders at once.
        """
        problems = float_islands(mod)
        if not problems:
            return mod
        bad = [binding for binding in bindings_of(mod[MAIN]) if not _is_integer(binding)]
        alive = {binding.var.name for binding in bad}
        self._found += [
            FloatIsland(b.var.name, _describe(b), self.declines.get(b.var.name, "")) for b in bad
        ]
        reasons = [f"{var}: {why}" for var, why in self.declines.items() if var in alive]
        because = f" | left because: {'; '.join(reasons)}" if reasons else ""
        raise VitqError(
            f"the network is not integer-only: {'; '.join(problems)}{because} | "
            "quantize these operators (vitq quantize does), or use only the supported ones"
        )


def float_islands(mod: IRModule) -> list[str]:
    """Everything in ``main`` that is not integer, one text each."""
    function = mod[MAIN]
    problems = [
        f"input {param.name} is {dtype_of(param)} and needs an integer type"
        for param in function.params
        if is_float(param)
    ]
    bad = [binding for binding in bindings_of(function) if not _is_integer(binding)]
    islands = [binding for binding in bad if op_name(binding.value) not in QDQ]
    return problems + [_describe(binding) for binding in islands or bad]


def _is_integer(binding: Expr) -> bool:
    """Whether one binding may stay."""
    value = binding.value
    if isinstance(value, (relax.Tuple, relax.TupleGetItem, relax.Var, relax.ShapeExpr)):
        return True
    if not is_tensor(binding.var) or is_float(binding.var):
        return False
    return dialect.is_dialect(value) or op_name(value) in INTEGER_LAYOUT


def _describe(binding: Expr) -> str:
    """One offender."""
    name = op_name(binding.value) or type(binding.value).__name__
    if not is_tensor(binding.var):
        return f"{binding.var.name} = {name}"
    return f"{binding.var.name} = {name} {shape_of(binding.var)} {dtype_of(binding.var)}"
