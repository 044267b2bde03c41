"""An integer module with CUDA kernels becomes an executable."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitq.compiler.kernels.building import build_kernel
from vitq.compiler.kernels.kernel import Kernel, Schedule
from vitq.compiler.nvidia.fatbin import contents
from vitq.compiler.target.gpus import Gpu, gpu_of
from vitq.numerics.errors import VitqError

TEXT_MARKS = (b"__global__", b"__device__")


def build_executable(lowered: Any, target: Any, gpu: Gpu, keep: list[str] | None = None) -> Any:
    """Generate code.

    Args:
        lowered: from `compiler.codegen.lower_kernels`.
        target: TVM's, with its host.
        gpu: whose architectures are compiled for.
        keep: if given, gets the CUDA text, for tests.

    Returns:
        TVM's executable.
    """
    import tvm
    from tvm import relax

    from vitq.compiler.nvidia import pipeline, toolchain
    from vitq.compiler.nvidia.driver import load_runtime

    load_runtime()
    toolchain.use_for(gpu.architectures, keep)
    with target, tvm.transform.PassContext(opt_level=3, config={pipeline.GRAPHS: True}):
        return relax.build(
            lowered,
            target=target,
            relax_pipeline=pipeline.relax_passes(target),
            tir_pipeline=pipeline.register(gpu.features.dependent),
        )


def require_machine_code(library: Path, gpu: Gpu) -> None:
    """Check that a library has machine code for all architectures, and no CUDA text.

    Raises:
        VitqError: if not; that would be a defect of this project or of TVM.
    """
    data = library.read_bytes()
    found = {part.architecture for part in contents(data) if part.kind == "elf"}
    missing = [name for name in gpu.architectures if name not in found]
    if missing or any(mark in data for mark in TEXT_MARKS):
        raise VitqError(
            f"{library.name} has CUDA text in it, or no machine code for "
            f"{', '.join(missing) or 'some GPU'}: please report this"
        )


def build_kernels(
    functions: dict[str, tuple[Kernel, Schedule]], config: Mapping[str, Any], gpu: Gpu | None = None
) -> Any:
    """Build a module of single kernels, for timing.

    Args:
        functions: kernel and schedule by name.
        config: of TVM's target.
        gpu: what for; the target's architecture if None.

    Returns:
        TVM's module.
    """
    import tvm
    from tvm.target import Target as TvmTarget

    from vitq.compiler.nvidia import pipeline, toolchain
    from vitq.compiler.nvidia.driver import load_runtime

    load_runtime()
    gpu = gpu or gpu_of((str(config["arch"]),))
    toolchain.use_for(gpu.architectures, ptx=False)
    target = TvmTarget(dict(config))
    built = {
        name: build_kernel(kernel, schedule).with_attr({"target": target, "global_symbol": name})
        for name, (kernel, schedule) in functions.items()
    }
    with target:
        return tvm.tirx.build(
            tvm.IRModule(built), target=target, pipeline=pipeline.register(gpu.features.dependent)
        )
