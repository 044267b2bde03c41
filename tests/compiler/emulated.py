"""Kernels for ARM, run by the emulator where the tests call them."""

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tvm

from vitq.compiler.target import qemu as emulation
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import find_compiler

_folder = TemporaryDirectory(prefix="vitq.test.")
_numbers = itertools.count()


def build(func: Any, target: Target) -> Path:
    """Compile and link a PrimFunc; its name becomes ``kernel``."""
    path = Path(_folder.name) / f"{next(_numbers)}.so"
    config = tvm.target.Target(target.tvm_config())
    library = tvm.compile(func.with_attr("global_symbol", "kernel"), target=config)
    library.export_library(str(path), cc=find_compiler(target))
    return path


class Emulated:
    """A PrimFunc for another kind of processor; called like a compiled one."""

    def __init__(self, func: Any, target: Target) -> None:
        self.path, self.target = build(func, target), target

    def __call__(self, *tensors: Any) -> None:
        """Run it; the last tensor is overwritten."""
        *inputs, out = (tensor.numpy() for tensor in tensors)
        call = emulation.Call(self.path, "kernel", tuple(inputs), (out.shape, str(out.dtype)))
        tensors[-1].copyfrom(emulation.run([call], self.target)[0])
