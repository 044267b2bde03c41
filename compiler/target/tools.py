"""The system's tools: compilers, strip, ssh. A failure is one line."""

import errno
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitq.compiler.support.folders import cache_folder
from vitq.compiler.target.table import Cross, Target
from vitq.numerics.errors import VitqError
from vitq.numerics.files import write_atomically

NO_SPACE = os.strerror(errno.ENOSPC)
FLAGS = ("-O2", "-Wall", "-Wextra", "-ffp-contract=off", "-fno-ident", "-s")


@dataclass(frozen=True)
class Toolchain:
    """What builds for a target.

    Attributes:
        target: what for.
        compiler: its C++ compiler; also takes C.
    """

    target: Target
    compiler: str

    @property
    def architecture(self) -> str:
        """``x86_64`` or ``aarch64``, as the device's ``uname -m`` says."""
        return str(dict(self.target.config)["mtriple"]).partition("-")[0]

    def build(self, arguments: Sequence[str], folder: Path, what: str) -> None:
        """Compile and link in a folder."""
        run_tool([self.compiler, *FLAGS, *arguments], what, folder)

    def strip(self, path: Path) -> None:
        """Drop what loading does not need, where the tool for it is installed."""
        name = Path(self.compiler).name
        for suffix in ("clang++", "g++", "c++"):
            if name.endswith(suffix):
                tool = shutil.which(name.removesuffix(suffix) + "strip")
                if tool:
                    run_tool([tool, "--strip-unneeded", path.name], "strip", path.parent)
                return


def toolchain(target: Target) -> Toolchain:
    """Return the tools for a target.

    Raises:
        VitqError: no compiler for it is installed.
    """
    return Toolchain(target, find_compiler(target))


def run_tool(command: Sequence[str], what: str, folder: Path | None = None) -> str:
    """Run a program of the system.

    Args:
        command: the program and its arguments; no shell.
        what: name of the step, for the error.
        folder: where it runs.

    Returns:
        Its standard output.

    Raises:
        VitqError: it does not exist or fails; its last line is quoted.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise VitqError(f"{what}: {command[0]} cannot be started ({error.strerror})") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        full = [line for line in lines if NO_SPACE in line]
        errors = full or [line for line in lines if "error" in line.lower()]
        line = errors[0] if errors else lines[-1]
        raise VitqError(f"{what}: {Path(command[0]).name} failed ({done.returncode}): {line}")
    return done.stdout.decode(errors="replace")


EXECUTABLE = 0o755


def find_compiler(target: Target) -> str:
    """Return the C++ compiler that links the library.

    Raises:
        VitqError: if none is installed.
    """
    if target.cross and platform.machine() not in target.machine:
        return _find_cross_compiler(target.name, target.cross)
    for name in target.compilers:
        path = shutil.which(name)
        if path:
            return path
    raise VitqError(
        f"target {target.name} needs a C++ compiler to link ({', '.join(target.compilers)}): "
        "install one, on Debian with: apt-get install g++"
    )


def _find_cross_compiler(name: str, cross: Cross) -> str:
    """Find a compiler for another kind of machine: the system's, else that of pip's ``ziglang``."""
    path = shutil.which(cross.compiler)
    if path:
        return path
    if importlib.util.find_spec("ziglang"):
        return str(_zig_compiler(cross))
    raise VitqError(
        f"target {name} needs {cross.compiler} to link: on Debian apt-get install "
        f"{cross.packages}, elsewhere pip install ziglang"
    )


def _zig_compiler(cross: Cross) -> Path:
    """Make an executable that starts zig for the target, because linkers are called by one name."""
    path = cache_folder() / f"zig-{cross.zig}-c++"
    command = f'#!/bin/sh\nexec "{sys.executable}" -m ziglang c++ -target {cross.zig} "$@"\n'
    if not path.is_file() or path.read_text() != command:
        write_atomically(path, command)
        path.chmod(EXECUTABLE)
    return path
