"""The float model through TVM, scheduled so that the comparison is fair.

TVM's own default schedules are some 60 times slower than onnxruntime on a processor, which says
nothing about TVM. Here

* matrix products are a kernel of our builder (`compiler.benchmark.float_kernels`): weights packed
  when compiled, a register tile of fused multiply-adds, parallel over column tiles; the patch
  embedding is one of them;
* everything else is TVM's own legalization and fusion, with TVM's fast exponential and error
  function, scheduled by one rule: elementwise producers inlined, outer loops parallel, the
  innermost loop in vectors.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from vitq.compiler.benchmark.float_kernels import Gemm, gemm_kernel, pack_weights, registers_of
from vitq.compiler.benchmark.float_schedule import schedule_module
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import find_compiler
from vitq.relay_passes.expressions import constant, is_constant, op_name, shape_of

logger = logging.getLogger(__name__)

SQRT_HALF = 0.5**0.5


def build_float_library(source: Path, target: Target, path: Path) -> None:
    """Compile a float ONNX file.

    Args:
        source: with static shapes.
        target: what for.
        path: of the ``.so`` to write.
    """
    import onnx
    from tvm.relax.frontend.onnx import from_onnx

    model = onnx.load(source)
    entry = model.graph.input[0]
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    mod = from_onnx(model, shape_dict={entry.name: shape})
    config = tvm.target.Target(target.tvm_config())
    with config:
        mod = relax.transform.FoldConstant()(mod)
        mod = LowerFloat(mod, target).run()
        for step in (
            relax.transform.FastMathTransform(),
            relax.transform.LegalizeOps(),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FoldConstant(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
        ):
            mod = step(mod)
        mod = schedule_module(mod, target)
        options = {"s_tir.LoopPartition": {"partition_const_loop": True}}
        with tvm.transform.PassContext(config=options):
            executable = relax.build(mod, target=config)
    executable.export_library(str(path.resolve()), cc=find_compiler(target))


@mutator
class LowerFloat(PyExprMutator):
    """Products become kernels of our own, GELU its definition."""

    def __init__(self, mod: Any, target: Target) -> None:
        super().__init__(mod)
        self.mod, self.target = mod, target
        self.kernels: dict[Gemm, Any] = {}

    def run(self) -> Any:
        """Return the rewritten module."""
        for gvar, function in self.mod.functions_items():
            if isinstance(function, relax.Function):
                self.builder_.update_func(gvar, self.visit_expr(function))
        return relax.transform.DeadCodeElimination()(self.builder_.get())

    def visit_call_(self, call: Any) -> Any:
        """One operator."""
        call = self.visit_expr_post_order(call)
        name = op_name(call)
        if name == "relax.matmul":
            return self._matmul(call.args[0], call.args[1])
        if name == "relax.nn.conv2d":
            return self._patches(call)
        if name == "relax.nn.gelu":
            x = call.args[0]
            scaled = relax.op.erf(relax.op.multiply(x, _number(SQRT_HALF)))
            half = relax.op.multiply(x, _number(0.5))
            return relax.op.multiply(half, relax.op.add(scaled, _number(1.0)))
        return call

    def _matmul(self, a: Any, b: Any) -> Any:
        left, right = shape_of(a), shape_of(b)
        batch = int(np.prod(right[:-2])) if len(right) > 2 else 1
        rows = int(np.prod(left[:-1])) // batch
        packed = is_constant(b) and len(right) == 2
        gemm = Gemm(batch, rows, left[-1], right[-1], packed, *registers_of(self.target))
        if packed:
            b = constant(pack_weights(b.value.numpy(), gemm.vector_bits // 32))
        a = self.builder_.emit(relax.op.reshape(a, (batch, rows, left[-1])))
        if not packed:
            b = self.builder_.emit(relax.op.reshape(b, (batch, *right[-2:])))
        flat = relax.TensorType((batch, rows, right[-1]), "float32")
        result = self.builder_.emit(relax.call_tir(self._kernel(gemm), relax.Tuple([a, b]), flat))
        return relax.op.reshape(result, (*left[:-1], right[-1]))

    def _patches(self, call: Any) -> Any:
        """Lower a convolution whose stride is its kernel: a product of patches."""
        x, weight = call.args[0], call.args[1]
        batch, channels, height, width = shape_of(x)
        count, _, patch, _ = shape_of(weight)
        down, across = height // patch, width // patch
        x = relax.op.reshape(x, (batch, channels, down, patch, across, patch))
        x = self.builder_.emit(relax.op.permute_dims(x, [0, 2, 4, 1, 3, 5]))
        rows = relax.op.reshape(x, (batch, down * across, channels * patch * patch))
        matrix = np.ascontiguousarray(weight.value.numpy().reshape(count, -1).T)
        product = self._matmul(self.builder_.emit(rows), constant(matrix))
        moved = relax.op.permute_dims(self.builder_.emit(product), [0, 2, 1])
        return relax.op.reshape(self.builder_.emit(moved), (batch, count, down, across))

    def _kernel(self, gemm: Gemm) -> Any:
        if gemm not in self.kernels:
            name = f"gemm_{len(self.kernels)}"
            self.kernels[gemm] = self.builder_.add_func(gemm_kernel(gemm, name), name)
        return self.kernels[gemm]


def _number(value: float) -> Any:
    return relax.const(value, "float32")
