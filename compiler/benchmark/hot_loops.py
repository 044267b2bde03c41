"""The innermost loops of compiled ARM kernels, and how fast llvm-mca says that they run.

    python -m vitq.compiler.benchmark.hot_loops          needs binutils for aarch64 and llvm-mca

llvm-mca (Debian: ``llvm-19``; models of the processors below came with LLVM 17) simulates a loop
whose data is in the first-level cache. Its figures are predictions, as those of
`compiler.target.qemu`.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.kernels.building import build_kernel
from vitq.compiler.kernels.kernel import KernelCall
from vitq.compiler.support.tables import print_table
from vitq.compiler.target.table import TARGETS, Target
from vitq.compiler.target.tools import find_compiler
from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError
from vitq.relay_passes.dialect.names import LINEAR

OBJDUMP = "aarch64-linux-gnu-objdump"
MACS = {"sdot": 16, "smmla": 32, "fmla": 4} | dict.fromkeys(("smull", "smlal"), 8)
"""Multiplications of one instruction; also of those that take the upper halves."""
MODELS = {"rpi5": "neoverse-n1", "graviton3": "neoverse-v1", "rpi4": "cortex-a72"}
"""What LLVM has a model of; Neoverse N1 is the server's Cortex-A76."""
ITERATIONS = 200
OLDEST_MCA = 17
"""The first that models Neoverse V1 as it is."""
GEMM = (197, 192, 576)
CYCLES = re.compile(r"^Total Cycles:\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Loop:
    """An innermost loop.

    Attributes:
        code: its instructions, as an assembler reads them, the branch without its target.
    """

    code: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Mnemonics."""
        return [line.split()[0] for line in self.code]

    @property
    def macs(self) -> int:
        """Multiplications in one iteration."""
        return sum(MACS.get(name.removesuffix("2"), 0) for name in self.names)


def hot_loops(path: Path) -> list[Loop]:
    """Return the innermost loops of a library that multiply.

    Args:
        path: of the shared object.

    Returns:
        In order of their addresses.
    """
    command = [OBJDUMP, "-d", "--no-show-raw-insn", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    code = re.findall(r"^ +([0-9a-f]+):\t(\S+)(.*)$", text, re.MULTILINE)
    at = {int(address, 16): i for i, (address, _, _) in enumerate(code)}
    loops = []
    for end, (_, name, operands) in enumerate(code):
        target = re.search(r"\b([0-9a-f]{3,})\b <", operands)
        if not target or not name.startswith(("b.", "cb")):
            continue
        begin = at.get(int(target[1], 16), end)
        body = [(mnemonic, rest) for _, mnemonic, rest in code[begin : end + 1]]
        if begin < end and sum(mnemonic.startswith("b.") for mnemonic, _ in body) == 1:
            loops.append(Loop(tuple(map(_line, body))))
    return [loop for loop in loops if loop.macs]


def _line(instruction: tuple[str, str]) -> str:
    name, operands = instruction
    operands = re.sub(r"\b[0-9a-f]{3,} <.*>", "0", operands.partition("//")[0])
    return f"{name} {operands.strip()}"


def cycles(loop: Loop, cpu: str) -> float:
    """Cycles of one iteration on a processor that llvm-mca knows.

    Raises:
        VitqError: there is no llvm-mca, or it does not know the processor.
    """
    tool = find_mca()
    command = [tool, "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"]
    source = "\n".join(loop.code) + "\n"
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    found = CYCLES.search(done.stdout)
    if done.returncode or not found:
        raise VitqError(f"{tool} fails: {(done.stderr.strip().splitlines() or ['?'])[0]}")
    return int(found[1]) / ITERATIONS


def find_mca() -> str:
    """Return the newest llvm-mca.

    Raises:
        VitqError: there is none, or only one that is too old to know the processors.
    """
    for name in (*(f"llvm-mca-{version}" for version in range(30, 16, -1)), "llvm-mca"):
        path = shutil.which(name)
        if path and _version(path) >= OLDEST_MCA:
            return path
    raise VitqError(
        f"llvm-mca {OLDEST_MCA} or newer is not installed: on Debian apt-get install llvm-19"
    )


def _version(path: str) -> int:
    """Read the version of an LLVM tool; 0 if it does not say."""
    said = subprocess.run([path, "--version"], check=False, capture_output=True, text=True).stdout
    found = re.search(r"LLVM version (\d+)", said)
    return int(found.group(1)) if found else 0


def product(target: Target) -> KernelCall:
    """Return the integer product of `GEMM`: a linear layer without bias, to int8."""
    from vitq.compiler.kernels.cpu.lowering import TensorType, lower_op

    rows, inner, channels = GEMM
    weight = np.random.default_rng(0).integers(-127, 128, (channels, inner), dtype=np.int8)
    zeros, bounds = np.zeros(channels, np.int32), np.array([-128, 127], np.int64)
    multiplier, shift = np.full(channels, 2**30, np.int32), np.full(channels, 42, np.int32)
    values: list[IntArray] = [weight, zeros, multiplier, shift, zeros, bounds]
    types = [TensorType((rows, inner), "int8")]
    types += [TensorType(value.shape, str(value.dtype)) for value in values]
    out = TensorType((rows, channels), "int8")
    constants = dict(enumerate(values, 1))
    return lower_op(LINEAR, types, constants, out, target.cpu)


def float_product(target: Target) -> Any:
    """Return the float product of `GEMM` that `vitq benchmark` compares with."""
    from vitq.compiler.benchmark.float_kernels import Gemm, gemm_kernel, registers_of

    return gemm_kernel(Gemm(1, *GEMM, True, *registers_of(target)), "kernel")


def hottest(func: Any, target: Target) -> Loop:
    """Return the loop of a PrimFunc that multiplies most in one iteration."""
    import tvm

    with tempfile.TemporaryDirectory(prefix="vitq.") as folder:
        path = Path(folder) / "kernel.so"
        config = tvm.target.Target(target.tvm_config())
        library = tvm.compile(func.with_attr("global_symbol", "kernel"), target=config)
        library.export_library(str(path), cc=find_compiler(target))
        return max(hot_loops(path), key=lambda loop: loop.macs)


def rows_of(names: Sequence[str]) -> list[list[str]]:
    """Make a table's rows: target, kernel, products, instructions and cycles of an iteration."""
    rows = []
    for name in names:
        target, cpu = TARGETS[name], MODELS[name]
        for kind, func in (
            ("int8", build_kernel(product(target).kernel)),
            ("float32", float_product(target)),
        ):
            loop = hottest(func, target)
            found = cycles(loop, cpu)
            share = f"{loop.macs / found:.1f}"
            rows.append([
                name,
                kind,
                cpu,
                str(loop.macs),
                str(len(loop.code)),
                f"{found:.1f}",
                share,
            ])
    return rows


def main() -> None:
    """Print the table."""
    head = ["target", "product", "model", "MAC", "instructions", "cycles", "MAC/cycle"]
    print_table(head, rows_of(list(MODELS)), f"hottest loop of {'x'.join(map(str, GEMM))}")


if __name__ == "__main__":
    main()
