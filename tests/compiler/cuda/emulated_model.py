"""Runs a whole lowered model without a GPU: kernels by a given function, layout in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax
from tvm.target import Target as TvmTarget

from vitq.compiler.codegen.lower_kernels import Choose, lower_kernels, untuned
from vitq.compiler.kernels.cuda.emulator.emulator import run_kernel
from vitq.compiler.target.table import Target
from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.relay_passes.expressions import (
    MAIN,
    bindings_of,
    dtype_of,
    is_constant,
    op_name,
    shape_of,
)
from vitq.relay_passes.interpreter.interpreter import evaluate

Run = Callable[[str, list[IntArray], IntArray], IntArray]
"""Kernel's name, inputs, an array like the output; returns the output."""


def lower(mod: Any, target: Target, choose: Choose = untuned) -> Any:
    """An integer module with its kernels."""
    return lower_kernels(mod, target.features, TvmTarget(target.tvm_config()), choose)


def emulator(lowered: Any) -> Run:
    """Kernels in `compiler.kernels.cuda.emulator.emulator`."""
    calls = [b.value for b in bindings_of(lowered[MAIN]) if isinstance(b.value, relax.Call)]
    kernels = [call for call in calls if op_name(call) == "relax.call_tir"]
    known = {
        call.args[0].name_hint: [i for i, arg in enumerate(call.args[1]) if is_constant(arg)]
        for call in kernels
    }
    return lambda name, inputs, out: run_kernel(lowered[name], inputs, out, known[name])


def run_model(lowered: Any, pixels: UInt8Array, run: Run) -> IntArray:
    """Integer results of one batch, as rows where there are several.

    Args:
        lowered: from `lower`.
        pixels: of the module's input shape.
        run: runs a kernel.
    """
    function = lowered[MAIN]
    values: dict[Any, Any] = {function.params[0]: pixels}

    def value_of(expr: Any) -> Any:
        if is_constant(expr):
            return expr.value.numpy()
        if isinstance(expr, relax.Tuple):
            return tuple(value_of(field) for field in expr.fields)
        return values.get(expr)

    for binding in bindings_of(function):
        call = binding.value
        if not isinstance(call, relax.Call):
            values[binding.var] = value_of(call)
        elif op_name(call) == "relax.call_tir":
            out = np.zeros(shape_of(binding.var), dtype_of(binding.var))
            inputs = [np.asarray(value) for value in value_of(call.args[1])]
            values[binding.var] = run(call.args[0].name_hint, inputs, out)
        else:
            values[binding.var] = evaluate(call, [value_of(arg) for arg in call.args])
    results = value_of(function.body.body)
    if isinstance(results, tuple):
        return np.concatenate([part.reshape(len(pixels), -1) for part in results], axis=1)
    return np.asarray(results)
