"""No schedule changes a bit, and every combination of knobs is a valid one."""

import itertools

import numpy as np
import pytest

from tests.compiler.kernels.test_gemm import fused_call, linear_call, run_fused
from tests.compiler.kernels.util import GPU, random_codes, run_lowered, run_op, tensor_type
from vitq.compiler.codegen.lower_kernels import lower_op
from vitq.compiler.kernels.cpu.lowering import TensorType
from vitq.compiler.kernels.cuda.tile import KNOBS, Needs, Tile, tile_of
from vitq.compiler.target.features import GpuFeatures
from vitq.compiler.target.gpus import ARCHITECTURES
from vitq.compiler.tuning.schedules import is_valid
from vitq.relay_passes.dialect import names

HOPPER = ARCHITECTURES["sm_90"]
LARGE = GpuFeatures(processors=1, shared_bytes=160 * 1024, macs=2048)
"""Room for a large tile."""


def test_every_combination_fits_every_gpu() -> None:
    room = {(f.shared_bytes, f.wgmma): f for f in ARCHITECTURES.values()}  # what decides
    for features in room.values():
        for inner in (192, 768):
            for values in itertools.product(*KNOBS.values()):
                tile = tile_of(dict(zip(KNOBS, values, strict=True)), inner, features)
                assert tile.fits(features) and inner % tile.chunk == 0
                assert tile.ahead > 0 and tile.flight <= tile.wgmma


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("op", [names.LINEAR, names.LINEAR_ADD, names.LINEAR_GELU])
@pytest.mark.parametrize("features", [GPU, HOPPER], ids=["mma", "wgmma"])
def test_random_schedules(features: GpuFeatures, op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, channels = (int(rng.integers(*limits)) for limits in ((2, 150), (17, 200)))
    case = (rows, int(rng.choice([48, 64, 128, 192, 256])), channels, 0.1)
    if op != names.LINEAR:
        dtype = "int16" if op.endswith("add") else "int8"
        run_fused(op, fused_call(op, rng, case, ("int16", dtype)), dtype, features, rng)
        return
    x = random_codes(rng, "int8", case[:2])
    operands, expected = linear_call(rng, x, case[2], "int8", 1e-3)
    result = run_op(op, operands, TensorType(expected.shape, "int8"), features, draw=rng)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("op", [names.LINEAR_ADD, names.LINEAR_GELU])
def test_the_tiles_of_large_batches(op: str) -> None:
    """Blocks of 128 x 256 with 8 warps, more rows and columns than one block."""
    tile, needs = Tile(64, 64, 2, 4, 1, 64, 2), Needs(4096, 2)
    assert (tile.block_m, tile.block_n, tile.warps) == (128, 256, 8) and tile.fits(LARGE, needs)
    assert not tile.reuses_stage(needs), "the residual has its own memory"
    rng = np.random.default_rng(9)
    dtype = "int16" if op.endswith("add") else "int8"
    call = fused_call(op, rng, (300, 256, 320, 0.1), ("int16", dtype))
    run_fused(op, call, dtype, LARGE, vars(tile))


@pytest.mark.parametrize("flight", [0, 1])
@pytest.mark.parametrize(
    "values",
    [
        {"warp_m": 16, "warp_n": 64, "warps_m": 4, "warps_n": 1, "split_k": 1, "chunk": 64},
        {"warp_m": 16, "warp_n": 128, "warps_m": 4, "warps_n": 2, "split_k": 1, "chunk": 128},
        {"warp_m": 32, "warp_n": 64, "warps_m": 8, "warps_n": 1, "split_k": 1, "chunk": 128},
        {"warp_m": 16, "warp_n": 32, "warps_m": 4, "warps_n": 1, "split_k": 2, "chunk": 64},
        {"warp_m": 16, "warp_n": 256, "warps_m": 4, "warps_n": 1, "split_k": 1, "chunk": 64},
    ],
)
@pytest.mark.parametrize("op", [names.LINEAR_ADD, names.LINEAR_GELU])
def test_wgmma(op: str, values: dict[str, int], flight: int) -> None:
    """Four warps together: rows, columns and K that no tile divides, and several blocks."""
    rng = np.random.default_rng(5)
    dtype = "int16" if op.endswith("add") else "int8"
    case = (150, 320, 300 + 4 * flight, 0.1)
    schedule = values | {"stages": 3, "wgmma": 1, "flight": flight}
    assert tile_of(schedule, 320, HOPPER).wgmma and tile_of(schedule, 320, HOPPER).flight == flight
    run_fused(op, fused_call(op, rng, case, ("int16", dtype)), dtype, HOPPER, schedule)


@pytest.mark.parametrize("inner", [64, 128, 192, 256])
@pytest.mark.parametrize("flight", [0, 1])
def test_a_residual_arrives_whether_or_not_the_loop_is_longer_than_its_pipeline(
    inner: int, flight: int
) -> None:
    """One to four turns, with four stages."""
    op, rng = names.LINEAR_ADD, np.random.default_rng(inner)
    values = vars(Tile(16, 64, 4, 1, 1, 64, 4, 1, flight))
    call = fused_call(op, rng, (70, inner, 72, 0.1), ("int16", "int16"))
    run_fused(op, call, "int16", HOPPER, values)


def test_a_record_for_hopper_counts_on_hopper_only() -> None:
    rng = np.random.default_rng(0)
    operands, expected = linear_call(rng, random_codes(rng, "int8", (20, 192)), 40, "int8", 1e-3)
    constants = {i: operands[i] for i in range(1, 7)}
    types, out = [tensor_type(o) for o in operands], TensorType(expected.shape, "int8")
    values = vars(Tile(16, 96, 4, 1, 1, 64, 3, 1))
    for features, usable in ((HOPPER, True), (ARCHITECTURES["sm_87"], False)):
        kernel = lower_op(names.LINEAR, types, constants, out, features).kernel
        assert is_valid(kernel, values) is usable
        assert is_valid(kernel, vars(Tile(16, 32, 1, 2, 1, 64, 3, 0)))


def test_split_k_with_an_uneven_last_turn() -> None:
    """Three chunks of K over four groups of warps: one group has none."""
    rng = np.random.default_rng(3)
    x = random_codes(rng, "int8", (20, 192))
    operands, expected = linear_call(rng, x, 40, "int8", 1e-3)
    values = vars(Tile(16, 32, 1, 1, 4, 64, 2))
    constants = {i: operands[i] for i in range(1, 7)}
    out = TensorType(expected.shape, "int8")
    call = lower_op(names.LINEAR, [tensor_type(o) for o in operands], constants, out, GPU)
    result = run_lowered(call, operands, GPU, values)
    np.testing.assert_array_equal(result, expected)
