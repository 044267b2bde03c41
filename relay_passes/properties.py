"""What a pass requires of a module and ensures after it.

A property that can be seen in the IR is looked up there, whoever made the module so. The others are
about what a pass has had its turn at: they stand in the module's attribute `ATTRIBUTE`, which
`relay_passes.running` writes. A pattern that a pass declines does not break what it ensures: what
it left is listed by `CheckIntegerOnly`.
"""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from tvm import IRModule
from tvm.tirx import IntImm

from vitq.relay_passes.expressions import (
    LAYOUT_OPS,
    MAIN,
    PAD,
    Expr,
    bindings_of,
    is_constant,
    op_name,
)
from vitq.relay_passes.reading.matching import DEQUANTIZERS, read_dequantize

ATTRIBUTE = "vitq.properties"
VIEWS = ("relax.squeeze", "relax.expand_dims", "relax.flatten")
"""Layout operators that are a reshape."""
COMMUTATIVE = ("relax.add", "relax.multiply")
MOVABLE = (*LAYOUT_OPS, "relax.broadcast_to", PAD)
"""Layout operators that a dequantize can stand below."""


class Property(Enum):
    """What may hold of a module's ``main``."""

    STATIC_SHAPES = "every input has a fixed shape"
    CONSTANTS_FOLDED = "what depends on constants and shapes alone is a constant"
    CLIPS_FOLDED = "a Clip of codes is the bounds of its quantizer"
    LAYOUT_CANONICAL = "no squeeze, expand_dims or flatten is left: they are reshapes"
    QDQ_CANONICAL = "constant summands and factors are right operands"
    INPUT_UINT8 = "normalized float inputs are uint8 pixels and a table"
    NORM_SCALES_FOLDED = "scales for each channel behind a layer normalization are in its weights"
    LAYOUT_ON_CODES = "layout operators read codes, not dequantized codes of one scale"
    CONCATS_DISTRIBUTED = "a concat is quantized part by part"
    QUANTIZERS_HOISTED = "a quantizer stands right behind what computes its input"
    PATCHES_LOWERED = "the patch embedding is an integer operator"
    LAYERS_LOWERED = "linear layers are integer operators"
    PRODUCTS_LOWERED = "products of two activations are accumulators with a scale"
    SOFTMAX_LOWERED = "softmax is an integer operator"
    CODE_TABLES_FOLDED = "tables of attention weights are parameters of their codes"
    FLOATS_LOWERED = "every operator between dequantize and quantize had its turn"
    OUTPUT_CODES = "the network returns codes"
    LAYOUT_SIMPLE = "layout operators that undo each other are gone"
    INTEGER_ONLY = "nothing but integer operators and integer layout is left"
    PROVEN = "no intermediate can leave its integer type"


def static_shapes(mod: IRModule) -> list[str]:
    """List the inputs with symbolic dimensions."""
    return [
        f"input {param.name} has the dynamic shape {param.ty.shape}: import the network with a "
        "fixed batch size"
        for param in mod[MAIN].params
        if not all(isinstance(dim, IntImm) for dim in param.ty.shape.values)
    ]


def _where(mod: IRModule, is_wrong: Callable[[Expr, dict[Expr, Expr]], bool]) -> list[str]:
    """Return the bindings that contradict a property."""
    bindings: list[Any] = bindings_of(mod[MAIN])
    definitions = {binding.var: binding.value for binding in bindings}
    return [
        f"{binding.var.name} = {op_name(binding.value)}"
        for binding in bindings
        if is_wrong(binding.value, definitions)
    ]


def layout_canonical(mod: IRModule) -> list[str]:
    """Reshapes under other names."""
    return _where(mod, lambda value, _: op_name(value) in VIEWS)


def qdq_canonical(mod: IRModule) -> list[str]:
    """Return sums and products with the constant on the left."""

    def is_wrong(value: Expr, definitions: dict[Expr, Expr]) -> bool:
        if op_name(value) not in COMMUTATIVE:
            return False
        left, right = (_is_real_constant(definitions.get(arg, arg)) for arg in value.args)
        return left and not right

    return _where(mod, is_wrong)


def _is_real_constant(definition: Expr) -> bool:
    """Whether an expression is a constant, or dequantized constant codes."""
    if is_constant(definition):
        return True
    codes = read_dequantize(definition)
    return codes is not None and is_constant(codes.codes)


def layout_on_codes(mod: IRModule) -> list[str]:
    """Layout of dequantized codes."""

    def is_wrong(value: Expr, definitions: dict[Expr, Expr]) -> bool:
        if op_name(value) not in MOVABLE:
            return False
        found = definitions.get(value.args[0])
        if found is None or op_name(found) not in DEQUANTIZERS:
            return False
        codes = read_dequantize(found)
        return codes is not None and codes.is_per_tensor

    return _where(mod, is_wrong)


CHECKS: dict[Property, Callable[[IRModule], list[str]]] = {
    Property.STATIC_SHAPES: static_shapes,
    Property.LAYOUT_CANONICAL: layout_canonical,
    Property.QDQ_CANONICAL: qdq_canonical,
    Property.LAYOUT_ON_CODES: layout_on_codes,
}
"""What in a module contradicts a property that can be seen in the IR, one text each."""


def recorded(mod: IRModule) -> frozenset[Property]:
    """Return the properties that passes have left in the module's attribute."""
    return frozenset(Property[str(name)] for name in mod.attrs.get(ATTRIBUTE, []))


def record(mod: IRModule, properties: Iterable[Property]) -> IRModule:
    """Return the module with more properties in its attribute."""
    found = recorded(mod) | set(properties)
    return mod.with_attr(ATTRIBUTE, [known.name for known in Property if known in found])


def forget(mod: IRModule) -> IRModule:
    """Return the module without the attribute: its properties are a matter between passes."""
    return mod.without_attr(ATTRIBUTE) if ATTRIBUTE in mod.attrs else mod


def missing(mod: IRModule, wanted: Property) -> str | None:
    """Why a module does not have a property; None where it has."""
    check = CHECKS.get(wanted)
    if check is None:
        return None if wanted in recorded(mod) else "no pass has ensured it"
    found = check(mod)
    return "; ".join(found[:3]) if found else None
