"""What this machine can do at best: dot products in registers, and bytes from memory.

Both are measured by kernels of our own builder, on the cores and in the process of the profile.
The dot kernel keeps a tile of independent accumulators and its weights in registers and reads a
few activations from the L1 cache: no memory traffic, no dependency that is near.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from vitq.compiler.benchmark.machine import cache_sizes
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import find_compiler

STEPS = 512
"""Of one pass over the activations, which stay in the L1 cache."""
PASSES = 128
WIDEST = 4
"""Columns of accumulators."""
ENOUGH = 12
"""Independent accumulators that hide an instruction's latency: two a cycle, five or six cycles."""
STREAMS = 8
"""Accumulators of the reading kernel, so that additions are never what it waits for."""
READ_LANES = 16
L2_FRACTION = 0.5
DEFAULT_CACHES = {"L2": 2**19, "L3": 2**25}
CALLS = 5


@dataclass(frozen=True)
class Peak:
    """What all threads together reach.

    Attributes:
        gmac_s: 1e9 multiply-accumulate operations for each second, the target's 8-bit dot product.
        memory_gb_s: 1e9 bytes read for each second, from a buffer four times the last cache.
        l2_gb_s: likewise, from half of the L2 cache.
    """

    gmac_s: float
    memory_gb_s: float
    l2_gb_s: float


class PeakMeter:
    """Builds the kernels once; `sample` measures, as often as wanted.

    Args:
        target: whose dot product and vectors.
        threads: that work at the same time, each on data of its own.
    """

    def __init__(self, target: Target, threads: int) -> None:
        import tvm

        from vitq.compiler.kernels.cpu.dots import dot_for

        self._dot = dot_for(target.cpu)
        self._threads = threads
        caches = {**DEFAULT_CACHES, **cache_sizes()}
        last = max(caches.values())
        self._sizes = {"l2": int(L2_FRACTION * caches["L2"]), "memory": 4 * last // threads}
        functions = {"dot": dot_kernel(target.cpu, threads)}
        for name, size in self._sizes.items():
            functions[name] = read_kernel(size, _repeats(size), threads)
        self._module = _build(functions, target)
        tensor = tvm.runtime.tensor
        height, width = tile_of(self._dot)
        lanes = self._dot.lanes * self._dot.rows
        self._sink = tensor(np.zeros((threads, height * width, lanes), np.int32))
        rows = activations_type(self._dot, threads)
        self._rows = tensor(np.ones(rows.shape, rows.dtype))
        self._data = {
            name: tensor(np.zeros((threads, size // 4), np.int32))
            for name, size in self._sizes.items()
        }
        self._total = tensor(np.zeros((threads, STREAMS, READ_LANES), np.int32))
        self._samples: list[tuple[float, float, float]] = []

    def sample(self) -> None:
        """Measure all three once."""
        dot = self._dot
        height, width = tile_of(dot)
        registers = self._threads * height * width * dot.rows
        products = PASSES * STEPS * registers * dot.lanes * dot.depth
        seconds = _best(lambda: self._module["dot"](self._rows, self._sink))
        rates = [products / seconds]
        for name in ("memory", "l2"):
            moved = self._threads * self._sizes[name] * _repeats(self._sizes[name])
            read = partial(self._module[name], self._data[name], self._total)
            rates.append(moved / _best(read))
        self._samples.append((rates[0] / 1e9, rates[1] / 1e9, rates[2] / 1e9))

    def result(self) -> Peak:
        """Return the best of all samples: what the machine can do when nothing disturbs it."""
        return Peak(*(max(column) for column in zip(*self._samples, strict=True)))


def tile_of(dot: Any) -> tuple[int, int]:
    """(rows, columns) of accumulators: at least `ENOUGH` of them if registers allow, then wide.

    Weights of the columns stay in registers; a row's activations are one load for all columns.
    """
    free = int(dot.registers) - int(dot.spare)
    tiles = [((free - columns) // columns, columns) for columns in range(1, WIDEST + 1)]
    return max(tiles, key=lambda tile: (min(tile[0] * tile[1], ENOUGH), tile[1]))


def activations_type(dot: Any, threads: int) -> Any:
    """Activations as stored for a primitive, the rows of a tile for each thread."""
    from vitq.compiler.kernels.tensor import TensorType

    shape = dot.rows_shape(threads * tile_of(dot)[0] * dot.rows, STEPS * dot.depth)
    return TensorType(shape, dot.stored("uint8", weights=False))


def dot_kernel(features: Any, threads: int) -> Any:
    """Build a PrimFunc: rows of activations -> (threads, accumulators, lanes) int32."""
    from vitq.compiler.kernels.building import build
    from vitq.compiler.kernels.cpu.builder import alloc, const, load, parallel, serial, store
    from vitq.compiler.kernels.cpu.dots import dot_for
    from vitq.compiler.kernels.tensor import TensorType

    dot = dot_for(features)
    height, width = tile_of(dot)
    lanes = dot.lanes * dot.rows
    out = TensorType((threads, height * width, lanes), "int32")

    def body(x: Any, sink: Any) -> None:
        with parallel(threads) as thread:
            packed = alloc((1, width, dot.lanes * dot.depth), "int8")
            acc = [alloc((lanes,), "int32") for _ in range(height * width)]
            for i in range(width):
                store(packed, const(i + 1, "int8", dot.lanes * dot.depth), 0, i, 0)
            for register in acc:
                store(register, const(0, "int32", lanes), 0)
            weights = [dot.weights(packed, 0, i) for i in range(width)]
            with serial(PASSES), serial(STEPS) as step:
                for r in range(height):
                    a = dot.activations(x, (thread * height + r) * dot.rows, step)
                    for register, b in zip(acc[r * width :], weights, strict=False):
                        old = load(register, 0, lanes=lanes)
                        store(register, dot.accumulate(old, a, b), 0)
            for i, register in enumerate(acc):
                store(sink, load(register, 0, lanes=lanes), thread, i, 0)

    return build("dot", (activations_type(dot, threads),), out, body)


def read_kernel(size: int, repeats: int, threads: int) -> Any:
    """Build a PrimFunc that adds up (threads, size / 4) int32, `repeats` times over."""
    from vitq.compiler.kernels.building import build
    from vitq.compiler.kernels.cpu.builder import alloc, const, load, parallel, serial, store
    from vitq.compiler.kernels.tensor import TensorType

    block = STREAMS * READ_LANES
    source = TensorType((threads, size // 4), "int32")
    out = TensorType((threads, STREAMS, READ_LANES), "int32")

    def body(x: Any, total: Any) -> None:
        with parallel(threads) as thread:
            acc = [alloc((READ_LANES,), "int32") for _ in range(STREAMS)]
            for a in acc:
                store(a, const(0, "int32", READ_LANES), 0)
            with serial(repeats), serial(size // 4 // block) as i:
                for j, a in enumerate(acc):
                    value = load(x, thread, i * block + j * READ_LANES, lanes=READ_LANES)
                    # Not a plain sum: of that the compiler may multiply one pass.
                    store(a, (load(a, 0, lanes=READ_LANES) + value) ^ value, 0)
            for j, a in enumerate(acc):
                store(total, load(a, 0, lanes=READ_LANES), thread, j, 0)

    return build("read", (source,), out, body)


def _repeats(size: int) -> int:
    """Count the passes that read about as much for a small buffer as for a large one."""
    return max(1, 2**26 // size)


def _build(functions: dict[str, Any], target: Target) -> Any:
    import tvm

    config = tvm.target.Target(target.tvm_config())
    named = {
        name: function.with_attr({"global_symbol": name, "target": config})
        for name, function in functions.items()
    }
    library = tvm.compile(tvm.IRModule(named), target=config)
    with TemporaryDirectory() as folder:
        path = str(Path(folder).resolve() / "peak.so")
        library.export_library(path, cc=find_compiler(target))
        return tvm.runtime.load_module(path)


def _best(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of a few calls."""
    call()
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)
