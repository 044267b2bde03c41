"""Hopper's matrix instruction for four warps, ``wgmma``, as CUDA device functions.

A warp group multiplies 64 rows with N columns straight from shared memory, twice as fast as
``mma``. Both operands lie there as rows of 64 or 128 bytes of K whose 16-byte pieces are permuted:
the permutation of `compiler.kernels.cuda.loading.Layout` is the hardware's own for tiles at
multiples of 1024 bytes. Accumulators are fragments as ``mma`` has them: warp w of the group has
rows 16 w to 16 w + 15, register ``4 j + r`` is register r of columns 8 j to 8 j + 7.

It exists in machine code for sm_90a only. For every other architecture (the PTX for newer chips,
too) the same function multiplies warp by warp with ``ldmatrix`` and ``mma``.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from vitq.compiler.kernels.cuda.instructions import fragments
from vitq.compiler.kernels.cuda.instructions.instruction import (
    WARP,
    Instruction,
    Threads,
    Value,
)
from vitq.numerics.arrays import IntArray

WIDTHS = (32, 64, 96, 128, 192, 256)
COUNTS = (16, 32, 48, 64, 96, 128)
"""Accumulators of one or two instructions."""
CHUNKS = (64, 128)
PENDING = (1, 2)
"""Instructions that may be left unfinished."""
SIGNS = ("s8s8", "u8s8")
ALIGN = 1024
"""Of a tile in shared memory."""

_MULTIPLY = """  unsigned a_at = static_cast<unsigned>(__cvta_generic_to_shared(a));
  unsigned b_at = static_cast<unsigned>(__cvta_generic_to_shared(b));
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const unsigned long long kind = ({swizzle}ull << 62) | ({stride}ull << 32) | (1ull << 16);
  unsigned long long a_tile = kind | ((a_at & 0x3ffff) >> 4);
  unsigned long long b_tile = kind | ((b_at & 0x3ffff) >> 4);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
  for (int k = 0; k < {steps}; ++k) {{
    asm volatile("{{ .reg .pred p; setp.ne.b32 p, 1, 0; "
        "wgmma.mma_async.sync.aligned.m64n{n}k32.s32.{first}.{second} "
        "{{{outputs}}}, %{a_desc}, %{b_desc}, p; }}"
        : {operands} : "l"(a_tile + 2 * k), "l"(b_tile + 2 * k));
  }}
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int a_row = 16 * warp + lane % 16, b_row = lane / 16 * 8 + lane % 8;
#pragma unroll
  for (int k = 0; k < {steps}; ++k) {{
    int x[4];
    unsigned at = a_at + a_row * {chunk} + ((2 * k + lane / 16) ^ (a_row / {turn} % {pieces})) * 16;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%0, %1, %2, %3}}, [%4];"
        : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at));
#pragma unroll
    for (int j = 0; j < {n} / 8; j += 2) {{
      int y[4];
      const int row = b_row + 8 * j;
      at = b_at + row * {chunk} + ((2 * k + lane / 8 % 2) ^ (row / {turn} % {pieces})) * 16;
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%0, %1, %2, %3}}, [%4];"
          : "=r"(y[0]), "=r"(y[1]), "=r"(y[2]), "=r"(y[3]) : "r"(at));
#pragma unroll
      for (int i = 0; i < 2; ++i) {{
        int* c = d + 4 * (j + i);
#if __CUDA_ARCH__ >= 800
        asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.{first}.{second}.s32 "
            "{{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%0, %1, %2, %3}};"
            : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
            : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[2 * i]), "r"(y[2 * i + 1]));
#endif
      }}
    }}
  }}
#endif
"""

_WAIT = """#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned {pending};" : {operands}:: "memory");
#endif
"""


class _Begun(NamedTuple):
    """A product that nobody has waited for."""

    place: int
    threads: Threads
    a: Value
    b: Value
    signs: str
    columns: int
    chunk: int


class _Sum(NamedTuple):
    """Accumulators (warps, 32, count) that are being written, and which warps' they are."""

    to: Value
    values: IntArray
    active: IntArray


class Products:
    """Those of a launch that nobody has waited for."""

    def __init__(self) -> None:
        self.begun: list[_Begun] = []
        self.sums: dict[int, _Sum] = {}

    def finish(self, threads: Threads, pending: int) -> None:
        """Perform all but the latest; accumulators that none is left for are written."""
        while len(self.begun) > pending:
            self._perform(self.begun.pop(0))
        for place in set(self.sums) - {begun.place for begun in self.begun}:
            to, values, active = self.sums.pop(place)
            threads.only(active).set_registers(to, values[active])

    def _perform(self, begun: _Begun) -> None:
        """Warp by warp: rows 16 w to 16 w + 15 of the first operand, all of the second."""
        threads = begun.threads
        warps = threads.warps()
        a = _tile(threads, begun.a, 16 * (warps % 4), 16, begun.chunk)
        b = _tile(threads, begun.b, 0 * warps, begun.columns, begun.chunk)
        values = self.sums[begun.place].values
        values[warps] = fragments.wgmma(values[warps], a, b, begun.signs)


def begin(
    threads: Threads, acc: Value, a: Value, b: Value, *, signs: str, columns: int, chunk: int
) -> None:
    """Keep a product for `Products.finish`, as late as a GPU may read its operands.

    Its accumulators are noise until then.
    """
    products = threads.state(Products)
    place, count = int(acc.offset.max()), columns // 2
    if place not in products.sums:
        values = threads.only(None).registers(acc, count).copy()
        products.sums[place] = _Sum(acc, values, np.zeros(len(values), bool))
    warps = threads.warps()
    products.sums[place].active[warps] = True
    rng = np.random.default_rng(len(products.begun))
    noise = rng.integers(-(2**31), 2**31, (WARP, count))
    threads.set_registers(acc, np.broadcast_to(noise, (len(warps), WARP, count)))
    products.begun.append(_Begun(place, threads, a, b, signs, columns, chunk))


def finish(threads: Threads, *_: Value, pending: int) -> None:
    """Wait for all but the latest `pending`."""
    threads.state(Products).finish(threads, pending)


def _tile(threads: Threads, source: Value, first: IntArray, rows: int, chunk: int) -> IntArray:
    """(active warps, rows, chunk) bytes of a tile whose pieces are permuted."""
    starts = threads.shared_rows(source)
    if (starts != starts[:, :1]).any() or (starts % (8 * chunk)).any():
        threads.refuse("a tile is not at one place, a multiple of its 8 rows")
    row = first[:, None, None] + np.arange(rows)[:, None]
    at = row * chunk + fragments.swizzled(row, np.arange(chunk), chunk)
    where = (starts[:, :1, None] + at).reshape(len(starts), -1)
    return threads.read_shared(source, where).reshape(len(starts), rows, chunk)


def _registers(count: int) -> str:
    """List the registers of ``d`` that an instruction reads and writes."""
    return ", ".join(f'"+r"(d[{i}])' for i in range(count))


def _multiply(signs: str, n: int, chunk: int) -> Instruction:
    count = n // 2
    body = _MULTIPLY.format(
        n=n,
        chunk=chunk,
        steps=chunk // 32,
        swizzle=1 if chunk == 128 else 2,
        stride=8 * chunk // 16,
        turn=128 // chunk,
        pieces=chunk // 16,
        first=signs[:2],
        second=signs[2:],
        outputs=", ".join(f"%{i}" for i in range(count)),
        a_desc=count,
        b_desc=count + 1,
        operands=_registers(count),
    )
    name, operands = f"wgmma_{signs}_n{n}_k{chunk}", "int* d, const void* a, const void* b"
    return Instruction(name, operands, body, partial(begin, signs=signs, columns=n, chunk=chunk))


def _wait(count: int) -> Instruction:
    body = _WAIT.format(pending=0, operands=_registers(count) + " ")
    return Instruction(f"wgmma_wait_{count}", "int* d", body, partial(finish, pending=0))


def _let(pending: int) -> Instruction:
    body = _WAIT.format(pending=pending, operands="")
    body = body.replace(" : ::", " :::")
    return Instruction(f"wgmma_let_{pending}", "", body, partial(finish, pending=pending))


INSTRUCTIONS = (
    *(_multiply(signs, n, chunk) for signs in SIGNS for n in WIDTHS for chunk in CHUNKS),
    *(_wait(count) for count in COUNTS),
    *(_let(pending) for pending in PENDING),
)
