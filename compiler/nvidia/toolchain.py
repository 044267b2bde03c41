"""From TVM's CUDA text to machine code: nvcc, or NVRTC from pip's packages.

One fat binary holds machine code for each architecture and PTX of the newest. Results are kept by
the hash of all that went in, because a model takes nvcc up to a minute.
"""

import hashlib
import logging
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from vitq.compiler.nvidia import nvrtc
from vitq.compiler.nvidia.places import find_tool
from vitq.compiler.support.folders import cache_folder
from vitq.compiler.target.gpus import SPECIFIC
from vitq.numerics.errors import VitqError
from vitq.numerics.files import write_atomically

logger = logging.getLogger(__name__)

FLAGS = ("-O3", "-std=c++17", "--diag-suppress=177")
"""177: a variable that TVM's common subexpressions leave unused."""
CALLBACK = "tvm_callback_cuda_compile"
SHARED_RESULT, OWN_RESULT = "* out_ptr", "* __restrict__ out_ptr"
"""TVM declares all of a kernel's pointers free of aliases or none (`compiler.nvidia.pipeline`).
Nothing else points to the result, so that loads may still move in front of stores."""
HOW = (
    "install CUDA's nvcc, or pip install nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm "
    "nvidia-cuda-runtime nvidia-cuda-cccl, or pip install nvidia-cuda-nvrtc nvidia-nvfatbin"
)


def use_for(
    architectures: tuple[str, ...], keep: list[str] | None = None, ptx: bool = True
) -> None:
    """Make TVM compile CUDA text with this module.

    Args:
        architectures: such as ``("sm_75", "sm_90")``, oldest first.
        keep: if given, gets every text that is compiled.
        ptx: whether the binary is to run on newer GPUs, too; half of the compile time.
    """
    import tvm

    def compile_text(code: str, target: object = None) -> bytearray:
        del target
        code = code.replace(SHARED_RESULT, OWN_RESULT)
        if keep is not None:
            keep.append(code)
        return bytearray(compile_cuda(code, architectures, ptx))

    tvm.register_global_func(CALLBACK, compile_text, override=True)


def compile_cuda(code: str, architectures: tuple[str, ...], ptx: bool = True) -> bytes:
    """Make a fat binary.

    Args:
        code: CUDA text.
        architectures: oldest first.
        ptx: whether PTX of the newest is in it.

    Raises:
        VitqError: if there is no compiler; it says what to install.
    """
    nvcc = find_tool("nvcc")
    compiler = f"{nvcc} {_version(nvcc)}" if nvcc else nvrtc.version()
    if compiler is None:
        raise VitqError(f"no CUDA compiler is here: {HOW}")
    parts = [code, *architectures, compiler, *FLAGS, *(() if ptx else ("no ptx",))]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    path = cache_folder() / "cuda" / f"{digest}.fatbin"
    if path.is_file():
        return path.read_bytes()
    started = time.perf_counter()
    if nvcc:
        binary = _nvcc(nvcc, code, architectures, ptx)
    else:
        binary = nvrtc.compile_text(code, architectures)
    logger.info(
        "cuda: %s, %d KiB (%.1f s)",
        ", ".join(architectures), len(binary) // 1024, time.perf_counter() - started,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, binary)
    return binary


def _version(nvcc: Path) -> str:
    out = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"V(\d+\.\d+\.\d+)", out)
    return found.group(1) if found else out


def _nvcc(nvcc: Path, code: str, architectures: tuple[str, ...], ptx: bool) -> bytes:
    numbers = [name.removeprefix("sm_") for name in architectures]
    pairs = []
    for name in architectures:
        own = SPECIFIC.get(name, name)
        pairs.append((own.removeprefix("sm_"), own))
    if ptx:
        pairs.append((numbers[-1], f"compute_{numbers[-1]}"))
    wanted = [f"-gencode=arch=compute_{number},code={code}" for number, code in pairs]
    threads = f"--threads={min(len(pairs), os.cpu_count() or 1)}"
    with tempfile.TemporaryDirectory(prefix="vitq-cuda-") as folder:
        source, target = Path(folder) / "kernels.cu", Path(folder) / "kernels.fatbin"
        source.write_text(code)
        command = [str(nvcc), *FLAGS, "-fatbin", *wanted, threads, "-o", str(target), str(source)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise VitqError(f"{nvcc} failed: {done.stderr.strip() or done.stdout.strip()}")
        return target.read_bytes()
