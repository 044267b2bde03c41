"""What the instructions do that kernels of `compiler.kernels.cpu` name, in NumPy.

By the names that LLVM gives them, without the types of overloaded ones. Saturation, pairs and
128-bit blocks are as in the processors' manuals; an instruction that is not here is refused, see
`instruction`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from vitq.compiler.kernels.emulation import EmulationError
from vitq.numerics.arrays import IntArray

Instruction = Callable[..., Any]
BLOCK_BYTES = 16


def _dot(a: IntArray, b: IntArray, acc: IntArray) -> IntArray:
    """Return sums of four products in each int32 lane, wrapping."""
    products = np.multiply(a, b, dtype=np.int32)
    result: IntArray = acc + products[0::4] + products[1::4] + products[2::4] + products[3::4]
    return result


def _vpdpbusd(acc: IntArray, a: IntArray, b: IntArray) -> IntArray:
    return _dot(a.view(np.uint8), b, acc)


def _sdot(acc: IntArray, a: IntArray, b: IntArray) -> IntArray:
    return _dot(a, b, acc)


def _udot(acc: IntArray, a: IntArray, b: IntArray) -> IntArray:
    return _dot(a.view(np.uint8), b.view(np.uint8), acc)


def _tiles(acc: IntArray, a: IntArray, b: IntArray) -> IntArray:
    """(2, 8) by (8, 2) on top of (2, 2)."""
    wide = a.reshape(2, 8).astype(np.int32) @ b.reshape(2, 8).astype(np.int32).T
    result: IntArray = acc + wide.reshape(-1)
    return result


def _usmmla(acc: IntArray, a: IntArray, b: IntArray) -> IntArray:
    return _tiles(acc, a.view(np.uint8), b)


def _multiply_pairs(a: IntArray, b: IntArray) -> IntArray:
    """vpmaddwd: the sums of two products wrap for four factors of -2**15 only."""
    products = np.multiply(a, b, dtype=np.int32)
    result: IntArray = products[0::2] + products[1::2]
    return result


def _multiply_rounded(a: IntArray, b: IntArray) -> IntArray:
    """Vpmulhrsw."""
    products = np.multiply(a, b, dtype=np.int32)
    return (((products >> 14) + 1) >> 1).astype(np.int16)


def _multiply_high(a: IntArray, b: IntArray) -> IntArray:
    """Vpmulhw."""
    return (np.multiply(a, b, dtype=np.int32) >> 16).astype(np.int16)


def _packed(low: int, high: int, dtype: str) -> Instruction:
    """Two registers saturated to half the width, in turns for each 128-bit block."""

    def pack(first: IntArray, second: IntArray) -> IntArray:
        block = BLOCK_BYTES // first.itemsize
        both = np.stack([first.reshape(-1, block), second.reshape(-1, block)], axis=1)
        result: IntArray = np.clip(both, low, high).reshape(-1).astype(dtype)
        return result

    return pack


def _permuted(values: IntArray, index: IntArray) -> IntArray:
    """vpermd: lanes by number, which counts modulo their number."""
    result: IntArray = values[index & (len(values) - 1)]
    return result


def _shuffled_bytes(table: IntArray, index: IntArray) -> IntArray:
    """vpshufb: a table for each 128-bit block; 0 where the index is negative."""
    blocks = np.arange(len(index)) & -BLOCK_BYTES
    found = table[blocks + (index & (BLOCK_BYTES - 1))]
    result: IntArray = np.where(index < 0, 0, found).astype(np.int8)
    return result


def _doubled_high(a: IntArray, b: IntArray) -> IntArray:
    """sqrdmulh: saturates for two factors of -2**15."""
    doubled = (2 * np.multiply(a, b, dtype=np.int64) + (1 << 15)) >> 16
    return np.minimum(doubled, 2**15 - 1).astype(np.int16)


def _rounding_shift(x: IntArray, left: IntArray) -> IntArray:
    """srshl: to the left, or to the right with half of what is shifted out."""
    places = left.astype(np.int8).astype(np.int64)
    right = np.maximum(-places, 0)
    wide = (x.astype(np.int64) + ((np.int64(1) << right) >> 1)) >> right
    return (wide << np.maximum(places, 0)).astype(np.int16)


def _added_pairs(signed: bool) -> Instruction:
    """Return sums of two neighbours in twice the width."""

    def add(x: IntArray) -> IntArray:
        sign, bits = "" if signed else "u", 8 * x.itemsize
        wide = x.view(f"{sign}int{bits}").astype(f"{sign}int{2 * bits}")
        result: IntArray = (wide[0::2] + wide[1::2]).view(f"int{2 * bits}")
        return result

    return add


def _reduced(function: Any) -> Instruction:
    """Read a vector's lanes as one scalar of their type."""
    return lambda x: function.reduce(x, dtype=x.dtype)


SIGNED_WORD = -(2**15), 2**15 - 1
INSTRUCTIONS: dict[str, Instruction] = {
    **{f"llvm.x86.avx512.vpdpbusd.{bits}": _vpdpbusd for bits in (256, 512)},
    "llvm.x86.avx512.pmaddw.d.512": _multiply_pairs,
    "llvm.x86.avx512.pmul.hr.sw.512": _multiply_rounded,
    "llvm.x86.avx512.pmulh.w.512": _multiply_high,
    "llvm.x86.avx512.packssdw.512": _packed(*SIGNED_WORD, "int16"),
    "llvm.x86.avx512.packusdw.512": _packed(0, 2**16 - 1, "int16"),
    "llvm.x86.avx512.packuswb.512": _packed(0, 255, "int8"),
    "llvm.x86.avx512.packsswb.512": _packed(-128, 127, "int8"),
    "llvm.x86.avx512.permvar.si.512": _permuted,
    "llvm.x86.avx2.pmadd.wd": _multiply_pairs,
    "llvm.x86.sse2.pmadd.wd": _multiply_pairs,
    "llvm.x86.avx2.pmul.hr.sw": _multiply_rounded,
    "llvm.x86.avx2.pmulh.w": _multiply_high,
    "llvm.x86.avx2.packssdw": _packed(*SIGNED_WORD, "int16"),
    "llvm.x86.avx2.packusdw": _packed(0, 2**16 - 1, "int16"),
    "llvm.x86.avx2.packuswb": _packed(0, 255, "int8"),
    "llvm.x86.avx2.packsswb": _packed(-128, 127, "int8"),
    "llvm.x86.avx2.permd": _permuted,
    "llvm.x86.avx2.pshuf.b": _shuffled_bytes,
    "llvm.aarch64.neon.sdot": _sdot,
    "llvm.aarch64.neon.udot": _udot,
    "llvm.aarch64.neon.smmla": _tiles,
    "llvm.aarch64.neon.usmmla": _usmmla,
    "llvm.aarch64.neon.sqrdmulh": _doubled_high,
    "llvm.aarch64.neon.srshl": _rounding_shift,
    "llvm.aarch64.neon.uaddlp": _added_pairs(signed=False),
    "llvm.aarch64.neon.saddlp": _added_pairs(signed=True),
    "llvm.vector.reduce.add": _reduced(np.add),
    "llvm.vector.reduce.smax": _reduced(np.maximum),
    "llvm.vector.reduce.smin": _reduced(np.minimum),
}


def instruction(name: str) -> Instruction:
    """Return the meaning of an instruction.

    Raises:
        EmulationError: if it has none here.
    """
    found = INSTRUCTIONS.get(name)
    if found is None:
        raise EmulationError(f"the emulator does not know {name}")
    return found
