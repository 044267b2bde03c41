"""How long a cut of a product takes, predicted: it ranks schedules where none was measured.

    resident  blocks that share a multiprocessor (shared memory, registers, and how many there are)
    work      one stage of one block: its products, or its loads, at the multiprocessor's rate
    turn      one stage of all of them, or of one alone as long as its loads take to arrive
    time      start + waves (block start + turns * turn + resident * epilogue)

The constants were fitted to 220 measured schedules of 15 products (DeiT-Small at batch 1 and 8,
DeiT-Base at 32) on an H200. On 39 products of DeiT-T/S/B its choice was then 13 % slower than the
best of twelve that were timed: the shipped log has those.
"""

import functools
from collections.abc import Iterator
from itertools import product as combinations
from typing import NamedTuple

from compiler.cuda.tile import KNOBS, NOTHING, REGISTERS, RESERVED, WITHOUT_WGMMA, Needs, Tile
from compiler.features import GpuFeatures
from compiler.kernels.types import Knob

START = 2900
"""Cycles of a launch."""
BLOCK_START = 520
EPILOGUE = 0.31
"""Cycles for an element of the result."""
LOAD_RATE = 53
"""Bytes in a cycle that a multiprocessor loads."""
SHARED_RATE = 1030
"""Bytes in a cycle that fragments are read with, four warps together."""
LATENCY = 570
"""Of one stage at least, spread over the pipeline's depth."""
MMA_SHARE, WGMMA_SHARE = 1.25, 1.39
"""Of the table's products in a cycle, which are those of ``mma``."""
OTHER_REGISTERS = 67
"""Of a thread beside its accumulators, as fitted."""
THREADS, BLOCKS = 2048, 32
"""A multiprocessor's most."""
SUM_RATE = 32
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
    """The choices, with the default that `ranked` puts first."""
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
    """Of one product.

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
    work = _work(tile, resident, features)
    turn = max(work * resident, LATENCY / (tile.stages - 1) + work)
    warps = tile.threads // 32
    epilogue = tile.block_m * tile.block_n * EPILOGUE
    epilogue *= resident if warps * resident >= 4 else 4 / warps
    start = BLOCK_START + tile.sum_bytes / SUM_RATE
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
        return max(macs / (features.macs * WGMMA_SHARE), loads)
    warps = min(tile.threads // 32 * resident, 4)
    reads = macs / tile.warp_m / tile.warp_n * (tile.warp_m + tile.warp_n) / SHARED_RATE
    return max(macs / (features.macs * MMA_SHARE * warps / 4), loads + reads)
