"""Build an integer module into a shared library, load it, run it."""

import errno
import logging
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitq.compiler.codegen.batching import run_in_batches
from vitq.compiler.codegen.hardware import require_hardware
from vitq.compiler.codegen.launches import kernel_calls
from vitq.compiler.support.compat import check_versions
from vitq.compiler.support.limits import usable_cores
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import find_compiler
from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.outputs import join

logger = logging.getLogger(__name__)

LINKER_FAILED = re.compile(r"(error|failed|cannot [a-z]+)\b.*: .")
NO_SPACE = os.strerror(errno.ENOSPC)
COMPACTION = "s_tir.CompactBufferAllocation"
"""A pass that takes a third of the time and finds nothing: our kernels allocate what they use, and
without blocks. The library is the same, byte for byte."""


def build_library(mod: Any, target: Target, path: Path, choose: Any = None) -> list[str]:
    """Generate code for an integer module and link it.

    Args:
        mod: from `relay_passes.pipeline.integerize`.
        target: what for.
        path: of the ``.so``; written under a temporary name and renamed.
        choose: the kernels' schedules (`compiler.codegen.lower_kernels.Choose`); the defaults if
            None.

    Returns:
        The kernels in the order in which a run calls them.
    """
    check_versions()
    from tvm import relax
    from tvm.target import Target as TvmTarget

    from vitq.compiler.codegen.lower_kernels import lower_kernels, untuned

    tvm_target = TvmTarget(target.tvm_config())
    lowered = lower_kernels(mod, target.features, tvm_target, choose or untuned)
    if target.gpu is None:
        from tvm.ir.transform import PassContext

        with tvm_target, PassContext(disabled_pass=[COMPACTION]):
            executable = relax.build(lowered, target=tvm_target)
    else:
        from vitq.compiler.nvidia.build import build_executable

        executable = build_executable(lowered, tvm_target, target.gpu)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build.") as folder:
        temporary = Path(folder).resolve() / path.name
        _link(executable, temporary, find_compiler(target), path)
        if target.gpu is not None:
            from vitq.compiler.nvidia.build import require_machine_code

            require_machine_code(temporary, target.gpu)
        os.replace(temporary, path)
    return kernel_calls(executable.as_text())


def _link(executable: Any, path: Path, compiler: str, wanted: Path) -> None:
    """Write the shared library; `wanted` is its name in the end.

    Raises:
        VitqError: the compiler fails.
        OSError: there is no room, for it or its input.
    """
    try:
        executable.export_library(str(path), cc=compiler, options=["-Wl,--strip-debug"])
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        known = next((line for line in lines if LINKER_FAILED.search(line)), lines[0])
        if NO_SPACE in known:
            raise OSError(errno.ENOSPC, NO_SPACE, str(wanted)) from error
        raise VitqError(f"{wanted} cannot be linked: {known}") from error


class Library:
    """A compiled model, loaded.

    Args:
        path: of the ``.so``.
        input_shape: (B, C, H, W) it was compiled for.
        target: to check the processor before code runs that it cannot execute.
        threads: of TVM's pool; None leaves its own choice.
    """

    def __init__(
        self,
        path: Path,
        input_shape: tuple[int, ...],
        target: Target,
        threads: int | None = None,
    ) -> None:
        require_hardware(path, target)
        if not path.is_file():
            raise VitqError(f"{path} does not exist: run compile first")
        check_versions()
        if threads is not None:
            usable_cores(threads)
            os.environ["TVM_NUM_THREADS"] = str(threads)
        import tvm
        from tvm import relax

        if target.gpu is not None:
            from vitq.compiler.nvidia.driver import load_runtime

            load_runtime()
        self.batch = input_shape[0]
        self._device = tvm.cpu() if target.gpu is None else tvm.cuda()
        self._tensor = tvm.runtime.tensor
        try:
            module = tvm.runtime.load_module(str(path.resolve()))
        except (RuntimeError, OSError) as error:
            raise VitqError(f"{path} cannot be loaded: compile it again ({error})") from error
        machine = relax.VirtualMachine(module, self._device)
        self._main = machine["main"]

    def __call__(self, pixels: UInt8Array) -> IntArray:
        """Integer logits of any number of pictures; the last batch is padded.

        Args:
            pixels: (N, C, H, W) uint8.

        Returns:
            (N, classes) codes; of other results their rows (`quantization.graph.outputs`).
        """
        return run_in_batches(self._one_batch, pixels, self.batch)

    def _one_batch(self, pixels: UInt8Array) -> IntArray:
        found = self._main(self._tensor(pixels, self._device))
        results = found if isinstance(found, Sequence) else [found]
        return join((result.numpy() for result in results), len(pixels))
