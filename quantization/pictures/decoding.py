"""Pictures that are decoded when they are asked for, by several threads and in their order.

OpenPictures                      number, labels, names of classes
    .batches(64)                  64 pictures, 64 pictures, ...: however many there are, one
                                  batch and `AHEAD` more are in memory
    .load() -> Pictures           all of them
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitq.numerics.arrays import IntArray, UInt8Array

AHEAD = 64
"""Pictures that are decoded before they are asked for."""
WORKERS = 8
"""Most threads that decode."""


@dataclass(frozen=True)
class Pictures:
    """Pixels and what is known of them.

    Attributes:
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64, or None.
        source: where they come from, for provenance.
        class_names: of classes, by number, as far as the source names them.
    """

    pixels: UInt8Array
    labels: IntArray | None
    source: str
    class_names: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.pixels)


@dataclass(frozen=True)
class OpenPictures:
    """Pictures that are not decoded yet.

    Attributes:
        count: how many.
        labels: (N,) int64, or None.
        source: where they come from, for provenance.
        read: (C, H, W) of a picture by its place, from any thread.
        shape: (C, H, W).
        class_names: of classes, by number, as far as the source names them.
        files: of the pictures and of what decides their labels, where there are some.
    """

    count: int
    labels: IntArray | None
    source: str
    read: Callable[[int], UInt8Array]
    shape: tuple[int, ...]
    class_names: dict[int, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        """Count the pictures."""
        return self.count

    def batches(self, size: int) -> Iterator[UInt8Array]:
        """Yield so many pictures at a time, in their order, decoded by several threads.

        Raises:
            VitqError: a picture cannot be read.
        """
        decoded = self._decoded()
        for start in range(0, self.count, size):
            batch = np.empty((min(size, self.count - start), *self.shape), np.uint8)
            for place in range(len(batch)):
                batch[place] = next(decoded)
            yield batch

    def load(self) -> Pictures:
        """Read all pixels.

        Raises:
            VitqError: a picture cannot be read.
        """
        (pixels,) = self.batches(self.count)
        return Pictures(pixels, self.labels, self.source, self.class_names)

    def _decoded(self) -> Iterator[UInt8Array]:
        """Yield each picture; others are decoded meanwhile (Pillow gives up the GIL)."""
        waiting: deque[Future[UInt8Array]] = deque()
        workers = min(WORKERS, len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(workers, thread_name_prefix="vitq-decode") as pool:
            try:
                for place in range(self.count):
                    waiting.append(pool.submit(self.read, place))
                    if len(waiting) > AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
