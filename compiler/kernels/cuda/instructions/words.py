"""Instructions on a thread's own registers, and between the lanes of a warp."""

import numpy as np

from vitq.compiler.kernels.cuda.instructions.instruction import (
    WARP,
    Instruction,
    Threads,
    Value,
    of_values,
)
from vitq.numerics.arrays import IntArray

WORD = np.uint64(2**32 - 1)
PACKED = {"s8": "int8", "u8": "uint8", "s16": "int16"}

_MAD_HIGH = """  int result;
  asm("{{ .reg .b32 t; mad.lo.cc.{kind} t, %1, %2, %3; madc.hi.{kind} %0, %1, %2, %4; }}"
      : "=r"(result) : "r"(value), "r"(multiplier), "r"(low), "r"(high));
  return result;
"""

_PACK4 = """  int word;
  asm("{{ .reg .b32 t; cvt.pack.sat.{kind}.s32.b32 t, %4, %3, 0; "
      "cvt.pack.sat.{kind}.s32.b32 %0, %2, %1, t; }}"
      : "=r"(word) : "r"(a), "r"(b), "r"(c), "r"(d));
  return word;
"""

_PACK2 = """  int word;
  asm("cvt.pack.sat.s16.s32 %0, %2, %1;" : "=r"(word) : "r"(a), "r"(b));
  return word;
"""

_LIMIT = """#if __CUDA_ARCH__ >= 900
  int result;
  asm("min.relu.s32 %0, %1, %2;" : "=r"(result) : "r"(value), "r"(high));
  return result;
#else
  return max(min(value, high), 0);
#endif
"""


def permute(low: Value, high: Value, selector: Value) -> IntArray:
    """``__byte_perm``, without its sign replication."""
    low, high = np.broadcast_arrays(np.asarray(low, np.int64), np.asarray(high, np.int64))
    pair = (high << 32) | (low & 0xFFFFFFFF)
    word = np.zeros_like(pair)
    for i in range(4):
        chosen = (int(selector) >> (4 * i)) & 7
        word |= ((pair >> (8 * chosen)) & 255) << (8 * i)
    return word.astype(np.uint32).astype(np.int32)


def pick(word: Value, place: Value) -> IntArray:
    """Bring a word's second byte down where its bit ``31 - place`` is set; else keep the word."""
    word, place = np.asarray(word, np.int64), np.asarray(place, np.int64)
    return np.where(word >> (31 - place) & 1, word >> 8, word).astype(np.int32)


def mad_high(value: Value, multiplier: Value, low: Value, high: Value) -> IntArray:
    """Return the upper word of ``value * multiplier + (high, low)``."""
    value, multiplier, low, high = (np.asarray(v, np.int64) for v in (value, multiplier, low, high))
    total = value * multiplier + ((high << 32) | (low & 0xFFFFFFFF))
    upper: IntArray = (total >> 32).astype(np.int32)
    return upper


def mad_high_unsigned(value: Value, multiplier: Value, low: Value, high: Value) -> IntArray:
    """`mad_high`, all without a sign; the sum is below 2**64."""
    a, b, low, high = (
        np.asarray(v, np.int64).astype(np.uint64) & WORD for v in (value, multiplier, low, high)
    )
    upper = (a * b + (high << np.uint64(32) | low)) >> np.uint64(32)
    return upper.astype(np.uint32).view(np.int32)


def pack(values: tuple[Value, ...], kind: str) -> IntArray:
    """Each value clamped to its type, the first one in the lowest bits."""
    dtype = np.dtype(PACKED[kind])
    info = np.iinfo(dtype)
    parts = np.broadcast_arrays(*(np.clip(v, info.min, info.max).astype(dtype) for v in values))
    words: IntArray = np.ascontiguousarray(np.stack(parts, axis=-1)).view(np.int32)[..., 0]
    return words


def leading_zeros(value: Value) -> IntArray:
    """Count leading zeros of positive int64 values, exact; 63 for all others."""
    rest = np.maximum(np.asarray(value, np.int64), 1)
    zeros = np.full(rest.shape, 63, np.int32)
    for step in (32, 16, 8, 4, 2, 1):
        large = rest >= (np.int64(1) << step)
        zeros -= np.where(large, step, 0).astype(np.int32)
        rest = np.where(large, rest >> step, rest)
    return zeros


def shuffle(threads: Threads, value: Value, mask: Value) -> IntArray:
    """Return the value of lane ``lane ^ mask``."""
    return threads.spread(threads.lanes(value)[:, np.arange(WARP) ^ int(mask)])


def _shuffle(bits: int, ctype: str) -> Instruction:
    body = "  return __shfl_xor_sync(0xffffffffu, value, mask);\n"
    return Instruction(f"shuffle{bits}", f"{ctype} value, int mask", body, shuffle, f"int{bits}")


def _pack(kind: str) -> Instruction:
    operands, body = (
        ("int a, int b", _PACK2)
        if kind == "s16"
        else ("int a, int b, int c, int d", _PACK4.format(kind=kind))
    )
    return Instruction(
        f"pack_{kind}", operands, body, of_values(lambda *values: pack(values, kind)), "int32"
    )


_FACTORS = "int value, int multiplier, int low, int high"

INSTRUCTIONS = (
    Instruction(
        "permute",
        "int low, int high, int selector",
        "  return __byte_perm(low, high, selector);\n",
        of_values(permute),
        "int32",
    ),
    Instruction(
        "pick",
        "int word, int place",
        "  return (word << place) < 0 ? static_cast<int>(static_cast<unsigned>(word) >> 8) : word;"
        "\n",
        of_values(pick),
        "int32",
    ),
    Instruction("mad_high", _FACTORS, _MAD_HIGH.format(kind="s32"), of_values(mad_high), "int32"),
    Instruction(
        "mad_high_unsigned",
        _FACTORS,
        _MAD_HIGH.format(kind="u32"),
        of_values(mad_high_unsigned),
        "int32",
    ),
    Instruction(
        "limit",
        "int value, int high",
        _LIMIT,
        of_values(lambda value, high: np.maximum(np.minimum(value, high), 0)),
        "int32",
    ),
    *(_pack(kind) for kind in PACKED),
    Instruction(
        "leading_zeros",
        "long long value",
        "  return __clzll(value);\n",
        of_values(leading_zeros),
        "int32",
    ),
    _shuffle(32, "int"),
    _shuffle(64, "long long"),
)
