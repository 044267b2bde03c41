"""The base of all rewriting passes: one walk over a function's bindings, front to back.

A pass looks at one binding at a time. What it builds on (the operands' definitions) is already
rewritten; what is left over and no longer used goes away at the end.
"""

import logging
from abc import abstractmethod
from contextlib import suppress
from typing import Any

from tvm import IRModule, relax

from vitq.numerics.errors import RangeError, VitqError
from vitq.relay_passes.expressions import MAIN, Expr, bindings_of, is_constant, op_name, substitute
from vitq.relay_passes.module_pass import ModulePass
from vitq.relay_passes.reading.context import Context, DeclineError

log = logging.getLogger(__name__)


class BindingPass(ModulePass):
    """A pass that rewrites bindings one by one.

    Attributes:
        declines: for each variable whose pattern began to match, the pass and the reason why it
            was left as it is.
    """

    def __init__(self) -> None:
        """Begin without declines."""
        self.declines: dict[str, str] = {}

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
        """Return the new function's parameters (default: the old ones)."""
        return list(function.params)

    def enter(self, function: Expr, params: list[Expr], ctx: Context) -> dict[Expr, Expr]:
        """Return what stands for each old parameter (default: the new one)."""
        del ctx
        return dict(zip(function.params, params, strict=True))

    def __call__(self, mod: IRModule) -> IRModule:
        """Run over ``main``.

        Args:
            mod: a module with a static-shape ``main``.

        Returns:
            A new module without dead bindings.

        Raises:
            RangeError: of a rewrite, with the operator and its variable in front.
        """
        builder = relax.BlockBuilder()
        try:
            return self._rewritten(mod, builder)
        except VitqError:
            with suppress(Exception):
                builder._end_block()  # else TVM warns of it later, on standard error
            raise

    def _rewritten(self, mod: IRModule, builder: relax.BlockBuilder) -> IRModule:
        """Build the new module."""
        function = mod[MAIN]
        self.prepare(function)
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
            except RangeError as error:
                place = f"{op_name(binding.value)} ({binding.var.name})"
                raise RangeError(f"{place}: {error}") from error
            is_leaf = isinstance(value, relax.Var) or is_constant(value)
            mapping[binding.var] = value if is_leaf else ctx.bind(value)

    def _decline(self, binding: Any, reason: str) -> None:
        """Remember and log why a pattern was left."""
        name = op_name(binding.value)
        log.debug("%s leaves %s (%s): %s", self.name, binding.var.name, name, reason)
        self.declines[binding.var.name] = f"{self.name}: {reason}"


def _results(function: Expr, mapping: dict[Expr, Expr], ctx: Context) -> list[Expr]:
    """Return the function's results in the new function, a tuple's fields one by one."""
    result = substitute(function.body.body, mapping)
    found = ctx.definition(result)
    return list(found.fields) if isinstance(found, relax.Tuple) else [result]
