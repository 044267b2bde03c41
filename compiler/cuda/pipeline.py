"""TVM's passes for a module of CUDA kernels.

The kernels have their threads, barriers and shared memory already, so that most of TVM's GPU
passes have nothing to do, and some would do harm: those that insert barriers or move copies know
nothing of asynchronous copies. Layout operators get TVM's plain schedule.
"""

from typing import Any

import tvm
from tvm import relax, s_tir, tirx
from tvm.tirx import compilation_pipeline

NAME = "vitq"
SCHEDULED = "tirx.is_scheduled"
GRAPHS = "relax.backend.use_cuda_graph"


def relax_passes(target: Any) -> Any:
    """The Relax pipeline: legalize what is left, plan memory, record CUDA graphs."""
    from tvm.s_tir import dlight

    @tvm.transform.module_pass(opt_level=0)
    def run(mod: Any, _: Any) -> Any:
        with target:
            return tvm.transform.Sequential([
                relax.transform.LegalizeOps(),
                relax.transform.FoldConstant(),
                relax.transform.RewriteDataflowReshape(),
                relax.transform.DeadCodeElimination(),
                dlight.ApplyDefaultSchedule(dlight.gpu.Fallback()),
                relax.transform.ToNonDataflow(),
                relax.transform.RemovePurityChecking(),
                relax.transform.CallTIRRewrite(),
                relax.transform.StaticPlanBlockMemory(),
                relax.transform.RewriteCUDAGraph(),
                relax.transform.LowerAllocTensor(),
                relax.transform.KillAfterLastUse(),
                relax.transform.LowerRuntimeBuiltin(),
                relax.transform.ComputePrimValue(),
                relax.transform.VMShapeLower(),
                relax.transform.AttachGlobalSymbol(),
            ])(mod)

    return run


def register() -> str:
    """Make the TIR pipeline known to TVM; returns its name."""
    compilation_pipeline.register_tir_pipeline(NAME, _tir_pipeline)
    return NAME


def _tir_pipeline() -> tuple[Any, Any, Any]:
    passes = tvm.transform.Sequential([
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.LiftThreadBinding(),
        s_tir.transform.UnifyThreadBinding(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.UnrollLoop(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        tirx.transform.VerifyMemory(),
        tirx.transform.AnnotateEntryFunc(),
        tirx.transform.SplitHostDevice(),
        tirx.transform.MakePackedAPI(),
    ])
    return (
        passes,
        s_tir.pipeline.finalize_host_passes,
        s_tir.pipeline.finalize_device_passes,
    )
