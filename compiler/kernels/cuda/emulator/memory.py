"""The memories of an emulated GPU: bounds, noise and races.

Every access is a byte address for each active thread. A memory holds raw bytes, so that views of
other types and copies need nothing of their own.
"""

from typing import NamedTuple

import numpy as np

from vitq.compiler.kernels.emulation import EmulationError
from vitq.numerics.arrays import IntArray

MANY = -1
SEED = 20_220


class Pointer(NamedTuple):
    """Where something lies, for each thread.

    Attributes:
        memory: the one it lies in.
        offset: (threads,) byte offset.
    """

    memory: "Memory"
    offset: IntArray


class Memory:
    """Bytes; the base of the three kinds.

    Args:
        name: for messages.
        rows: how many copies: one for each thread, each block, or one.
        size: bytes of each.
    """

    def __init__(self, name: str, rows: int, size: int) -> None:
        self.name, self.size = name, size
        noise = np.random.default_rng(SEED)
        self.data = noise.integers(0, 256, (rows, size), dtype=np.uint8)

    def load(self, rows: IntArray, offset: IntArray, count: int) -> IntArray:
        """Read `count` bytes at each offset: (n, count) uint8."""
        at = self._addresses(offset, count)
        found: IntArray = self.data[rows[:, None], at]
        return found

    def store(self, rows: IntArray, offset: IntArray, values: IntArray) -> None:
        """Write (n, count) bytes."""
        at = self._addresses(offset, values.shape[1])
        self.data[rows[:, None], at] = values

    def _addresses(self, offset: IntArray, count: int) -> IntArray:
        if offset.size and (offset.min() < 0 or offset.max() + count > self.size):
            raise EmulationError(
                f"{self.name} has {self.size} bytes: an access goes from {offset.min()} "
                f"to {offset.max() + count}"
            )
        if offset.size and (offset % min(count, 16)).any():
            raise EmulationError(f"{self.name}: an access of {count} bytes is not aligned")
        addresses: IntArray = offset[:, None] + np.arange(count)
        return addresses


class Watched(Memory):
    """A memory that threads share: it knows who touched a byte since the last barrier."""

    def __init__(self, name: str, rows: int, size: int) -> None:
        super().__init__(name, rows, size)
        self.epoch = 1
        self.written = np.zeros((rows, size), np.int64)
        self.writer = np.zeros((rows, size), np.int64)
        self.read = np.zeros((rows, size), np.int64)
        self.reader = np.zeros((rows, size), np.int64)

    def barrier(self) -> None:
        """Forget: what is there now is for everybody."""
        self.epoch += 1

    def note_read(self, rows: IntArray, at: IntArray, threads: IntArray) -> None:
        """Threads read bytes (n, count)."""
        where = rows[:, None], at
        mine = threads[:, None]
        fresh = self.written[where] == self.epoch
        if (fresh & (self.writer[where] != mine)).any():
            raise EmulationError(f"{self.name}: a race, a byte is read that another thread wrote")
        first = self.read[where] != self.epoch
        self.reader[where] = np.where(first | (self.reader[where] == mine), mine, MANY)
        self.read[where] = self.epoch
        self.reader[where] = np.where(self.reader[where] == mine, mine, MANY)

    def note_write(self, rows: IntArray, at: IntArray, threads: IntArray) -> None:
        """Threads write bytes (n, count)."""
        where = rows[:, None], at
        mine = np.broadcast_to(threads[:, None], at.shape)
        written = (self.written[where] == self.epoch) & (self.writer[where] != mine)
        read = (self.read[where] == self.epoch) & (self.reader[where] != mine)
        self.writer[where] = mine
        if (written | read | (self.writer[where] != mine)).any():
            raise EmulationError(f"{self.name}: a race, a byte is written that another thread used")
        self.written[where] = self.epoch


class LocalMemory(Memory):
    """Registers: a row for each thread."""


class SharedMemory(Watched):
    """A row for each block."""


class GlobalMemory(Watched):
    """One row; `barrier` never comes, because blocks do not wait for each other.

    Args:
        name: for messages.
        array: what is in it; None for an output.
        size: in bytes.
        awaited: whether an earlier kernel may still use it, until `intrinsics.await_inputs`.
    """

    def __init__(self, name: str, array: IntArray | None, size: int, awaited: bool) -> None:
        super().__init__(name, 1, size)
        self.awaited = awaited
        if array is not None:
            self.data[0] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)

    def _addresses(self, offset: IntArray, count: int) -> IntArray:
        if self.awaited:
            raise EmulationError(f"{self.name} is used before the kernels in front are done")
        return super()._addresses(offset, count)
