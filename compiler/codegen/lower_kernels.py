"""The last step before code generation: every ``vitq.*`` call becomes a call of a TIR kernel.

    x = call_pure_packed(names.LINEAR, a, weight, bias, ...)
    x = call_tir(@linear_0, (a, packed_weight, addend, ...))

Which kernel, and how its constants are packed, is `compiler.kernels`' choice for the target's
features; equal kernels are one function. Layout operators that are left are legalized by TVM.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm import IRModule, relax
from tvm.target import Target as TvmTarget

from vitq.compiler.kernels.building import build_kernel
from vitq.compiler.kernels.cpu import lowering as kernels
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import Features, GpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import (
    MAIN,
    Expr,
    bindings_of,
    constant,
    dtype_of,
    is_constant,
    op_name,
    shape_of,
    substitute,
)

logger = logging.getLogger(__name__)

Choose = Callable[[Kernel], Schedule]
"""The schedule of a kernel, as far as it differs from the default."""


def lower_op(
    op: str,
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: Features,
) -> KernelCall:
    """Return the kernel of one operator call, of the family that the features belong to."""
    if isinstance(features, GpuFeatures):
        from vitq.compiler.kernels.cuda.lowering import lower_op as lower_cuda

        return lower_cuda(op, operands, constants, out, features)
    return kernels.lower_op(op, operands, constants, out, features)


def untuned(_: Kernel) -> Schedule:
    """Every kernel's default schedule."""
    return {}


def lower_kernels(
    mod: IRModule, features: Features, target: TvmTarget, choose: Choose = untuned
) -> IRModule:
    """Replace all dialect calls of ``main`` by kernels.

    Args:
        mod: from `relay_passes.pipeline.integerize`.
        features: of the target.
        target: attached to each kernel.
        choose: the schedules.

    Returns:
        A new module of ``main`` and its kernels.
    """
    function = mod[MAIN]
    builder = relax.BlockBuilder()
    kernels = _Kernels(builder, features, target, choose)
    mapping: dict[Expr, Expr] = {}
    with builder.function(MAIN, list(function.params), attrs={"num_input": len(function.params)}):
        with builder.dataflow():
            for binding in bindings_of(function):
                value = substitute(binding.value, mapping)
                if dialect.is_dialect(binding.value):
                    value = kernels.call(value, binding.var)
                mapping[binding.var] = builder.emit(value, binding.var.name)
            out = builder.emit_output(substitute(function.body.body, mapping))
        builder.emit_func_output(out)
    logger.debug("%d kernels", len(kernels.functions))
    return relax.transform.DeadCodeElimination([MAIN])(builder.finalize())


def kernel_calls(mod: IRModule, features: Features) -> list[KernelCall]:
    """Return the kernels that `lower_kernels` would call, one for each call.

    Args:
        mod: from `relay_passes.pipeline.integerize`.
        features: of the target.
    """
    return [call for _, call in lowered_calls(mod, features)]


def lowered_calls(mod: IRModule, features: Features) -> list[tuple[Expr, KernelCall]]:
    """`kernel_calls`, each with the dialect call that it stands for."""
    return [
        (binding.value, _kernel_call(binding.value, binding.var, features))
        for binding in bindings_of(mod[MAIN])
        if dialect.is_dialect(binding.value)
    ]


def _kernel_call(value: Expr, var: Expr, features: Features) -> KernelCall:
    operands = dialect.operands(value)
    constants = {
        index: operand.value.numpy()
        for index, operand in enumerate(operands)
        if is_constant(operand)
    }
    types = [TensorType(shape_of(operand), dtype_of(operand)) for operand in operands]
    out = TensorType(shape_of(var), dtype_of(var))
    return lower_op(op_name(value), types, constants, out, features)


class _Kernels:
    """The kernels of one module, each once."""

    def __init__(
        self,
        builder: relax.BlockBuilder,
        features: Features,
        target: TvmTarget,
        choose: Choose,
    ) -> None:
        self.builder = builder
        self.features = features
        self.target = target
        self.choose = choose
        self.functions: dict[Kernel, Any] = {}

    def call(self, value: Expr, var: Expr) -> Expr:
        """Return the ``call_tir`` for one dialect call."""
        operands = dialect.operands(value)
        call = _kernel_call(value, var, self.features)
        args = [
            operands[operand] if isinstance(operand, int) else constant(operand)
            for operand in call.operands
        ]
        return relax.call_tir(self._function(call.kernel), relax.Tuple(args), var.ty)

    def _function(self, kernel: Kernel) -> Any:
        """Return the module's global for a kernel; the same kernel is added once."""
        if kernel not in self.functions:
            same = sum(known.name == kernel.name for known in self.functions)
            symbol = f"{kernel.name}_{same}"
            func = build_kernel(kernel, self.choose(kernel))
            func = func.with_attr({"target": self.target, "global_symbol": symbol})
            if isinstance(self.features, GpuFeatures):
                func = func.with_attr("tirx.is_scheduled", True)  # threads are bound already
            self.functions[kernel] = self.builder.add_func(func, symbol)
        return self.functions[kernel]
