"""The class of the largest code, against its definition and against the kernels' keys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitq.numerics.argmax import MOST_CLASSES, int_argmax
from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import RangeError


def keyed(x: IntArray) -> IntArray:
    """The kernels' form for (C, M), in int32."""
    last = MOST_CLASSES - 1
    classes = np.arange(len(x), dtype=np.int32)[:, None]
    keys = x.astype(np.int32) * np.int32(MOST_CLASSES) + (last - classes)
    assert keys.dtype == np.int32
    return last - (keys.max(0) & last)


@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 3), st.integers(0, 2**31))
def test_the_lowest_of_the_largest(classes: int, places: int, levels: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-levels - 1, levels + 1, (classes, places))
    wanted = [
        min(c for c in range(classes) if all(x[c, m] >= x[k, m] for k in range(classes)))
        for m in range(places)
    ]
    np.testing.assert_array_equal(int_argmax(x[None])[0], wanted)
    np.testing.assert_array_equal(keyed(x), wanted)


@pytest.mark.parametrize("end", [-(2**15), 2**15 - 1])
def test_extreme_codes_and_most_classes(end: int) -> None:
    x = np.full((MOST_CLASSES, 3), end)
    x[:, 1] = -(2**15)
    x[-1, 1] = 2**15 - 1
    x[7, 2] = x[9, 2] = 2**15 - 1
    wanted = [0, MOST_CLASSES - 1, 7 if end < 0 else 0]
    np.testing.assert_array_equal(int_argmax(x[None])[0], wanted)
    np.testing.assert_array_equal(keyed(x), wanted)


def test_a_class_beyond_a_byte_is_refused() -> None:
    with pytest.raises(RangeError, match="an argmax over 257 classes: at most 256"):
        int_argmax(np.zeros((1, MOST_CLASSES + 1, 2), np.int64))
