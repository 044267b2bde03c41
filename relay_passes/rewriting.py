"""The base of all rewriting passes: one walk over a function's bindings, front to back.

A pass looks at one binding at a time. What it builds on (the operands' definitions) is already
rewritten; what is left over and no longer used goes away at the end.
"""

import logging
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from tvm import IRModule, relax

from vitq.numerics.arrays import FloatArray
from vitq.numerics.errors import VitqError
from vitq.relay_passes.reading.matching import (
    Codes,
    Expr,
    Quantizer,
    is_constant,
    op_name,
    read_dequantize,
    read_quantize,
    real_constant,
)

log = logging.getLogger(__name__)

MAIN = "main"


class DeclineError(Exception):
    """A pattern begins to match and cannot go on; the message says why."""


def bindings_of(function: Expr) -> list[Any]:
    """All bindings of a function in order.

    Args:
        function: a Relax function without control flow.

    Returns:
        Its ``VarBinding`` list.
    """
    found = [binding for block in function.body.blocks for binding in block.bindings]
    if not all(isinstance(binding, relax.VarBinding) for binding in found):
        raise VitqError("the network has dynamic shapes: compile it with fixed input shapes")
    return found


def operands_of(value: Expr) -> list[Expr]:
    """Variables and constants that a binding's value reads."""
    if isinstance(value, relax.Call):
        return [leaf for arg in value.args for leaf in operands_of(arg)]
    if isinstance(value, relax.Tuple):
        return [leaf for field in value.fields for leaf in operands_of(field)]
    if isinstance(value, relax.TupleGetItem):
        return operands_of(value.tuple_value)
    return [value] if isinstance(value, relax.Var) or is_constant(value) else []


def uses_of(function: Expr) -> dict[Expr, list[Any]]:
    """The bindings that read each variable, once for each reading; outputs are not counted."""
    uses: dict[Expr, list[Any]] = {}
    for binding in bindings_of(function):
        for operand in operands_of(binding.value):
            if isinstance(operand, relax.Var):
                uses.setdefault(operand, []).append(binding)
    return uses


def substitute(expr: Expr, mapping: dict[Expr, Expr]) -> Expr:
    """An expression with its variables replaced."""
    if isinstance(expr, relax.Var):
        return mapping.get(expr, expr)
    if isinstance(expr, relax.Call):
        args = [substitute(arg, mapping) for arg in expr.args]
        return relax.Call(expr.op, args, expr.attrs, expr.ty_args)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([substitute(field, mapping) for field in expr.fields])
    if isinstance(expr, relax.TupleGetItem):
        return relax.TupleGetItem(substitute(expr.tuple_value, mapping), expr.index)
    return expr


class Context:
    """What a pass sees of the function it builds, and where it adds to it."""

    def __init__(self, builder: relax.BlockBuilder) -> None:
        """Begin with nothing built."""
        self._builder = builder
        self.current = ""

    def definition(self, expr: Expr) -> Expr:
        """What a variable was bound to; any other expression, and a parameter, is itself."""
        while isinstance(expr, relax.Var):
            bound = self._builder.lookup_binding(expr)
            if bound is None:
                break
            expr = bound
        return expr

    def typed(self, expr: Expr) -> Expr:
        """The expression with its type inferred: substitution drops it."""
        return self._builder.normalize(expr)

    def bind(self, expr: Expr) -> Expr:
        """Bind the result of the binding being rewritten, under its old name."""
        return self._builder.emit(expr, self.current)

    def emit(self, expr: Expr, suffix: str = "part") -> Expr:
        """Bind an intermediate result, named after the binding being rewritten."""
        return self._builder.emit(expr, f"{self.current}_{suffix}")

    def call(self, expr: Expr, *names: str) -> Expr | None:
        """The definition of `expr` if it is a call of one of `names`."""
        found = self.definition(expr)
        return found if op_name(found) in names else None

    def codes(self, expr: Expr) -> Codes | None:
        """The integer codes behind a dequantized tensor."""
        return read_dequantize(self.definition(expr))

    def quantizer(self, expr: Expr) -> Quantizer | None:
        """The quantizer that a tensor of codes came from."""
        return read_quantize(self.definition(expr))

    def real(self, expr: Expr) -> FloatArray | None:
        """The real values of a float constant or of dequantized constant codes, float64."""
        return real_constant(self.definition(expr))


class BindingPass(ABC):
    """One pass: rewrites bindings one by one.

    Attributes:
        declines: for each variable whose pattern began to match, the pass and the reason why it
            was left as it is.
    """

    name: ClassVar[str] = ""

    def __init__(self) -> None:
        """Begin without declines."""
        self.declines: dict[str, str] = {}

    def __init_subclass__(cls) -> None:
        """Name the pass after its class."""
        super().__init_subclass__()
        cls.name = cls.__name__

    def prepare(self, function: Expr) -> None:
        """Look at the whole function before the walk (default: do nothing)."""
        del function

    @abstractmethod
    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """Rewrite one binding.

        Args:
            var: the variable in the function before the pass.
            value: what it is bound to, operands already rewritten.
            ctx: the function being built.

        Returns:
            The new value, or None to leave it.

        Raises:
            DeclineError: to leave it and say why.
        """

    def finish(self, outputs: list[Expr], ctx: Context) -> list[Expr]:
        """Change the function's results at the end of the walk (default: keep them)."""
        del ctx
        return outputs

    def parameters(self, function: Expr) -> list[Expr]:
        """The new function's parameters (default: the old ones)."""
        return list(function.params)

    def enter(self, function: Expr, params: list[Expr], ctx: Context) -> dict[Expr, Expr]:
        """What stands for each old parameter (default: the new one)."""
        del ctx
        return dict(zip(function.params, params, strict=True))

    def __call__(self, mod: IRModule) -> IRModule:
        """Run over ``main``.

        Args:
            mod: a module with a static-shape ``main``.

        Returns:
            A new module without dead bindings.
        """
        function = mod[MAIN]
        self.prepare(function)
        builder = relax.BlockBuilder()
        params = self.parameters(function)
        attrs = dict(function.attrs.items()) if function.attrs is not None else None
        with builder.function(MAIN, params, attrs=attrs):
            with builder.dataflow():
                ctx = Context(builder)
                mapping = self.enter(function, params, ctx)
                self._walk(bindings_of(function), mapping, ctx)
                outputs = self.finish(_results(function, mapping, ctx), ctx)
                single = not isinstance(function.body.body.ty, relax.TupleType)
                out = builder.emit_output(outputs[0] if single else relax.Tuple(outputs))
            builder.emit_func_output(out)
        rewritten = mod.clone()
        rewritten.update_func(mod.get_global_var(MAIN), builder.finalize()[MAIN])
        return relax.transform.DeadCodeElimination([MAIN])(rewritten)

    def _walk(self, bindings: list[Any], mapping: dict[Expr, Expr], ctx: Context) -> None:
        """Rewrite each binding and remember what its variable became."""
        for binding in bindings:
            value = ctx.typed(substitute(binding.value, mapping))
            ctx.current = binding.var.name
            try:
                rewritten = self.rewrite(binding.var, value, ctx)
                value = value if rewritten is None else rewritten
            except DeclineError as reason:
                self._decline(binding, str(reason))
            is_leaf = isinstance(value, relax.Var) or is_constant(value)
            mapping[binding.var] = value if is_leaf else ctx.bind(value)

    def _decline(self, binding: Any, reason: str) -> None:
        """Remember and log why a pattern was left."""
        name = op_name(binding.value)
        log.debug("%s leaves %s (%s): %s", self.name, binding.var.name, name, reason)
        self.declines[binding.var.name] = f"{self.name}: {reason}"


def _results(function: Expr, mapping: dict[Expr, Expr], ctx: Context) -> list[Expr]:
    """The function's results in the new function, a tuple's fields one by one."""
    result = substitute(function.body.body, mapping)
    found = ctx.definition(result)
    return list(found.fields) if isinstance(found, relax.Tuple) else [result]
