"""The emulated instructions against formulas written another way."""

import numpy as np
import pytest

from vitq.compiler.kernels.cuda.instructions import fragments
from vitq.compiler.kernels.cuda.instructions.order import MAX_PENDING
from vitq.compiler.kernels.cuda.instructions.words import leading_zeros, permute


@pytest.mark.parametrize("signs", ["s8s8", "u8s8", "s8u8", "u8u8"])
def test_mma_places_every_byte_as_the_manual_says(signs: str) -> None:
    """The manual's rules, element by element: one element of A and of B at a time."""
    rng = np.random.default_rng(0)
    types = {"s8": np.int8, "u8": np.uint8}
    a_type, b_type = types[signs[:2]], types[signs[2:]]
    a = rng.integers(-(2**31), 2**31, (3, 32, 4), dtype=np.int64).astype(np.int32)
    b = rng.integers(-(2**31), 2**31, (3, 32, 2), dtype=np.int64).astype(np.int32)
    acc = rng.integers(-1000, 1000, (3, 32, 4), dtype=np.int64).astype(np.int32)
    result = fragments.mma(acc, a, b, signs)
    for warp in range(3):
        left, right = np.zeros((16, 32), int), np.zeros((32, 8), int)
        for lane in range(32):
            a_bytes, b_bytes = a[warp, lane].view(a_type), b[warp, lane].view(b_type)
            for i in range(16):
                row = lane // 4 if i < 4 or 8 <= i < 12 else lane // 4 + 8
                left[row, lane % 4 * 4 + i % 4 + (16 if i >= 8 else 0)] = a_bytes[i]
            for i in range(8):
                right[lane % 4 * 4 + i % 4 + (16 if i >= 4 else 0), lane // 4] = b_bytes[i]
        product = left @ right
        for lane in range(32):
            for i in range(4):
                row = lane // 4 if i < 2 else lane // 4 + 8
                expected = acc[warp, lane, i] + product[row, lane % 4 * 2 + i % 2]
                assert result[warp, lane, i] == expected


def test_the_large_instruction_is_four_small_ones() -> None:
    """What sm_75 executes (m8n8k16), by the manual's rules for it."""
    rng = np.random.default_rng(1)
    a = rng.integers(-(2**31), 2**31, (1, 32, 4), dtype=np.int64).astype(np.int32)
    b = rng.integers(-(2**31), 2**31, (1, 32, 2), dtype=np.int64).astype(np.int32)
    acc = np.zeros((1, 32, 4), np.int32)

    def small(acc: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        left, right = np.zeros((8, 16), int), np.zeros((16, 8), int)
        for lane in range(32):
            left[lane // 4, lane % 4 * 4 : lane % 4 * 4 + 4] = a[lane : lane + 1].view(np.int8)
            right[lane % 4 * 4 : lane % 4 * 4 + 4, lane // 4] = b[lane : lane + 1].view(np.int8)
        lanes = np.arange(32)
        columns = lanes[:, None] % 4 * 2 + np.arange(2)
        return acc + (left @ right)[lanes[:, None] // 4, columns]

    top, bottom = np.zeros((32, 2), int), np.zeros((32, 2), int)
    top = small(small(top, a[0, :, 0], b[0, :, 0]), a[0, :, 2], b[0, :, 1])
    bottom = small(small(bottom, a[0, :, 1], b[0, :, 0]), a[0, :, 3], b[0, :, 1])
    expected = np.concatenate([top, bottom], axis=1)
    np.testing.assert_array_equal(fragments.mma(acc, a, b, "s8s8")[0], expected)


def test_permute_and_leading_zeros() -> None:
    word = permute(np.array([0x03020100]), np.array([0x07060504]), 0x5140)
    assert [int(b) for b in word.view(np.uint8)] == [0, 4, 1, 5]
    numbers = np.array([1, 2, 3, 2**31, 2**62, 2**63 - 1], np.int64)
    expected = [64 - int(n).bit_length() for n in numbers]
    np.testing.assert_array_equal(leading_zeros(numbers), expected)
    assert MAX_PENDING >= 3
