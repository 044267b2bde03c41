"""Small Relax modules for the tests of single passes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import IRModule, relax

from vitq.numerics.qparams import PerAxis, PerTensor, QuantParams
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import MAIN, bindings_of, constant, op_name
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.reading.matching import quantize_call

Expr = Any


class Body:
    """Emits operators into one dataflow block."""

    def __init__(self, builder: relax.BlockBuilder) -> None:
        self._builder = builder

    def __call__(self, expr: Expr) -> Expr:
        """Bind an expression."""
        return self._builder.emit(expr)

    def dq(self, codes: Expr, scale: Any, zero_point: Any = 0, axis: int = -1) -> Expr:
        """R.dequantize; arrays of codes become constants."""
        if isinstance(codes, np.ndarray):
            codes = constant(codes)
        dtype = str(codes.ty.dtype)
        zeros = np.broadcast_to(np.asarray(zero_point, dtype), np.shape(scale))
        scales = constant(np.asarray(scale, np.float32))
        return self(relax.op.dequantize(codes, scales, constant(zeros.copy()), axis=axis))

    def q(
        self,
        x: Expr,
        scale: Any,
        zero_point: Any = 0,
        dtype: str = "int8",
        axis: int = -1,
        bounds: tuple[int, int] | None = None,
    ) -> Expr:
        """R.quantize, or vitq.quantize with bounds."""
        scale = np.asarray(scale, np.float32)
        info = np.iinfo(dtype)
        low, high = bounds or (int(info.min), int(info.max))
        granularity = PerAxis(axis % len(x.ty.shape.values)) if scale.ndim else PerTensor()
        zeros = np.broadcast_to(np.asarray(zero_point, np.int32), scale.shape).copy()
        return self(quantize_call(x, QuantParams(scale, zeros, low, high, granularity), dtype))

    def real(self, acc: Expr, scale: float) -> Expr:
        """vitq.dequantize."""
        return self(dialect.dequantize(acc, scale, 0, None))


def module(
    inputs: Mapping[str, tuple[Sequence[int], str]], body: Callable[..., Expr | Sequence[Expr]]
) -> IRModule:
    """A module whose ``main`` is `body`, called with a `Body` and the input variables."""
    params = [
        relax.Var(name, relax.TensorType(list(shape), dtype))
        for name, (shape, dtype) in inputs.items()
    ]
    builder = relax.BlockBuilder()
    with builder.function(MAIN, params):
        with builder.dataflow():
            result = body(Body(builder), *params)
            if isinstance(result, (list, tuple)):
                result = relax.Tuple(list(result))
            out = builder.emit_output(result)
        builder.emit_func_output(out)
    return relax.transform.DeadCodeElimination([MAIN])(builder.finalize())


def ops(mod: IRModule) -> list[str]:
    """The operators of ``main`` in order, without the prefixes ``relax.`` and ``nn.``."""
    names = [op_name(binding.value) for binding in bindings_of(mod[MAIN])]
    return [name.removeprefix("relax.").removeprefix("nn.") for name in names if name]


def random_inputs(mod: IRModule, seed: int = 0) -> list[Any]:
    """Codes over the whole range of each input's type, floats from a normal distribution."""
    rng = np.random.default_rng(seed)
    arrays = []
    for param in mod[MAIN].params:
        shape, dtype = [int(dim) for dim in param.ty.shape.values], str(param.ty.dtype)
        if dtype.startswith("float"):
            arrays.append(rng.normal(size=shape).astype(dtype))
        else:
            info = np.iinfo(dtype)
            arrays.append(rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype))
    return arrays


def assert_same_results(before: IRModule, after: IRModule, atol: int = 0) -> None:
    """Both modules give the same results; `atol` in steps needs a reason at the call."""
    inputs = random_inputs(before)
    for a, b in zip(interpret(before, inputs), interpret(after, inputs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=0, atol=atol)


def assert_rewrites(step: Any, before: IRModule, expected: IRModule) -> IRModule:
    """The pass turns `before` into `expected`, which is something else."""
    after = step(before)
    assert not tvm_ffi.structural_equal(before, after)
    tvm.ir.assert_structural_equal(after, expected)
    return after


def assert_declines(step: Any, before: IRModule, reason: str | None = None) -> None:
    """The pass changes nothing, and gives a reason that contains `reason`."""
    after = step(before)
    tvm.ir.assert_structural_equal(after, before)
    if reason is not None:
        assert any(reason in text for text in step.declines.values()), step.declines
