"""The matrix instruction of a warp, and what brings its operands from shared memory.

Fragments follow the PTX manual's layout of ``mma.m16n8k32`` for 8-bit integers. Its 16 x 32 and
32 x 8 operands are the concatenation of those of ``mma.m8n8k16`` (sm_75), which is why four of
the small instructions do the work of the large one without moving a register.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from vitq.compiler.kernels.cuda.instructions import fragments
from vitq.compiler.kernels.cuda.instructions.instruction import WARP, Instruction, Threads, Value
from vitq.numerics.arrays import IntArray

PIECE = 16
"""Bytes of a row of ``ldmatrix``."""
TYPES = ("s8", "u8")

_MMA = """#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.{a}.{b}.s32 "
      "{{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%0, %1, %2, %3}};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
#define VITQ_MMA(x, y, a, b) \\
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.{a}.{b}.s32 " \\
      "{{%0, %1}}, {{%2}}, {{%3}}, {{%0, %1}};" : "+r"(x), "+r"(y) : "r"(a), "r"(b))
  VITQ_MMA(d[0], d[1], a0, b0);
  VITQ_MMA(d[2], d[3], a1, b0);
  VITQ_MMA(d[0], d[1], a2, b1);
  VITQ_MMA(d[2], d[3], a3, b1);
#undef VITQ_MMA
#endif
"""

_LDMATRIX = """  unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(p));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%0, %1, %2, %3}}, [%4];"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(address));
"""


def mma(threads: Threads, acc: Value, *operands: Value, signs: str) -> None:
    """``acc += a @ b`` for fragments, the four words of `a` before the two of `b`."""
    words = [threads.lanes(operand) for operand in operands]
    a, b = np.stack(words[:4], axis=-1), np.stack(words[4:], axis=-1)
    threads.set_registers(acc, fragments.mma(threads.registers(acc, 4), a, b, signs))


def ldmatrix(
    threads: Threads, to: Value, source: Value, places: Callable[[IntArray], IntArray]
) -> None:
    """Four matrices from rows in shared memory to four registers, as `places` says."""
    rows = threads.shared_rows(source)
    if (rows % PIECE).any():
        threads.refuse("a row is not aligned to 16 bytes")
    where = places(rows).reshape(len(rows), WARP, PIECE)
    found = np.ascontiguousarray(threads.read_shared(source, where)).view(np.int32)
    threads.set_registers(to, found)


def _ldmatrix(name: str, trans: str, places: Callable[[IntArray], IntArray]) -> Instruction:
    body = _LDMATRIX.format(trans=trans)
    return Instruction(name, "int* d, const void* p", body, partial(ldmatrix, places=places))


def _mma(a: str, b: str) -> Instruction:
    operands = "int* d, int a0, int a1, int a2, int a3, int b0, int b1"
    meaning = partial(mma, signs=a + b)
    return Instruction(f"mma_{a}{b}", operands, _MMA.format(a=a, b=b), meaning)


INSTRUCTIONS = (
    _ldmatrix("ldmatrix", "", fragments.ldmatrix_bytes),
    _ldmatrix("ldmatrix_trans", ".trans", fragments.ldmatrix_trans_bytes),
    *(_mma(a, b) for a in TYPES for b in TYPES),
)
