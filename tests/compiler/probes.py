"""Small programs around parts of the runner, compiled once for all workers."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.sharing import made_once, session_folder
from vitq.compiler.deploy.bundle import COMPILER_OPTIONS, SOURCES

ALWAYS = ("manifest", "json", "sha256")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build_probe(
    factory: pytest.TempPathFactory, name: str, parts: Sequence[str], *options: str
) -> Path:
    """Compile ``tests/compiler/NAME.cc`` with parts of the runner.

    Args:
        factory: of this run.
        name: of the program.
        parts: sources beside `ALWAYS`, without their suffix.
        options: of the compiler, beside the runner's own.
    """

    def make(folder: Path) -> None:
        sources = [str(SOURCES / f"{part}.cc") for part in (*ALWAYS, *parts)]
        own = str(Path(__file__).with_name(f"{name}.cc"))
        flags = ["-O1", "-ffp-contract=off", *COMPILER_OPTIONS, *options, f"-I{SOURCES}"]
        command = ["g++", *flags, own, *sources, "-o", str(folder / name)]
        subprocess.run(command, check=True)

    return made_once(session_folder(factory) / f"probe_{name}", make) / name
