"""How a matrix product is cut: the knobs of a schedule, made valid, and the default one.

A block computes ``block_m`` x ``block_n`` of the result with warps of ``warp_m`` x ``warp_n``. Each
stage of its pipeline holds `split_k` pieces of ``chunk`` bytes of K; as many groups of warps each
multiply one piece and add up at the end. That is split-K inside of a block: small products (batch
1) get more warps without a second kernel or atomics, and integers add up to the same in any order.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from vitq.compiler.kernels.cuda.instructions.wgmma import CHUNKS, WIDTHS
from vitq.compiler.kernels.kernel import Schedule
from vitq.compiler.target.features import GpuFeatures

WARP = 32
FRAGMENT_M = 16
PIECE = 16
"""Bytes of one load."""
K_ALIGN = 64
RESERVED = 1024
"""Bytes of shared memory that every block takes for itself."""
WARP_LIMIT = 16
"""Of a block."""
REGISTERS = 64 * 1024
OTHER_REGISTERS = 72
"""Of a thread beside its accumulators."""
KNOBS = {
    "warp_m": (16, 32, 64),
    "warp_n": WIDTHS,
    "warps_m": (1, 2, 4, 8),
    "warps_n": (1, 2, 4),
    "split_k": (1, 2, 4),
    "chunk": CHUNKS,
    "stages": (2, 3, 4),
    "wgmma": (0, 1),
    "flight": (0, 1),
}
WITHOUT_WGMMA = {"warp_n": (32, 64), "warps_m": (1, 2, 4), "wgmma": (0,), "flight": (0,)}
"""What is left of them on other GPUs, so that a log's records for Hopper do not count there."""
WARP_GROUP = 4
"""Warps that run one ``wgmma``."""
LARGEST_MMA_N = 64
LARGEST_ACC = 128
"""Accumulators of a thread."""
CHANNEL_BYTES = 16
"""Constants of one column."""


class Needs(NamedTuple):
    """What an epilogue reads from shared memory beside its columns' constants.

    Attributes:
        table: bytes of a look-up table.
        residual: bytes of a code that is added to each result; 0 if none is fetched ahead.
    """

    table: int = 0
    residual: int = 0


NOTHING = Needs()


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
        wgmma: whether four warps multiply together (`instructions.wgmma`), each 16 rows of 64.
        flight: whether they begin a stage's products before those of the stage in front are done.
    """

    warp_m: int
    warp_n: int
    warps_m: int
    warps_n: int
    split_k: int
    chunk: int
    stages: int
    wgmma: int = 0
    flight: int = 0

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
        """Warps of one group."""
        return self.warps_m * self.warps_n

    @property
    def threads(self) -> int:
        """Threads of a block."""
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
    def ahead(self) -> int:
        """Stages that are loaded before they are multiplied."""
        return self.stages - 1 - self.flight

    @property
    def loop_bytes(self) -> int:
        """Shared memory of the main loop."""
        return max(self.stage_bytes * self.stages, self.sum_bytes)

    @property
    def may_fly(self) -> bool:
        """Whether products may be in flight: a stage is then left to load ahead."""
        return bool(self.wgmma) and self.stages > 2

    def residual_bytes(self, needs: Needs) -> int:
        """Bytes of the codes that are added to the block's results."""
        return self.block_m * self.block_n * needs.residual

    def reuses_stage(self, needs: Needs) -> bool:
        """Whether the residual goes into a stage that the main loop no longer needs."""
        return self.split_k == 1 and self.residual_bytes(needs) <= self.stage_bytes

    def shared_bytes(self, needs: Needs) -> int:
        """Shared memory of a block: the main loop's, constants, table, perhaps the residual."""
        own = 0 if self.reuses_stage(needs) else self.residual_bytes(needs)
        return self.loop_bytes + self.block_n * CHANNEL_BYTES + needs.table + own

    def fits(self, features: GpuFeatures, needs: Needs = NOTHING) -> bool:
        """Whether a block has room."""
        acc = self.warp_m * self.warp_n // WARP
        if self.wgmma:
            together = features.wgmma and self.warps_m % WARP_GROUP == 0 and self.warp_m < 64
        else:
            together = self.warp_n <= LARGEST_MMA_N and self.warps_m <= WARP_GROUP
        return (
            together
            and (self.may_fly or not self.flight)
            and acc <= LARGEST_ACC
            and self.warps * self.split_k <= WARP_LIMIT
            and self.shared_bytes(needs) <= features.shared_bytes
            and (acc + OTHER_REGISTERS) * self.threads <= REGISTERS
        )


def tile_of(schedule: Schedule, inner: int, features: GpuFeatures, needs: Needs = NOTHING) -> Tile:
    """Return the schedule's tile, reduced until it fits: every combination of knobs is valid.

    Args:
        schedule: a value for each knob.
        inner: padded bytes of K.
        features: of the GPU.
        needs: of its epilogue.
    """
    tile = Tile(**schedule)
    if inner % tile.chunk:
        tile = replace(tile, chunk=K_ALIGN)
    if tile.wgmma and not (features.wgmma and tile.warps_m % WARP_GROUP == 0):
        tile = replace(tile, wgmma=0)
    if tile.flight and not tile.may_fly:
        tile = replace(tile, flight=0)
    smaller = (
        "flight", "stages", "split_k", "warp_n", "warps_n", "warp_m", "warps_m", "wgmma", "chunk"
    )  # fmt: skip
    while not tile.fits(features, needs):
        name = next(n for n in smaller if getattr(tile, n) > KNOBS[n][0])
        below = [value for value in KNOBS[name] if value < getattr(tile, name)]
        tile = replace(tile, **{name: below[-1]})
    return tile
