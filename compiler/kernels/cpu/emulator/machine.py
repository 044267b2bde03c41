"""What translated kernels call: memory, conversions, and operations that NumPy spells otherwise.

Scalars of type int32 are Python integers or NumPy's, all others NumPy's; vectors are arrays
(lanes,) of their element type, so that they wrap as registers do.
"""

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from vitq.compiler.kernels.emulation import EmulationError
from vitq.numerics.arrays import IntArray

Value = Any
SEED = 20_230


class Memory:
    """Makes buffers full of noise, and the order of parallel iterations."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(SEED)

    def noise(self, size: int, dtype: str) -> IntArray:
        """Return what nobody has written yet."""
        raw = self._random.integers(0, 256, size * np.dtype(dtype).itemsize, dtype=np.uint8)
        noise: IntArray = raw.view(dtype)
        return noise

    def any_order(self, start: int, extent: int) -> Iterator[int]:
        """Shuffle the indices of a parallel loop: it must not matter which comes first."""
        return iter((self._random.permutation(int(extent)) + int(start)).tolist())


def outside(buffer: str, extents: tuple[int, ...], lanes: int, *index: Value) -> NoReturn:
    """Refuse an index that is not in its buffer."""
    at = ", ".join(str(int(i)) for i in index)
    what = f"{lanes} elements from [{at}]" if lanes > 1 else f"element [{at}]"
    raise EmulationError(f"{buffer} has {extents} elements: {what} are outside")


def gathered(data: IntArray, places: IntArray, buffer: str) -> IntArray:
    """Elements at any places of the flat memory."""
    if places.min() < 0 or places.max() >= data.size:
        raise EmulationError(f"{buffer} has {data.size} elements: a vector of indices leaves them")
    found: IntArray = data[places]
    return found


def cast(value: Value, dtype: str) -> Value:
    """Cast a scalar to another type, truncated."""
    return np.asarray(value).astype(dtype)[()]


def reinterpret(value: Value, before: str, after: str, lanes: int) -> Value:
    """Return the same bits as another type."""
    bits = np.ascontiguousarray(np.asarray(value, before).reshape(-1)).view(after)
    return bits if lanes > 1 else bits[0]


def shift_left(a: Value, b: Value, bits: int) -> Value:
    """Shift by less than the width, which is all that processors agree on."""
    return np.left_shift(a, _checked(b, bits))


def shift_right(a: Value, b: Value, bits: int) -> Value:
    """Arithmetic for signed types, logical for unsigned ones."""
    return np.right_shift(a, _checked(b, bits))


def _checked(shift: Value, bits: int) -> Value:
    if np.any(np.less(shift, 0)) or np.any(np.greater_equal(shift, bits)):
        raise EmulationError(f"a shift of {bits} bits by {np.min(shift)} to {np.max(shift)}")
    return shift


def truncated_quotient(a: Value, b: Value) -> Value:
    """Divide, rounded towards zero."""
    size = np.abs(a) // np.abs(b)
    return np.where((np.less(a, 0)) ^ (np.less(b, 0)), -size, size)[()]


def truncated_rest(a: Value, b: Value) -> Value:
    """Return what `truncated_quotient` leaves, with the sign of `a`."""
    rest = np.abs(a) % np.abs(b)
    return np.where(np.less(a, 0), -rest, rest)[()]


def leading_zeros(value: Value, bits: int) -> Value:
    """Zero bits above the highest one."""
    found = [bits - int(v).bit_length() for v in np.atleast_1d(value)]
    return np.array(found, np.int32) if np.ndim(value) else found[0]
