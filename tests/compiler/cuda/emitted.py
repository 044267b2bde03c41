"""Runs the very CUDA text that TVM emits, compiled by a C++ compiler for this processor.

The emulator (`compiler.kernels.cuda.emulator.emulator`) runs kernels as written; this runs what
TVM's passes and code generator made of them. Only our own instructions
(`compiler.kernels.cuda.intrinsics`) and CUDA's keywords are replaced, by ``cuda_on_cpu.h``.
"""

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tvm import IRModule
from tvm.target import Target as TvmTarget

from vitq.compiler.kernels.cuda.instructions.table import INSTRUCTIONS
from vitq.compiler.nvidia.build import build_executable
from vitq.compiler.target.choice import get_target
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import find_compiler
from vitq.numerics.arrays import IntArray

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
SHARED_BYTES = 1 << 18
SIGNATURE = re.compile(
    r'extern "C" __global__ void __launch_bounds__\((\d+)\) (\w+)_kernel\(([^)]*)\) \{'
)
GRID = ("blockIdx.x", "blockIdx.y", "blockIdx.z")


class _Kernel(NamedTuple):
    threads: int
    parameters: list[str]


class EmittedKernels:
    """The kernels of a lowered module, on this processor.

    Args:
        lowered: from `compiler.codegen.lower_kernels`.
        target: with a GPU.
        folder: for the library.
    """

    def __init__(self, lowered: IRModule, target: Target, folder: Path) -> None:
        texts: list[str] = []
        assert target.gpu is not None
        build_executable(lowered, TvmTarget(target.tvm_config()), target.gpu, texts)
        self.functions = {
            var.name_hint: func
            for var, func in lowered.functions.items()
            if func.attrs and "tirx.is_scheduled" in func.attrs
        }
        source, self.kernels = _translate(texts[0], self.functions)
        (folder / "kernels.cc").write_text(source)
        (folder / "cuda.h").write_text("")
        command = [find_compiler(get_target("cpu")), "-std=c++17", "-O2", "-w", "-shared", "-fPIC"]
        command += [f"-I{folder}", f"-I{HEADER.parent}", "-o", str(folder / "kernels.so")]
        subprocess.run([*command, str(folder / "kernels.cc")], check=True)
        self.library = ctypes.CDLL(str(folder / "kernels.so"))

    def run(self, name: str, inputs: list[IntArray], out: IntArray) -> IntArray:
        """One launch; as `compiler.kernels.cuda.emulator.emulator.run_kernel`."""
        kernel = self.kernels[name]
        arrays = [np.ascontiguousarray(array) for array in inputs]
        result = np.full(out.shape, 0x5A, out.dtype)
        places = {f"x{i}": array for i, array in enumerate(arrays)} | {"out": result}
        pointers = [places[parameter].ctypes.data for parameter in kernel.parameters]
        grid = _grid(self.functions[name])
        blocks = (ctypes.c_int * 3)(*(grid[axis] for axis in GRID))
        addresses = (ctypes.c_void_p * len(pointers))(*pointers)
        getattr(self.library, f"run_{name}")(blocks, kernel.threads, addresses)
        return result


def _grid(func: Any) -> dict[str, int]:
    extents, body = {}, func.body
    while type(body).__name__ == "AttrStmt":
        extents[str(body.node.thread_tag)] = int(body.value)
        body = body.body
    return extents


def _translate(text: str, functions: dict[str, Any]) -> tuple[str, dict[str, _Kernel]]:
    """C++ with one entry for each kernel, and what the entries take."""
    for instruction in INSTRUCTIONS.values():
        text = text.replace(instruction.text, "")
    kernels, entries = {}, []
    for threads, name, parameters in SIGNATURE.findall(text):
        if name not in functions:
            continue
        pairs = [p.replace("__restrict__", "").rsplit(" ", 1) for p in parameters.split(", ")]
        casts = ", ".join(f"({kind.strip()})args[{i}]" for i, (kind, _) in enumerate(pairs))
        names = [pair[1].removesuffix("_ptr") for pair in pairs]
        kernels[name] = _Kernel(int(threads), names)
        entries.append(
            f'extern "C" void run_{name}(const int* blocks, int threads, void** args) {{\n'
            f"  cpu::run_grid(blocks, threads, shared_memory, {SHARED_BYTES}, "
            f"[=] {{ {name}_kernel({casts}); }});\n}}\n"
        )
    names = set(re.findall(r"extern __shared__ .*?(\w+)\[\];", text))
    assert len(names) <= 1, names
    for name in names:
        text = re.sub(rf"extern __shared__ .*?{name}\[\];", "", text)
        text = re.sub(rf"\b{name}\b(?!_)", "shared_memory", text) if names else text
    shared = f"alignas(16) static signed char shared_memory[{SHARED_BYTES}];\n"
    return f'#include "{HEADER.name}"\n{shared}{text}\n{"".join(entries)}', kernels
