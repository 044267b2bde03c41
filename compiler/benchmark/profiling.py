"""Where the time goes: every kernel of a compiled library against the machine's measured peak.

The virtual machine's instrument shows each kernel with its arguments. A kernel's time is then
measured by calling it in a loop with the arguments of its first call; its time inside whole
runs, with caches as they are there, is kept beside that. Peak and kernels are measured in turn.
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.benchmark.machine import pin
from vitq.compiler.benchmark.operations import Operand, Shape, Work, family_of, work_of
from vitq.compiler.benchmark.peak import Peak, PeakMeter
from vitq.compiler.support.artifacts import LIBRARY_NAME

WARM_RUNS = 2
RUNS = 10
"""Whole runs in one round; three times as many with the instrument."""
ROUNDS = 7
LOOP_S = 0.004
"""A kernel's loop in one round."""


@dataclass(frozen=True)
class KernelRow:
    """One kernel.

    Attributes:
        name: in the library.
        family: from `compiler.benchmark.operations.family_of`.
        calls: in one run of the model.
        us: of one call, in a loop; the median of rounds.
        insitu_us: of one call inside whole runs; the instrument's own cost is in it.
        mac: multiply-accumulate operations of one call.
        moved_bytes: of one call, at least.
        shapes: of the first operand and of the result.
    """

    name: str
    family: str
    calls: int
    us: float
    insitu_us: float
    mac: int
    moved_bytes: int
    shapes: tuple[Shape, Shape]

    @property
    def total_us(self) -> float:
        """Time of all calls."""
        return self.calls * self.us

    @property
    def gmac_s(self) -> float:
        """Achieved 1e9 MAC for each second."""
        return self.mac / self.us / 1e3

    @property
    def gb_s(self) -> float:
        """Achieved 1e9 bytes for each second, of those that must move."""
        return self.moved_bytes / self.us / 1e3

    @property
    def intensity(self) -> float:
        """Operations (two for each MAC) for each byte."""
        return Work(self.mac, self.moved_bytes).intensity


@dataclass(frozen=True)
class Profile:
    """A library's kernels.

    Attributes:
        library: the ``.so``.
        batch: its static batch size.
        threads: of the library.
        latency_ms: median of whole runs without the instrument.
        peak: measured in between.
        kernels: the most expensive first.
    """

    library: str
    batch: int
    threads: int
    latency_ms: float
    peak: Peak
    kernels: list[KernelRow] = field(default_factory=list)

    @property
    def kernels_ms(self) -> float:
        """Sum of all calls, each measured alone."""
        return sum(row.total_us for row in self.kernels) / 1e3

    @property
    def tokens(self) -> int:
        """Sequence length: of the kernel with most products whose operand has tokens."""
        rows = [row for row in self.kernels if row.mac]
        rows = [row for row in rows if len(row.shapes[0]) in (3, 5)]
        return max(rows, key=lambda row: row.mac * row.calls).shapes[0][1] if rows else 0

    def families_mac(self) -> dict[str, int]:
        """Multiply-accumulate operations of all calls for each family."""
        total: dict[str, int] = {}
        for row in self.kernels:
            total[row.family] = total.get(row.family, 0) + row.calls * row.mac
        return total

    @property
    def insitu_ms(self) -> float:
        """Sum of all calls inside whole runs, with what the instrument itself costs."""
        return sum(row.calls * row.insitu_us for row in self.kernels) / 1e3

    def families_ms(self) -> dict[str, float]:
        """Sum of all calls for each family."""
        total: dict[str, float] = {}
        for row in self.kernels:
            total[row.family] = total.get(row.family, 0.0) + row.total_us / 1e3
        return total

    def to_json(self) -> dict[str, Any]:
        """For a program: the fields, and what follows from them."""
        kernels = [
            {
                **asdict(row),
                "share": row.total_us / 1e3 / self.kernels_ms,
                "gmac_s": row.gmac_s,
                "gops": 2 * row.gmac_s,
                "gb_s": row.gb_s,
                "intensity": row.intensity,
                "peak_share": row.gmac_s / self.peak.gmac_s,
            }
            for row in self.kernels
        ]
        return {
            **asdict(self),
            "kernels_ms": self.kernels_ms,
            "insitu_ms": self.insitu_ms,
            "families_ms": self.families_ms(),
            "families_mac": self.families_mac(),
            "tokens": self.tokens,
            "kernels": kernels,
        }


@dataclass
class _Seen:
    """A kernel as the instrument sees it."""

    function: Any
    arguments: tuple[Any, ...]
    calls: int = 0
    insitu_us: list[float] = field(default_factory=list)
    loop_us: list[float] = field(default_factory=list)


def profile(folder: Path, threads: int, cores: list[int]) -> Profile:
    """Profile the library of a target's folder; call it in a process of its own.

    Args:
        folder: the target's folder.
        threads: of the library.
        cores: to pin to.
    """
    pin(cores)
    os.environ.update(TVM_NUM_THREADS=str(threads), TVM_BIND_THREADS="0")
    import tvm
    from tvm import relax

    from vitq.compiler.codegen.compiled import open_compiled

    compiled = open_compiled(folder)
    compiled.library(threads)  # checks the file and the processor
    module = tvm.runtime.load_module(str((folder / LIBRARY_NAME).resolve()))
    # An instrument stays with its machine and costs time: two machines.
    plain, watched = (relax.VirtualMachine(module, tvm.cpu()) for _ in range(2))
    noise = np.random.default_rng(0).integers(0, 256, compiled.input_shape, dtype=np.uint8)
    x = tvm.runtime.tensor(noise)
    meter = PeakMeter(compiled.target, threads)
    seen = _instrumented(watched, x)
    whole = _in_turn(meter, seen, lambda: plain["main"](x))
    rows = sorted((_row(n, k) for n, k in seen.items()), key=lambda row: -row.total_us)
    return Profile(
        str(folder / LIBRARY_NAME),
        compiled.batch,
        threads,
        1e3 * float(np.median(whole)),
        meter.result(),
        rows,
    )


def _in_turn(meter: PeakMeter, seen: dict[str, _Seen], run: Callable[[], Any]) -> list[float]:
    """Peak, each kernel in a loop, whole runs; again and again.

    Returns:
        Seconds of the whole runs.
    """
    whole: list[float] = []
    for _ in range(ROUNDS):
        meter.sample()
        for kernel in seen.values():
            kernel.loop_us.append(1e6 * _loop(kernel.function, kernel.arguments))
        whole += [_timed(run) for _ in range(WARM_RUNS + RUNS)][WARM_RUNS:]
    return whole


def _instrumented(machine: Any, x: Any) -> dict[str, _Seen]:
    """Whole runs under the instrument: which kernels, how often, how long."""
    seen: dict[str, _Seen] = {}
    started = 0.0

    def visit(function: Any, name: str, before: bool, _: Any, *arguments: Any) -> int:
        nonlocal started
        if before:
            if name not in seen and _is_kernel(name, arguments):
                seen[name] = _Seen(function, arguments)
            started = time.perf_counter()
        elif name in seen:
            seen[name].insitu_us.append(1e6 * (time.perf_counter() - started))
            seen[name].calls += 1
        return 0  # run the kernel

    machine.set_instrument(visit)
    for _ in range(3 * RUNS):
        machine["main"](x)
    for kernel in seen.values():
        kernel.calls //= 3 * RUNS
    return seen


def _is_kernel(name: str, arguments: tuple[Any, ...]) -> bool:
    """Not one of the virtual machine's own functions: those handle storage and shapes."""
    return not name.startswith("vm.") and all(hasattr(a, "shape") for a in arguments)


def _loop(function: Callable[..., Any], arguments: tuple[Any, ...]) -> float:
    """Seconds of one call, from a loop."""
    number = max(1, int(LOOP_S / max(_timed(lambda: function(*arguments)), 1e-6)))
    started = time.perf_counter()
    for _ in range(number):
        function(*arguments)
    return (time.perf_counter() - started) / number


def _timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _row(name: str, kernel: _Seen) -> KernelRow:
    operands = [
        Operand(tuple(int(n) for n in a.shape), np.dtype(str(a.dtype)).itemsize)
        for a in kernel.arguments
    ]
    work = work_of(name, operands)
    return KernelRow(
        name,
        family_of(name),
        kernel.calls,
        float(np.median(kernel.loop_us)),
        float(np.median(kernel.insitu_us)),
        work.mac,
        work.moved_bytes,
        (operands[0].shape, operands[-1].shape),
    )
