"""How long a cut of a product takes, predicted: it ranks schedules where none was measured.

    resident  blocks that share a multiprocessor (shared memory, registers, and how many there are)
    work      one stage of one block: its products, its loads, or what passes through shared memory
              (copies go in, `wgmma` reads both operands), at the multiprocessor's rate
    time      start + waves (block start + turns (work resident + turn) + resident epilogue)

The constants were fitted to 3093 measured schedules of 81 products (DeiT-T/S/B at batch 1, 8, 32)
on an H200. The best predicted of them is 13 % slower than the fastest on average; the shipped log
has the fastest.
"""

import functools
from collections.abc import Iterator
from itertools import product as combinations
from typing import NamedTuple

from vitq.compiler.kernels.cuda.tile import (
    KNOBS,
    NOTHING,
    REGISTERS,
    RESERVED,
    WITHOUT_WGMMA,
    Needs,
    Tile,
)
from vitq.compiler.kernels.kernel import Knob
from vitq.compiler.target.features import GpuFeatures

START = 1460
"""Cycles of a launch."""
WIDE_START = 270
"""Of a block's start, for each four warps beyond the first four."""
SPLIT_START = 335
"""Of a block whose groups of warps add up, beside the sums."""
TURN = 228
"""Of a turn of the main loop, beside its work: barriers, and the pipeline's latency."""
EPILOGUE, TABLE = 0.195, 0.11
"""Cycles for an element of the result, and for looking it up."""
LOAD_RATE = 82
"""Bytes in a cycle that a multiprocessor loads."""
SHARED_RATE = 384
"""Bytes in a cycle that fragments are read with, four warps together."""
WGMMA_SHARED_RATE = 122
"""Bytes in a cycle that pass through shared memory in front of ``wgmma``."""
MMA_SHARE, WGMMA_SHARE = 0.82, 1.70
"""Of the table's products in a cycle, which are those of ``mma``."""
OTHER_REGISTERS = 70
"""Of a thread beside its accumulators, as fitted."""
THREADS, BLOCKS = 2048, 32
"""A multiprocessor's most."""
SUM_RATE = 32
"""Bytes in a cycle that groups of warps add up with."""
WGMMA_ROWS = 64
"""Of one instruction, which reads its operands from shared memory."""
MEASURED_ONLY = {"flight": (0,)}
"""What nothing is predicted of: only a log's records choose it."""


class Product(NamedTuple):
    """What is to be cut.

    Attributes:
        rows: of the result.
        columns: of it.
        inner: padded bytes of K.
        needs: of its epilogue.
    """

    rows: int
    columns: int
    inner: int
    needs: Needs = NOTHING


def knobs(product: Product, features: GpuFeatures) -> dict[str, Knob]:
    """Return the choices, with the default that `ranked` puts first."""
    best = ranked(product, features)[0]
    choices = KNOBS if features.wgmma else KNOBS | WITHOUT_WGMMA
    return {name: Knob(values, getattr(best, name)) for name, values in choices.items()}


@functools.cache
def ranked(product: Product, features: GpuFeatures) -> tuple[Tile, ...]:
    """Tiles by predicted time, of each block shape and split the best.

    Args:
        product: what is cut.
        features: of the GPU.
    """
    order = sorted(
        _candidates(features, product),
        key=lambda tile: (cycles(tile, product, features), -tile.stages),
    )
    found: dict[tuple[int, ...], Tile] = {}
    for tile in order:
        kind = tile.block_m, tile.block_n, tile.split_k, tile.wgmma, tile.warps, tile.chunk
        found.setdefault(kind, tile)
    return tuple(found.values())


def _candidates(features: GpuFeatures, product: Product) -> Iterator[Tile]:
    for values in combinations(*(KNOBS | MEASURED_ONLY).values()):
        tile = Tile(*values)
        divides, enough = product.inner % tile.chunk == 0, tile.warps * tile.split_k >= 2
        if divides and enough and tile.fits(features, product.needs):
            yield tile


def cycles(tile: Tile, product: Product, features: GpuFeatures) -> float:
    """Predict the cycles of one product.

    Args:
        tile: the schedule.
        product: what is cut.
        features: of the GPU.
    """
    rows, columns, inner, needs = product
    blocks = -(-rows // tile.block_m) * -(-columns // tile.block_n)
    turns = -(-inner // (tile.chunk * tile.split_k))
    resident = min(_fitting(tile, needs, features), -(-blocks // features.processors))
    waves = -(-blocks // (features.processors * resident))
    turn = _work(tile, resident, features) * resident + TURN
    epilogue = tile.block_m * tile.block_n * (EPILOGUE + (TABLE if needs.table else 0))
    epilogue *= resident if tile.warps * resident >= 4 else 4 / tile.warps
    start = WIDE_START * (tile.threads / 128 - 1)
    if tile.split_k > 1:
        start += SPLIT_START + tile.sum_bytes / SUM_RATE
    return START + waves * (start + turns * turn + epilogue)


def _fitting(tile: Tile, needs: Needs, features: GpuFeatures) -> int:
    """Blocks that a multiprocessor has room for."""
    acc = tile.warp_m * tile.warp_n // 32
    registers = min(acc + OTHER_REGISTERS, 255) * tile.threads
    shared = features.shared_bytes // (tile.shared_bytes(needs) + RESERVED)
    return max(min(shared, REGISTERS // registers, THREADS // tile.threads, BLOCKS), 1)


def _work(tile: Tile, resident: int, features: GpuFeatures) -> float:
    """Cycles of one block's stage when the multiprocessor does nothing else."""
    macs = tile.block_m * tile.block_n * tile.chunk * tile.split_k
    loads = tile.stage_bytes / LOAD_RATE
    if tile.wgmma:
        read = macs / WGMMA_ROWS / tile.warp_n * (WGMMA_ROWS + tile.warp_n)
        through = (tile.stage_bytes + read) / WGMMA_SHARED_RATE
        return max(macs / (features.macs * WGMMA_SHARE), loads, through)
    warps = min(tile.threads // 32 * resident, 4)
    reads = macs / tile.warp_m / tile.warp_n * (tile.warp_m + tile.warp_n) / SHARED_RATE
    return max(macs / (features.macs * MMA_SHARE * warps / 4), loads + reads)
