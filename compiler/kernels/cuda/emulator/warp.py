"""`compiler.kernels.cuda.intrinsics` a second time, in NumPy, for the emulated GPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vitq.compiler.kernels.cuda.device_functions import PREFIX
from vitq.compiler.kernels.cuda.emulator import fragments
from vitq.compiler.kernels.cuda.emulator.expressions import Expressions, Mask, Value
from vitq.compiler.kernels.cuda.emulator.memory import (
    EmulationError,
    GlobalMemory,
    Pointer,
    SharedMemory,
    Watched,
)
from vitq.numerics.arrays import IntArray

WARP = 32
COPY = 16
WORD = np.uint64(2**32 - 1)
Group = list[tuple[Pointer, IntArray, IntArray]]


class _Begun(NamedTuple):
    """A ``wgmma`` that nobody has waited for."""

    place: int
    name: str
    a: Pointer
    b: Pointer
    mask: Mask


class _Sum(NamedTuple):
    """Accumulators (warps, 32, count) that are being written, and which warps' they are."""

    to: Pointer
    values: IntArray
    active: IntArray


class WarpInstructions:
    """Performs them on all active warps."""

    def __init__(self, expressions: Expressions) -> None:
        self.expr = expressions
        self.open: Group = []
        self.groups: list[Group] = []
        self.begun: list[_Begun] = []
        self.sums: dict[int, _Sum] = {}

    def perform(self, name: str, args: list[Value], mask: Mask) -> None:
        """An instruction without a result."""
        name = name.removeprefix(PREFIX)
        if name.startswith("mma_"):
            self._mma(name.removeprefix("mma_"), args, mask)
        elif name == "ldmatrix":
            self._ldmatrix(args, mask, fragments.ldmatrix_bytes)
        elif name == "ldmatrix_trans":
            self._ldmatrix(args, mask, fragments.ldmatrix_trans_bytes)
        elif name in ("fence_async", "sync_warp"):
            self._warps(mask, name)
        elif name.startswith("wgmma_wait"):
            self._finish(0)
        elif name.startswith("wgmma_let"):
            self._finish(int(name.removeprefix("wgmma_let_")))
        elif name.startswith("wgmma_"):
            self._begin(name, args, mask)
        elif name == "copy16":
            self._copy(args[0], args[1], mask)
        elif name == "await_inputs":
            self._all(mask, name)
            for memory in self.expr.memories.values():
                if isinstance(memory, GlobalMemory):
                    memory.awaited = False
        elif name in ("start_next", "reserve"):
            self._all(mask, name)
        elif name == "commit":
            self._all(mask, name)
            self.groups.append(self.open)
            self.open = []
        elif name.startswith("wait_"):
            self._all(mask, name)
            self._wait(int(name.removeprefix("wait_")))
        else:
            raise EmulationError(f"the emulator does not know {name}")

    def value(self, name: str, args: list[Value], mask: Mask) -> Value:
        """An instruction with a result."""
        name = name.removeprefix(PREFIX)
        if name.startswith("shuffle"):
            values = self._lanes(args[0], mask, name)
            swapped = values[:, np.arange(WARP) ^ int(args[1])]
            return self._spread(swapped, mask)
        if name == "permute":
            words = np.broadcast_arrays(*(np.asarray(a, np.int32) for a in args[:2]))
            return fragments.permute(words[0], words[1], int(args[2]))
        if name == "pick":
            word, place = (np.asarray(a, np.int64) for a in args)
            return np.where(word >> (31 - place) & 1, word >> 8, word).astype(np.int32)
        if name == "mad_high":
            value, multiplier, low, high = (np.asarray(a, np.int64) for a in args)
            total = value * multiplier + ((high << 32) | (low & 0xFFFFFFFF))
            return (total >> 32).astype(np.int32)
        if name == "mad_high_unsigned":
            return mad_high_unsigned(args)
        if name == "limit":
            return np.maximum(np.minimum(args[0], args[1]), 0)
        if name.startswith("pack_"):
            return pack(args, name.removeprefix("pack_"))
        if name == "leading_zeros":
            number = np.maximum(np.asarray(args[0], np.int64), 1)
            return leading_zeros(number)
        raise EmulationError(f"the emulator does not know {name}")

    def _all(self, mask: Mask, name: str) -> None:
        if mask is not None:
            raise EmulationError(f"{name}: not all threads reach it")

    def _warps(self, mask: Mask, name: str) -> IntArray:
        """Numbers of the active warps."""
        count = self.expr.threads // WARP
        if mask is None:
            return np.arange(count)
        lanes = mask.reshape(count, WARP)
        if (lanes.any(axis=1) != lanes.all(axis=1)).any():
            raise EmulationError(f"{name}: not all lanes of a warp reach it")
        warps: IntArray = np.nonzero(lanes.all(axis=1))[0]
        return warps

    def _lanes(self, value: Value, mask: Mask, name: str) -> IntArray:
        """(active warps, 32) of a value."""
        values = np.broadcast_to(np.asarray(value), (self.expr.threads,))
        lanes: IntArray = values.reshape(-1, WARP)[self._warps(mask, name)]
        return lanes

    def _spread(self, lanes: IntArray, mask: Mask) -> IntArray:
        """Active warps' values, for all threads."""
        if mask is None:
            return lanes.reshape(-1)
        result = np.zeros(self.expr.threads, lanes.dtype)
        result[mask] = lanes.reshape(-1)
        return result

    def _registers(self, pointer: Pointer, count: int, mask: Mask, name: str) -> IntArray:
        """(active warps, 32, count) int32 at a pointer to registers."""
        found = self.expr.load(_unaligned(pointer), "int32", count, mask)
        lanes: IntArray = found.reshape(-1, WARP, count)[self._warps(mask, name)]
        return lanes

    def _set_registers(self, pointer: Pointer, lanes: IntArray, mask: Mask) -> None:
        values = np.zeros((self.expr.threads, lanes.shape[-1]), np.int32)
        values[slice(None) if mask is None else mask] = lanes.reshape(-1, lanes.shape[-1])
        self.expr.store(pointer, values, "int32", mask)

    def _mma(self, signs: str, args: list[Value], mask: Mask) -> None:
        acc = self._registers(args[0], 4, mask, "mma")
        words = [self._lanes(arg, mask, "mma") for arg in args[1:]]
        a, b = np.stack(words[:4], axis=-1), np.stack(words[4:], axis=-1)
        self._set_registers(args[0], fragments.mma(acc, a, b, signs), mask)

    def _ldmatrix(
        self, args: list[Any], mask: Mask, places: Callable[[IntArray], IntArray]
    ) -> None:
        source: Pointer = args[1]
        memory = source.memory
        if not isinstance(memory, SharedMemory):
            raise EmulationError("ldmatrix reads shared memory only")
        warps = self._warps(mask, "ldmatrix")
        rows = source.offset.reshape(-1, WARP)[warps]
        if (rows % COPY).any():
            raise EmulationError("ldmatrix: a row is not aligned to 16 bytes")
        where = places(rows).reshape(len(warps) * WARP, -1)
        threads = self.expr.owner.reshape(-1, WARP)[warps].reshape(-1)
        blocks = self.expr.rows(memory)[threads]
        if where.min() < 0 or where.max() >= memory.size:
            raise EmulationError("ldmatrix reads outside of shared memory")
        memory.note_read(blocks, where, threads)
        found = memory.data[blocks[:, None], where].view(np.int32)
        self._set_registers(args[0], found.reshape(len(warps), WARP, 4), mask)

    def _begin(self, name: str, args: list[Any], mask: Mask) -> None:
        """Keep a ``wgmma`` for `_finish`, as late as a GPU may read its operands.

        Its accumulators are noise until then.
        """
        place, count = int(args[0].offset.max()), int(name.split("_")[2][1:]) // 2
        if place not in self.sums:
            values = self._registers(args[0], count, None, name).copy()
            self.sums[place] = _Sum(args[0], values, np.zeros(len(values), bool))
        warps = self._warps(mask, name)
        self.sums[place].active[warps] = True
        noise = np.random.default_rng(len(self.begun)).integers(-(2**31), 2**31, (WARP, count))
        self._set_registers(args[0], np.broadcast_to(noise, (len(warps), WARP, count)), mask)
        self.begun.append(_Begun(place, name, args[1], args[2], mask))

    def _finish(self, pending: int) -> None:
        """Perform all but the latest; accumulators that none is left for are written."""
        while len(self.begun) > pending:
            self._wgmma(self.begun.pop(0))
        for place in set(self.sums) - {begun.place for begun in self.begun}:
            to, values, active = self.sums.pop(place)
            self._set_registers(to, values[active], np.repeat(active, WARP))

    def _wgmma(self, begun: _Begun) -> None:
        """Warp by warp: rows 16 w to 16 w + 15 of the first operand, all of the second."""
        _, signs, columns, chunk = begun.name.split("_")
        n, size = int(columns[1:]), int(chunk[1:])
        warps = self._warps(begun.mask, begun.name)
        a = self._tile(begun.a, warps, 16 * (warps % 4), 16, size)
        b = self._tile(begun.b, warps, 0 * warps, n, size)
        values = self.sums[begun.place].values
        values[warps] = fragments.wgmma(values[warps], a, b, signs)

    def _tile(
        self, source: Pointer, warps: IntArray, first: IntArray, rows: int, chunk: int
    ) -> IntArray:
        """(active warps, rows, chunk) bytes of a tile whose pieces are permuted."""
        memory, starts = source.memory, source.offset.reshape(-1, WARP)[warps]
        if not isinstance(memory, SharedMemory):
            raise EmulationError("wgmma reads shared memory only")
        if (starts != starts[:, :1]).any() or (starts % (8 * chunk)).any():
            raise EmulationError("wgmma: a tile is not at one place, a multiple of its 8 rows")
        row = first[:, None, None] + np.arange(rows)[:, None]
        at = row * chunk + fragments.swizzled(row, np.arange(chunk), chunk)
        where = (starts[:, :1, None] + at).reshape(len(warps), -1)
        threads = self.expr.owner.reshape(-1, WARP)[warps][:, 0]
        blocks = self.expr.rows(memory)[threads]
        if where.max() >= memory.size:
            raise EmulationError("wgmma reads outside of shared memory")
        memory.note_read(blocks, where, threads)
        return memory.data[blocks[:, None], where].reshape(len(warps), rows, chunk)

    def _copy(self, to: Pointer, source: Pointer, mask: Mask) -> None:
        """Read now, keep; the bytes arrive with `_wait`, and may arrive at any time before."""
        found = self.expr.load(_unaligned(source), "int32", COPY // 4, mask)
        active = np.arange(self.expr.threads) if mask is None else np.nonzero(mask)[0]
        if (source.offset[active] % COPY).any():
            raise EmulationError("copy16: the source is not aligned to 16 bytes")
        raw = np.ascontiguousarray(found[active]).view(np.uint8)
        self.open.append((to, active, raw))
        self._note(to, active)

    def _wait(self, pending: int) -> None:
        done = self.groups[: max(len(self.groups) - pending, 0)]
        self.groups = self.groups[len(done) :]
        for group in done:
            for to, active, raw in group:
                to.memory.store(self.expr.rows(to.memory)[active], to.offset[active], raw)
                self._note(to, active)

    def _note(self, to: Pointer, active: IntArray) -> None:
        memory = to.memory
        assert isinstance(memory, Watched)
        at = to.offset[active][:, None] + np.arange(COPY)
        memory.note_write(self.expr.rows(memory)[active], at, self.expr.owner[active])


def _unaligned(pointer: Pointer) -> Pointer:
    return pointer


def mad_high_unsigned(args: list[Value]) -> IntArray:
    """The upper word of ``a * b + (high, low)``, all without a sign; the sum is below 2**64."""
    a, b, low, high = (np.asarray(arg, np.int64).astype(np.uint64) & WORD for arg in args)
    upper = (a * b + (high << np.uint64(32) | low)) >> np.uint64(32)
    return upper.astype(np.uint32).view(np.int32)


def pack(values: list[Value], kind: str) -> IntArray:
    """Each value clamped to its type, the first one in the lowest bits."""
    dtype = np.dtype({"s8": "int8", "u8": "uint8", "s16": "int16"}[kind])
    info = np.iinfo(dtype)
    parts = np.broadcast_arrays(*(np.clip(v, info.min, info.max).astype(dtype) for v in values))
    words: IntArray = np.ascontiguousarray(np.stack(parts, axis=-1)).view(np.int32)[..., 0]
    return words


def leading_zeros(number: IntArray) -> IntArray:
    """Of positive int64 values, exact."""
    rest, zeros = number.copy(), np.full(number.shape, 63, np.int32)
    for step in (32, 16, 8, 4, 2, 1):
        large = rest >= (np.int64(1) << step)
        zeros -= np.where(large, step, 0).astype(np.int32)
        rest = np.where(large, rest >> step, rest)
    return zeros
