"""Packed weights of 2 to 4 bits: what is packed, and products that equal those of bytes."""

import numpy as np
import pytest

from tests.compiler.kernels.test_gemm import fused_call, linear_call, run_fused
from tests.compiler.kernels.util import FEATURES, VNNI, random_codes, run_op, tensor_type
from vitq.compiler.kernels.cpu.dots import dot_for
from vitq.compiler.kernels.cpu.lowering import CpuFeatures, TensorType, lower_op
from vitq.compiler.kernels.cpu.narrow import PLANES, Narrow, narrow_for
from vitq.compiler.tuning.log import Entry
from vitq.compiler.tuning.schedules import LOG, Schedules
from vitq.compiler.tuning.workload import space_text, task_text
from vitq.numerics.arrays import IntArray
from vitq.numerics.matmul import int_matmul
from vitq.relay_passes.dialect import names

FEATURE_IDS = pytest.mark.parametrize("features", FEATURES, ids=lambda f: f.dot)
BITS = pytest.mark.parametrize("bits", sorted(PLANES))


def all_weights(bits: int, steps: int) -> IntArray:
    """(3, steps, 8): every code of a width, in changing order."""
    codes = np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
    return np.resize(np.concatenate([codes, codes[::-1], codes[1:]]), (3, steps, 8)).astype(np.int8)


@BITS
@pytest.mark.parametrize("steps", [1, 7, 8, 16, 21])
def test_packing_keeps_every_weight(bits: int, steps: int) -> None:
    """Fields of all planes, also where the last bundle is not full."""
    narrow, dense = Narrow(bits), all_weights(bits, steps)
    packed = narrow.pack(dense)
    bundles = -(-steps // narrow.steps)
    assert packed.shape == (3, bundles * narrow.registers, 8)
    assert packed.size * 8 == 3 * bundles * narrow.steps * 8 * bits
    expanded = narrow.expanded(packed).astype(np.int64)
    np.testing.assert_array_equal(expanded[:, :steps], dense.astype(np.int64) << narrow.up)
    assert not expanded[:, steps:].any()


def test_bytes_of_four_bit_weights() -> None:
    """Written out: the first step's weights in the low half, the second one's in the high half."""
    dense = np.array([[[-8, 7], [1, -1], [3, -4]]], np.int8)
    packed = Narrow(4).pack(dense).view(np.uint8)
    assert packed.tolist() == [[[0x18, 0xF7], [0x03, 0x0C]]]


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(-1, 1, 2), (-2, 1, 2), (-3, 3, 3), (-4, 0, 3), (0, 7, 4), (-8, 7, 4), (-9, 0, 0), (0, 8, 0)],
)
def test_the_narrowest_packing_that_holds_the_weights(low: int, high: int, bits: int) -> None:
    weight = np.array([[low, high, 0]], np.int8)
    assert narrow_for(weight) == (Narrow(bits) if bits else None)


def test_sums_that_would_not_fit_stay_bytes() -> None:
    """2**23 products of 255 * 1 * 2**6: bytes are needed where 2-bit weights are shifted up."""
    assert narrow_for(np.ones((1, 2**17 - 1), np.int8)) == Narrow(2)
    assert narrow_for(np.ones((1, 2**18), np.int8)) is None


CASES = {2: (17, 5, 16, "int8"), 3: (29, 200, 80, "int8"), 4: (3, 37, 17, "uint8")}
"""Bits -> rows, inner, channels, type of x."""


@FEATURE_IDS
@BITS
def test_linear(bits: int, features: CpuFeatures) -> None:
    """Full and broken bundles, few and many rows, signed and unsigned activations."""
    rows, inner, channels, dtype = CASES[bits]
    rng = np.random.default_rng(rows + bits)
    x = random_codes(rng, dtype, (1, rows, inner))
    x[0, 0] = np.iinfo(dtype).min
    x[0, -1] = np.iinfo(dtype).max
    operands, expected = linear_call(rng, x, channels, "int8", 2e-3, bits)
    out = TensorType((1, rows, channels), "int8")
    np.testing.assert_array_equal(run_op(names.LINEAR, operands, out, features), expected)


@FEATURE_IDS
def test_extremes(features: CpuFeatures) -> None:
    """The lowest weight of a width is the lowest byte: sums of two products must not overflow."""
    ends, bits = np.array([-128, 127], np.int8), 4
    rng = np.random.default_rng(bits)
    x = np.concatenate([np.repeat(ends, 96).reshape(2, 96), rng.choice(ends, (20, 96))])
    low = -(1 << (bits - 1))
    weight = rng.choice(np.array([low, -low - 1], np.int8), (24, 96))
    weight[0], weight[1] = low, -low - 1
    zeros, one = np.zeros(24, np.int32), np.full(24, 2**30, np.int32)
    params = np.array([-(2**31), 2**31 - 1], np.int64)
    operands = [x, weight, zeros, one, np.full(24, 30, np.int32), zeros, params]
    result = run_op(names.LINEAR, operands, TensorType((22, 24), "int32"), features)
    np.testing.assert_array_equal(result, int_matmul(x, weight.T))


@FEATURE_IDS
@pytest.mark.parametrize(("op", "bits"), [(names.LINEAR_ADD, 3), (names.LINEAR_GELU, 4)])
def test_second_steps(op: str, bits: int, features: CpuFeatures) -> None:
    dtype = "int16" if op.endswith("add") else "int8"
    rng = np.random.default_rng(bits)
    call = fused_call(op, rng, (23, 64, 96, 0.9), ("int16", dtype), bits)
    run_fused(op, call, dtype, features)


@BITS
def test_no_schedule_changes_a_bit(bits: int) -> None:
    rng = np.random.default_rng(bits)
    case = (int(rng.integers(2, 70)), int(rng.integers(4, 90)), int(rng.integers(17, 200)), 0.1)
    call = fused_call(names.LINEAR_GELU, rng, case, ("", "int8"), bits)
    run_fused(names.LINEAR_GELU, call, "int8", VNNI, rng)


@FEATURE_IDS
def test_patch_embed(features: CpuFeatures) -> None:
    rng = np.random.default_rng(3)
    pixels = random_codes(rng, "uint8", (1, 3, 16, 16))
    tiles = pixels.reshape(1, 3, 4, 4, 4, 4).transpose(0, 2, 4, 1, 3, 5)
    rows = np.ascontiguousarray(tiles).reshape(1, 16, 48)
    operands, expected = linear_call(rng, rows, 24, "int16", 0.01, bits=3)
    operands[0], operands[1] = pixels, operands[1].reshape(24, 3, 4, 4)
    out = TensorType((1, 16, 24), "int16")
    np.testing.assert_array_equal(run_op(names.PATCH_EMBED, operands, out, features), expected)


def test_a_task_of_its_own_that_falls_back_to_the_one_of_bytes() -> None:
    rng = np.random.default_rng(0)
    x = random_codes(rng, "int8", (1, 40, 64))
    kernels = {}
    for bits in (8, 4):
        operands, _ = linear_call(rng, x, 96, "int8", 1e-3, bits)
        constants = {i: operands[i] for i in range(1, 7)}
        types = [tensor_type(o) for o in operands]
        out = TensorType((1, 40, 96), "int8")
        kernels[bits] = lower_op(names.LINEAR, types, constants, out, VNNI).kernel
    assert kernels[4].inputs[1].size * 2 == kernels[8].inputs[1].size
    assert dot_for(kernels[4].features) == dot_for(kernels[8].features)
    wide, packed = (task_text(kernels[bits]) for bits in (8, 4))
    assert packed == f"{wide}, 4-bit weights"
    space = space_text(kernels[8].knobs())
    of_bytes = Entry(space, {"rows": 4, "columns": 2}, 1e-5, False)
    own = Entry(space, {"rows": 6, "columns": 2}, 2e-5, False)
    schedules = Schedules({wide: [of_bytes]})
    assert schedules(kernels[4]) == of_bytes.values
    assert schedules.applied[0].source == LOG
    assert Schedules({wide: [of_bytes], packed: [own]})(kernels[4]) == own.values
