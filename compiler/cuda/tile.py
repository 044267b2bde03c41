"""How a matrix product is cut: the knobs of a schedule, made valid, and the default one.

A block computes ``block_m`` x ``block_n`` of the result with warps of ``warp_m`` x ``warp_n``. Each
stage of its pipeline holds `split_k` pieces of ``chunk`` bytes of K; as many groups of warps each
multiply one piece and add up at the end. That is split-K inside of a block: small products (batch
1) get more warps without a second kernel or atomics, and integers add up to the same in any order.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product as combinations

from compiler.features import GpuFeatures
from compiler.kernels.types import Knob, Schedule

WARP = 32
FRAGMENT_M = 16
PIECE = 16
"""Bytes of one load."""
CHUNKS = (64, 128)
K_ALIGN = 64
WARP_LIMIT = 16
REGISTERS = 64 * 1024
OTHER_REGISTERS = 72
"""Of a thread beside its accumulators."""
KNOBS = {
    "warp_m": (16, 32, 64),
    "warp_n": (32, 64, 128, 256),
    "warps_m": (1, 2, 4, 8),
    "warps_n": (1, 2, 4),
    "split_k": (1, 2, 4),
    "chunk": CHUNKS,
    "stages": (2, 3, 4),
    "wgmma": (0, 1),
}
WARP_GROUP = 4
"""Warps that run one ``wgmma``."""
LARGEST_MMA_N = 64
LARGEST_ACC = 128
"""Accumulators of a thread."""
START_CYCLES = 1500
"""Of a block: launch, first loads, epilogue; from published latencies, not measured here."""
LOAD_RATE, SHARED_RATE = 48, 128
"""Bytes in a cycle that a multiprocessor loads, and reads from shared memory."""
CHUNK_CYCLES = 700
"""Of one stage at least: the barrier, and the latency of its loads over the pipeline's depth."""


@dataclass(frozen=True)
class Tile:
    """One valid schedule.

    Attributes:
        warp_m: rows of a warp's tile, a multiple of 16.
        warp_n: columns of it, a multiple of 32.
        warps_m: warps over rows.
        warps_n: warps over columns.
        split_k: groups of warps over K.
        chunk: bytes of K in one piece.
        stages: of the pipeline.
        wgmma: whether four warps multiply together (`compiler.cuda.wgmma`), each 16 rows of 64.
    """

    warp_m: int
    warp_n: int
    warps_m: int
    warps_n: int
    split_k: int
    chunk: int
    stages: int
    wgmma: int = 0

    @property
    def block_m(self) -> int:
        """Rows of a block."""
        return self.warp_m * self.warps_m

    @property
    def block_n(self) -> int:
        """Columns of a block."""
        return self.warp_n * self.warps_n

    @property
    def warps(self) -> int:
        """Of one group."""
        return self.warps_m * self.warps_n

    @property
    def threads(self) -> int:
        """Of a block."""
        return WARP * self.warps * self.split_k

    @property
    def fragment_rows(self) -> int:
        """From one of a warp's fragments to the next."""
        return FRAGMENT_M * (WARP_GROUP if self.wgmma else 1)

    @property
    def stage_bytes(self) -> int:
        """Shared memory of one stage."""
        return (self.block_m + self.block_n) * self.chunk * self.split_k

    @property
    def sum_bytes(self) -> int:
        """Shared memory in which groups add up."""
        return 4 * self.block_m * self.block_n * (self.split_k - 1)

    @property
    def shared_bytes(self) -> int:
        """Of a block."""
        return max(self.stage_bytes * self.stages, self.sum_bytes)

    def fits(self, features: GpuFeatures) -> bool:
        """Whether a block has room."""
        acc = self.warp_m * self.warp_n // WARP
        if self.wgmma:
            together = features.wgmma and self.warps_m % WARP_GROUP == 0 and self.warp_m < 64
        else:
            together = self.warp_n <= LARGEST_MMA_N and self.warps_m <= WARP_GROUP
        return (
            together
            and acc <= LARGEST_ACC
            and self.warps * self.split_k <= WARP_LIMIT
            and self.shared_bytes <= features.shared_bytes
            and (acc + OTHER_REGISTERS) * self.threads <= REGISTERS
        )


def knobs(rows: int, columns: int, inner: int, features: GpuFeatures) -> dict[str, Knob]:
    """The choices, with the default that `ranked` puts first."""
    best = ranked((rows, columns, inner), features)[0]
    return {name: Knob(choices, getattr(best, name)) for name, choices in KNOBS.items()}


@functools.cache
def ranked(shape: tuple[int, int, int], features: GpuFeatures) -> tuple[Tile, ...]:
    """Tiles by predicted time, of each block shape and split the best.

    Args:
        shape: rows, columns and padded inner dimension of the product.
        features: of the GPU.
    """
    order = sorted(
        _candidates(features, shape[2]),
        key=lambda tile: (_cycles(tile, shape, features), -tile.stages),
    )
    found: dict[tuple[int, int, int, int], Tile] = {}
    for tile in order:
        found.setdefault((tile.block_m, tile.block_n, tile.split_k, tile.wgmma), tile)
    return tuple(found.values())


def tile_of(schedule: Schedule, inner: int, features: GpuFeatures) -> Tile:
    """The schedule's tile, reduced until it fits: every combination of knobs is valid.

    Args:
        schedule: a value for each knob.
        inner: padded bytes of K.
        features: of the GPU.
    """
    tile = Tile(**schedule)
    if inner % tile.chunk:
        tile = replace(tile, chunk=K_ALIGN)
    if tile.wgmma and not (features.wgmma and tile.warps_m % WARP_GROUP == 0):
        tile = replace(tile, wgmma=0)
    smaller = ("stages", "split_k", "warp_n", "warps_n", "warp_m", "warps_m", "wgmma", "chunk")
    while not tile.fits(features):
        name = next(n for n in smaller if getattr(tile, n) > KNOBS[n][0])
        below = [value for value in KNOBS[name] if value < getattr(tile, name)]
        tile = replace(tile, **{name: below[-1]})
    return tile


def _candidates(features: GpuFeatures, inner: int) -> Iterator[Tile]:
    for values in combinations(*KNOBS.values()):
        tile = Tile(*values)
        if tile.fits(features) and inner % tile.chunk == 0 and tile.warps * tile.split_k >= 2:
            yield tile


def _cycles(tile: Tile, shape: tuple[int, int, int], features: GpuFeatures) -> float:
    """A prediction: waves of blocks, each as long as its products and its stages' latencies."""
    rows, columns, inner = shape
    blocks = -(-rows // tile.block_m) * -(-columns // tile.block_n)
    turns = -(-inner // (tile.chunk * tile.split_k))
    warps = tile.warps * tile.split_k
    rate = features.macs * (2 if tile.wgmma else min(warps, 4) / 4)
    macs = tile.block_m * tile.block_n * tile.chunk * tile.split_k
    fragments = 0 if tile.wgmma else tile.warp_m + tile.warp_n
    reads = macs / tile.warp_m / tile.warp_n * fragments / SHARED_RATE
    loads = tile.stage_bytes / LOAD_RATE + reads
    turn = max(macs / rate, loads, CHUNK_CYCLES / (tile.stages - 1))
    per_processor = min(features.shared_bytes // tile.shared_bytes, 2, 32 // warps) or 1
    waves = -(-blocks // features.processors)
    shared = min(waves, per_processor)
    busy = max(turn * shared, CHUNK_CYCLES / (tile.stages - 1))
    reduce = tile.sum_bytes / 32
    return -(-waves // shared) * (START_CYCLES + turns * busy + reduce)
