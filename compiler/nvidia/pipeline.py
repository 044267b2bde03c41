"""TVM's passes for a module of CUDA kernels.

The kernels have their threads, barriers and shared memory already, so that most of TVM's GPU
passes have nothing to do, and some would do harm: those that insert barriers or move copies know
nothing of asynchronous copies. Layout operators get TVM's plain schedule.

From sm_90 on a kernel is launched as dependent (CUDA's programmatic dependent launch): it begins
while the one in front of it ends, and waits for that in `intrinsics.await_inputs`. Its pointers are
then not declared free of aliases, because a compiler may move loads of what it believes constant in
front of that wait.
"""

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import relax, s_tir, tirx
from tvm.tirx import compilation_pipeline

from vitq.compiler.kernels.cuda.instructions.instruction import PREFIX
from vitq.compiler.kernels.cuda.intrinsics import CALL

NAME, DEPENDENT = "vitq", "vitq_dependent"
LAUNCH_PARAMETERS = "tirx.kernel_launch_params"
DEPENDENT_TAG = "tirx.use_programtic_dependent_launch"
SHARED_TAG = "tirx.use_dyn_shared_memory"
"""TVM wants it last."""
SCHEDULED = "tirx.is_scheduled"
GRAPHS = "relax.backend.use_cuda_graph"


def relax_passes(target: Any) -> Any:
    """Return the Relax pipeline: legalize what is left, plan memory, record CUDA graphs."""
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


def register(dependent: bool) -> str:
    """Make the TIR pipeline known to TVM, with dependent launches or without; returns its name."""
    name, more = (DEPENDENT, (_dependent,)) if dependent else (NAME, ())
    compilation_pipeline.register_tir_pipeline(name, lambda: _tir_pipeline(more))
    return name


@tirx.transform.prim_func_pass(opt_level=0)
def _dependent(func: Any, _mod: Any, _context: Any) -> Any:
    """Launch a kernel that waits for its inputs before the one in front of it is done."""
    if not func.attrs or LAUNCH_PARAMETERS not in func.attrs or not _waits(func.body):
        return func
    tags = [str(tag) for tag in func.attrs[LAUNCH_PARAMETERS]]
    tags.insert(len(tags) - (SHARED_TAG in tags), DEPENDENT_TAG)
    return func.with_attr({LAUNCH_PARAMETERS: tags, "tirx.noalias": False})


def _waits(statement: Any) -> bool:
    """Whether `intrinsics.await_inputs` is in a kernel's body, outside of branches."""
    kind = type(statement).__name__
    if kind == "AttrStmt":
        return _waits(statement.body)
    if kind == "SeqStmt":
        return any(_waits(step) for step in statement.seq)
    if kind != "Evaluate" or type(statement.value).__name__ != "Call":
        return False
    call = statement.value
    return call.op.name == CALL and str(call.args[0].value) == PREFIX + "await_inputs"


def _tir_pipeline(more: Sequence[Any]) -> tuple[Any, Any, Any]:
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
        *more,
        tirx.transform.MakePackedAPI(),
    ])
    return (
        passes,
        s_tir.pipeline.finalize_host_passes,
        s_tir.pipeline.finalize_device_passes,
    )
