"""The active threads of the emulated GPU, for the meanings of instructions."""

from typing import Any, NoReturn, TypeVar

import numpy as np

from vitq.compiler.kernels.cuda.emulator.expressions import Expressions, Mask
from vitq.compiler.kernels.cuda.emulator.memory import (
    EmulationError,
    GlobalMemory,
    Pointer,
    SharedMemory,
    Watched,
)
from vitq.compiler.kernels.cuda.instructions.instruction import WARP, Value
from vitq.compiler.kernels.cuda.instructions.table import FUNCTIONS
from vitq.numerics.arrays import IntArray

S = TypeVar("S")


class Instructions:
    """Runs the instructions of one launch.

    Args:
        expressions: whose memories they use.
    """

    def __init__(self, expressions: Expressions) -> None:
        self.expr = expressions
        self.states: dict[type, Any] = {}

    def run(self, function: str, args: list[Value], mask: Mask) -> Value:
        """One instruction, on the threads of a mask."""
        instruction = FUNCTIONS.get(function)
        if instruction is None:
            raise EmulationError(f"the emulator does not know {function}")
        return instruction.numpy(ActiveThreads(self, instruction.name, mask), *args)


class ActiveThreads:
    """`compiler.kernels.cuda.instructions.instruction.Threads`.

    Args:
        launch: they belong to.
        name: of the instruction, for messages.
        mask: (threads,) bool; None for all.
    """

    def __init__(self, launch: Instructions, name: str, mask: Mask) -> None:
        self.launch, self.expr, self.name, self.mask = launch, launch.expr, name, mask

    def refuse(self, why: str) -> NoReturn:
        """End the launch."""
        raise EmulationError(f"{self.name}: {why}")

    def everyone(self) -> None:
        """Refuse unless all threads are active."""
        if self.mask is not None:
            self.refuse("not all threads reach it")

    def warps(self) -> IntArray:
        """Numbers of the active warps."""
        count = self.expr.threads // WARP
        if self.mask is None:
            return np.arange(count)
        lanes = self.mask.reshape(count, WARP)
        if (lanes.any(axis=1) != lanes.all(axis=1)).any():
            self.refuse("not all lanes of a warp reach it")
        warps: IntArray = np.nonzero(lanes.all(axis=1))[0]
        return warps

    def lanes(self, value: Value) -> IntArray:
        """(active warps, 32) of a value."""
        values = np.broadcast_to(np.asarray(value), (self.expr.threads,))
        lanes: IntArray = values.reshape(-1, WARP)[self.warps()]
        return lanes

    def spread(self, lanes: IntArray) -> IntArray:
        """Active warps' values, for all threads."""
        if self.mask is None:
            return lanes.reshape(-1)
        result = np.zeros(self.expr.threads, lanes.dtype)
        result[self.mask] = lanes.reshape(-1)
        return result

    def registers(self, pointer: Pointer, count: int) -> IntArray:
        """(active warps, 32, count) int32 at a pointer to registers."""
        found = self.expr.load(pointer, "int32", count, self.mask)
        lanes: IntArray = found.reshape(-1, WARP, count)[self.warps()]
        return lanes

    def set_registers(self, pointer: Pointer, values: IntArray) -> None:
        """Write what `registers` reads."""
        full = np.zeros((self.expr.threads, values.shape[-1]), np.int32)
        full[slice(None) if self.mask is None else self.mask] = values.reshape(-1, values.shape[-1])
        self.expr.store(pointer, full, "int32", self.mask)

    def shared_rows(self, pointer: Pointer) -> IntArray:
        """(active warps, 32) byte offsets into shared memory."""
        if not isinstance(pointer.memory, SharedMemory):
            self.refuse("it reads shared memory only")
        rows: IntArray = pointer.offset.reshape(-1, WARP)[self.warps()]
        return rows

    def read_shared(self, pointer: Pointer, where: IntArray) -> IntArray:
        """Bytes that each lane reads, or the first lane of a warp for all of them."""
        memory = pointer.memory
        assert isinstance(memory, SharedMemory)
        if where.min() < 0 or where.max() >= memory.size:
            self.refuse("it reads outside of shared memory")
        threads = self.expr.owner.reshape(-1, WARP)[self.warps()]
        threads = threads.reshape(-1) if where.ndim == 3 else threads[:, 0]
        at = where.reshape(len(threads), -1)
        blocks = self.expr.rows(memory)[threads]
        memory.note_read(blocks, at, threads)
        found: IntArray = memory.data[blocks[:, None], at].reshape(where.shape)
        return found

    def offsets(self, pointer: Pointer) -> IntArray:
        """Byte offset of each active thread."""
        offsets: IntArray = pointer.offset[self._active()]
        return offsets

    def read(self, pointer: Pointer, count: int) -> IntArray:
        """(active threads, count) bytes."""
        found = self.expr.load(pointer, "uint8", count, self.mask)
        bytes_: IntArray = found[self._active()]
        return bytes_

    def claim(self, pointer: Pointer, count: int) -> None:
        """Note that bytes may be written from now on."""
        memory, active = pointer.memory, self._active()
        assert isinstance(memory, Watched)
        at = pointer.offset[active][:, None] + np.arange(count)
        memory.note_write(self.expr.rows(memory)[active], at, self.expr.owner[active])

    def write(self, pointer: Pointer, raw: IntArray) -> None:
        """Write (active threads, count) bytes."""
        memory, active = pointer.memory, self._active()
        memory.store(self.expr.rows(memory)[active], pointer.offset[active], raw)
        self.claim(pointer, raw.shape[1])

    def release_inputs(self) -> None:
        """Let tensors of kernels in front be used."""
        for memory in self.expr.memories.values():
            if isinstance(memory, GlobalMemory):
                memory.awaited = False

    def state(self, kind: type[S]) -> S:
        """Return the launch's one instance of a class."""
        state: S = self.launch.states.setdefault(kind, kind())
        return state

    def only(self, warps: IntArray | None) -> "ActiveThreads":
        """Return the same launch, other warps."""
        mask = None if warps is None else np.repeat(warps, WARP)
        return ActiveThreads(self.launch, self.name, mask)

    def _active(self) -> IntArray:
        if self.mask is None:
            return np.arange(self.expr.threads)
        active: IntArray = np.nonzero(self.mask)[0]
        return active
