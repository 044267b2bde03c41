"""Kernels of another kind of processor under ``qemu-user``: their results, and what they cost.

A small program (``native/runner.c``) loads a library and calls its kernels, many in one start of
the emulator. With a plugin (``native/count.c``) each call's instructions are counted, and the
cycles are estimated that they would take if nothing but the processor's ports were limited. Both
are the same in every run. They are predictions: emulated time means nothing.
"""

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitq.compiler.support.folders import resource
from vitq.compiler.target.table import Emulation, Target
from vitq.compiler.target.tools import find_compiler
from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError

NATIVE = resource("vitq.compiler.target", "native")
EMULATOR = "qemu-aarch64"
EMULATOR_PACKAGE = "qemu-user"
SYSTEM_ROOT = Path("/usr/aarch64-linux-gnu")
SECONDS = 300
SYMBOL = "__tvm_ffi_"
COUNT = re.compile(r"^count (\d+) (\d+)$", re.MULTILINE)
TOTAL = re.compile(r"^total (\d+) (\d+)$", re.MULTILINE)
TYPE_CODES = {"int": 0, "uint": 1}


class Cost(NamedTuple):
    """What one call of a kernel takes.

    Attributes:
        instructions: executed.
        cycles: a lower bound from the processor's width and ports, in no other respect a time.
    """

    instructions: int
    cycles: float


@dataclass(frozen=True)
class Call:
    """One call of a kernel.

    Attributes:
        library: that holds it.
        name: of the kernel.
        inputs: arrays, or (shape, dtype) for zeros.
        out: (shape, dtype) of the result.
    """

    library: Path
    name: str
    inputs: tuple[Any, ...]
    out: tuple[tuple[int, ...], str]


def call_of(library: Path, kernel: Any, name: str | None = None) -> Call:
    """Describe a call of a `compiler.kernels.kernel.Kernel` with zeros."""
    inputs = tuple((t.shape, t.dtype) for t in kernel.inputs)
    return Call(library, name or kernel.name, inputs, (kernel.out.shape, kernel.out.dtype))


def predict(library: Path, kernel: Any, target: Target, name: str | None = None) -> Cost:
    """Return the cost of a compiled kernel, without the processor it is for.

    Args:
        library: shared object.
        kernel: `compiler.kernels.kernel.Kernel`.
        target: with an emulation.
        name: of the kernel in the library, if it is not the template's.

    Returns:
        The same for the same library, on every machine.

    Raises:
        VitqError: the target cannot be emulated here.
    """
    return count([call_of(library, kernel, name)], target)[0]


def why_not(target: Target) -> str | None:
    """Return what is missing to emulate a target here; None if nothing is."""
    if target.emulation is None:
        return f"target {target.name} is not emulated"
    if not shutil.which(EMULATOR):
        return f"{EMULATOR} is not installed: on Debian apt-get install {EMULATOR_PACKAGE}"
    if not SYSTEM_ROOT.is_dir():
        packages = target.cross.packages if target.cross else ""
        return f"{SYSTEM_ROOT} does not exist: on Debian apt-get install {packages}"
    try:
        find_compiler(target)
    except VitqError as error:
        return str(error)
    return None


def run(calls: Sequence[Call], target: Target, cpu: str | None = None) -> list[IntArray]:
    """Results of calls.

    Args:
        calls: any number; those of one library should follow each other.
        target: with an emulation.
        cpu: another model than the target's.

    Returns:
        One array for each call.

    Raises:
        VitqError: the target cannot be emulated here, or a call fails.
    """
    with tempfile.TemporaryDirectory(prefix="vitq.") as name:
        folder = Path(name)
        jobs = [_job(call, i, folder) for i, call in enumerate(calls)]
        _emulate("".join(jobs), target, cpu, [])
        return [_read(folder / f"{i}.out", call) for i, call in enumerate(calls)]


def count(calls: Sequence[Call], target: Target) -> list[Cost]:
    """Costs of calls (see `run`)."""
    with tempfile.TemporaryDirectory(prefix="vitq.") as name:
        jobs = [_job(call, i, Path(name)) for i, call in enumerate(calls)]
        text = _emulate("".join(jobs), target, None, _plugin(target.emulation))
    costs = [Cost(int(a), int(b) / 1000) for a, b in COUNT.findall(text)]
    if len(costs) != len(calls):
        raise VitqError(f"{EMULATOR} counted {len(costs)} of {len(calls)} calls: {text[-200:]}")
    return costs


def count_program(command: Sequence[str], target: Target) -> Cost:
    """Cost of a whole program (see `run`).

    Args:
        command: the program, a path, and its arguments.
        target: with an emulation.

    Raises:
        VitqError: the target cannot be emulated here, or the program fails.
    """
    text = _start(command, "", target, None, _plugin(target.emulation))
    found = TOTAL.search(text)
    if not found:
        raise VitqError(f"{EMULATOR} counted nothing: {text[-200:]}")
    return Cost(int(found[1]), int(found[2]) / 1000)


def _job(call: Call, index: int, folder: Path) -> str:
    """Lines for the runner; arrays are written beside."""
    symbol = f"{SYMBOL}{call.name}"
    lines = [f"job {call.library.resolve()} {symbol} {len(call.inputs) + 1}"]
    for i, value in enumerate(call.inputs):
        if isinstance(value, np.ndarray):
            path = folder / f"{index}.{i}"
            np.ascontiguousarray(value).tofile(path)
            lines.append(_tensor(str(path), value.shape, str(value.dtype)))
        else:
            lines.append(_tensor("-", *value))
    lines.append(_tensor(str(folder / f"{index}.out"), *call.out))
    return "\n".join(lines) + "\n"


def _tensor(path: str, shape: Sequence[int], dtype: str) -> str:
    kind, bits = re.fullmatch(r"([a-z]+)(\d+)", dtype).groups()  # type: ignore[union-attr]
    return " ".join(map(str, ("tensor", path, TYPE_CODES[kind], bits, len(shape), *shape)))


def _read(path: Path, call: Call) -> IntArray:
    shape, dtype = call.out
    result: IntArray = np.fromfile(path, dtype).reshape(shape)
    return result


def _emulate(jobs: str, target: Target, cpu: str | None, options: list[str]) -> str:
    """Run the runner; returns what it and the plugin said."""
    _require(target)
    return _start([str(_runner(find_compiler(target)))], jobs, target, cpu, options)


def _require(target: Target) -> Emulation:
    missing = why_not(target)
    if missing or target.emulation is None:
        raise VitqError(missing or "")
    return target.emulation


def _start(
    program: Sequence[str], text: str, target: Target, cpu: str | None, options: list[str]
) -> str:
    """Run a program on a text; returns what it and the plugin said."""
    cpu = cpu or _require(target).cpu
    command = [EMULATOR, "-L", str(SYSTEM_ROOT), "-cpu", cpu, *options, *program]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise VitqError(f"{EMULATOR} ended with {done.returncode}: {said[-1]}")
    return done.stderr + done.stdout


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Programs built for this process."""
    return tempfile.TemporaryDirectory(prefix="vitq.native.")


@functools.cache
def _runner(compiler: str) -> Path:
    options = ["-x", "c", str(NATIVE / "runner.c"), "-rdynamic", "-ldl"]
    return _build(compiler, options, "runner")


def _plugin(emulation: Emulation | None) -> list[str]:
    """Options of the emulator that load the counting plugin."""
    if emulation is None:
        return []
    path = _built_plugin()
    ports = ("width", "vector", "multiply", "memory")
    arguments = ",".join(f"{port}={getattr(emulation, port)}" for port in ports)
    return ["-plugin", f"{path},{arguments}", "-d", "plugin"]


@functools.cache
def _built_plugin() -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise VitqError("counting needs a C compiler: on Debian apt-get install gcc")
    return _build(compiler, ["-shared", "-fPIC", str(NATIVE / "count.c")], "count.so")


def _build(compiler: str, options: list[str], name: str) -> Path:
    path = Path(_folder().name) / name
    command = [compiler, "-O2", *options, "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VitqError(f"{compiler} cannot build {name}: {done.stderr.strip()[-300:]}")
    return path
