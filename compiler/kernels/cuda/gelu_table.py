"""ShiftGELU of a product's codes as a table look-up in shared memory, the same bits.

ShiftGELU takes some forty instructions for a code; on a GPU, which multiplies matrices faster than
it shifts, that costs more than the product before it. Its result has few values, though: one step
of an 8-bit result is some thirty 16-bit codes. So the codes between which the result changes are
cut into buckets of ``2**k`` that have two results at most, and a word says where which of them is:

    u    = clamp(code - low, 0, high - low)         outside of [low, high] the result is constant
    word = table[u >> k] = pattern << 16 | b << 8 | a
    code = b where bit ``31 - u % 2**k`` of the word is set, else a

(A pattern, because the result does not only grow: GELU has a minimum, and its rounded tail may
waver for a code or two.)
"""

from typing import NamedTuple

import numpy as np

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.emit import Buffer, Expr, const, keep
from vitq.numerics.arrays import IntArray
from vitq.numerics.shiftgelu import GeluParams, shiftgelu

TABLE_SIZES = (1024, 1536, 2048, 2560, 3072, 4096)
"""Words: few sizes, so that layers share kernels."""
BUCKET_BITS = (4, 3)
TOP = 31
BYTE = 255


class GeluTable(NamedTuple):
    """The look-up of one GELU.

    Attributes:
        low: the code of the table's first place.
        reach: largest place, ``high - low``.
        bucket_bits: k.
        words: (one of TABLE_SIZES,) int32; zeros behind the last bucket.
    """

    low: int
    reach: int
    bucket_bits: int
    words: IntArray


def gelu_table(params: GeluParams, qmin: int, qmax: int) -> GeluTable | None:
    """Tabulate a GELU with 8-bit results.

    Args:
        params: of the GELU.
        qmin: smallest code that it is given.
        qmax: largest one.

    Returns:
        The table with the largest buckets; None if the result changes too fast, or over too many
        codes.
    """
    results = shiftgelu(np.arange(qmin, qmax + 1, dtype=np.int64), params)
    changes = np.nonzero(np.diff(results))[0]
    first = int(changes[0]) if changes.size else 0
    last = int(changes[-1]) + 1 if changes.size else 0
    for bits in BUCKET_BITS:
        words = _words(results[first : last + 1], bits)
        if words is not None:
            return GeluTable(qmin + first, last - first, bits, words)
    return None


def _words(results: IntArray, bits: int) -> IntArray | None:
    """Make a table with buckets of one size, if there is one."""
    size = 1 << bits
    count = -(-results.size // size)
    fitting = [words for words in TABLE_SIZES if words >= count]
    padded = np.pad(results, (0, count * size - results.size), mode="edge").reshape(count, size)
    a, b = padded.min(axis=1, keepdims=True), padded.max(axis=1, keepdims=True)
    if not fitting or ((padded != a) & (padded != b)).any():
        return None
    pattern = ((padded == b) & (a != b)).astype(np.int64) << (TOP - np.arange(size))
    full = np.zeros(fitting[0], np.int64)
    full[:count] = pattern.sum(axis=1) | ((b & BYTE) << 8 | (a & BYTE))[:, 0]
    table: IntArray = full.astype(np.uint32).view(np.int32)
    return table


def look_up(codes: IntArray, table: GeluTable) -> IntArray:
    """Return what the kernels do, in NumPy.

    Args:
        codes: any shape, within the range that the table was made for.
        table: from `gelu_table`.

    Returns:
        uint8 of that shape: the result's byte.
    """
    places = np.clip(codes.astype(np.int64) - table.low, 0, table.reach)
    words = table.words.view(np.uint32)[places >> table.bucket_bits]
    bit = TOP - (places & ((1 << table.bucket_bits) - 1))
    picked: IntArray = np.where(words >> bit & 1, words >> 8, words).astype(np.uint8)
    return picked


class LookUp:
    """`look_up` in a kernel, for codes that are places already."""

    def __init__(self, words: Buffer, first: int, bucket_bits: int) -> None:
        """Say where the table is.

        Args:
            words: shared memory as int32.
            first: index of the table's first word.
            bucket_bits: k.
        """
        self.words, self.first, self.bits = words, first, bucket_bits

    def __call__(self, place: Expr) -> Expr:
        """Return the result in the lowest byte; what lies above it has no meaning."""
        word = keep(self.words[(place >> const(self.bits)) + self.first])
        return keep(intrinsics.pick(word, place & const((1 << self.bits) - 1)))
