"""The float model through TVM on a GPU: its own fusion, and dlight's GPU schedules.

The patch embedding becomes a matrix product, and products take dlight's rules for them, in half
precision on tensor cores.
"""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import mutator

from vitq.compiler.benchmark.tvm_float import LowerFloat
from vitq.compiler.nvidia import toolchain
from vitq.compiler.nvidia.driver import load_runtime
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import find_compiler

HALF = "float16"


UNDECORATED: Any = vars(LowerFloat)["_cls"]
"""The decorated class refuses heirs."""


@mutator
class LowerForGpu(UNDECORATED):
    """Products stay TVM's."""

    def _matmul(self, a: Any, b: Any) -> Any:
        return self.builder_.emit(relax.op.matmul(a, b))


def build_float_library(source: Path, target: Target, path: Path, half: bool) -> None:
    """Compile a float ONNX file for a GPU.

    Args:
        source: with static shapes.
        target: with a GPU.
        path: of the ``.so`` to write.
        half: products in half precision.
    """
    import onnx
    from tvm.relax.frontend.onnx import from_onnx
    from tvm.s_tir import dlight

    assert target.gpu is not None
    load_runtime()
    toolchain.use_for(target.gpu.architectures)
    model = onnx.load(source)
    entry = model.graph.input[0]
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    mod = from_onnx(model, shape_dict={entry.name: shape})
    config = tvm.target.Target(target.tvm_config())
    rules = dlight.gpu
    with config, quick_intrinsics():
        mod = relax.transform.FoldConstant()(mod)
        mod = LowerForGpu(mod, target).run()
        if half:
            mod = relax.transform.ConvertToDataflow()(mod)
            mod = relax.transform.ToMixedPrecision(out_dtype=HALF)(mod)
        for step in (
            relax.transform.LegalizeOps(),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FoldConstant(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
            dlight.ApplyDefaultSchedule(
                rules.Matmul(), rules.GEMV(), rules.Reduction(), rules.GeneralReduction(),
                rules.Fallback(),
            ),
        ):  # fmt: skip
            mod = step(mod)
        with tvm.transform.PassContext(config={"relax.backend.use_cuda_graph": True}):
            executable = relax.build(mod, target=config)
    executable.export_library(str(path.resolve()), cc=find_compiler(target))


@contextmanager
def quick_intrinsics() -> Iterator[None]:
    """Import CUDA's tensor intrinsics in seconds.

    TVMScript's parser calls `inspect.getmodule` some 30 000 times meanwhile, and each call looks
    through all modules. It can go when ``import tvm.s_tir.tensor_intrin.cuda`` is fast by itself.
    """
    original = inspect.getmodule

    def getmodule(object: Any, _filename: str | None = None) -> ModuleType | None:
        name = getattr(object, "__module__", None)
        return sys.modules.get(name) if name else original(object, _filename)

    inspect.getmodule = getmodule
    try:
        yield
    finally:
        inspect.getmodule = original
