"""Neighbouring codes of any storage type, as int32 values."""

from collections.abc import Sequence

import numpy as np

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.arith import packed, unpacked
from vitq.compiler.kernels.cuda.emit import (
    ALIGN,
    BYTES,
    WORD_BYTES,
    Buffer,
    Expr,
    as_word,
    flat,
    get_many,
    index,
    put,
    put_many,
    registers,
)

SATURATING = {"int8": "s8", "uint8": "u8", "int16": "s16"}


def load_codes(buffer: Buffer, at: Expr, count: int) -> list[Expr]:
    """Codes at flat index `at`, a multiple of `count`, with as few loads as possible.

    Args:
        buffer: a global tensor.
        at: flat index of the first one.
        count: a power of two.

    Returns:
        `count` int32 values.
    """
    dtype = str(buffer.ty.dtype)
    size = BYTES[dtype]
    per_word = max(WORD_BYTES // size, 1)
    if size > WORD_BYTES or count % per_word:
        data = flat(buffer)
        return [as_word(data[at + i]) for i in range(count)]
    words: list[Expr] = []
    data, first = flat(buffer, "int32"), index(at // per_word)
    most = ALIGN // WORD_BYTES
    for start in range(0, count // per_word, most):
        some = min(most, count // per_word - start)
        loaded = get_many(data, first + start, some)
        words += [loaded[i] for i in range(some)]
    if per_word == 1:
        return words
    return [unpacked(words[i // per_word], i % per_word, dtype) for i in range(count)]


def fills(dtype: str, qmin: int, qmax: int) -> bool:
    """Whether bounds are those of a type whose codes can be packed with saturation."""
    return dtype in SATURATING and (qmin, qmax) == (np.iinfo(dtype).min, np.iinfo(dtype).max)


def store_codes(buffer: Buffer, at: Expr, values: Sequence[Expr], saturate: bool = False) -> None:
    """Return the reverse of `load_codes`.

    Args:
        buffer: a global tensor.
        at: flat index of the first one, a multiple of their number.
        values: a power of two of int32 values.
        saturate: whether they are clamped to the type by packing them; else their low bits count.
    """
    dtype = str(buffer.ty.dtype)
    size, count = BYTES[dtype], len(values)
    per_word = max(WORD_BYTES // size, 1)
    if size > WORD_BYTES or count % per_word:
        data = flat(buffer)
        for i, value in enumerate(values):
            put(data, at + i, value)
        return
    data, first = flat(buffer, "int32"), index(at // per_word)
    most = ALIGN // WORD_BYTES
    for start in range(0, count // per_word, most):
        some = min(most, count // per_word - start)
        words = registers(some)
        for i in range(some):
            part = values[(start + i) * per_word : (start + i + 1) * per_word]
            put(words, i, _word(part, dtype, saturate))
        put_many(data, first + start, words, some)


def _word(codes: Sequence[Expr], dtype: str, saturate: bool) -> Expr:
    """Codes of one register."""
    if len(codes) == 1:
        return codes[0]
    if saturate:
        return intrinsics.pack(codes, SATURATING[dtype])
    return packed(codes, 8 * BYTES[dtype])
