"""Hopper's matrix instruction for four warps, ``wgmma``, as CUDA device functions.

A warp group multiplies 64 rows with N columns straight from shared memory, twice as fast as
``mma``. Both operands lie there as rows of 64 or 128 bytes of K whose 16-byte pieces are permuted:
the permutation of `compiler.kernels.cuda.loading.Layout` is the hardware's own for tiles at
multiples of 1024 bytes. Accumulators are fragments as ``mma`` has them: warp w of the group has
rows 16 w to 16 w + 15, register ``4 j + r`` is register r of columns 8 j to 8 j + 7.

It exists in machine code for sm_90a only. For every other architecture (the PTX for newer chips,
too) the same function multiplies warp by warp with ``ldmatrix`` and ``mma``.
"""

WIDTHS = (32, 64, 96, 128, 192, 256)
COUNTS = (16, 32, 48, 64, 96, 128)
"""Accumulators of one or two instructions."""
CHUNKS = (64, 128)
PENDING = (1, 2)
"""Instructions that may be left unfinished."""
SIGNS = ("s8s8", "u8s8")
ALIGN = 1024
"""Of a tile in shared memory."""

_TEXT = """
void vitq_wgmma_{signs}_n{n}_k{chunk}(int* d, const void* a, const void* b) {{
  unsigned a_at = static_cast<unsigned>(__cvta_generic_to_shared(a));
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
}}
"""

_WAIT = """
void vitq_wgmma_wait_{count}(int* d) {{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned 0;" : {operands} :: "memory");
#endif
}}
"""

_LET = """
void vitq_wgmma_let_{pending}() {{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned {pending};" ::: "memory");
#endif
}}
"""

_FENCE = """
void vitq_fence_async() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
"""


def _operands(count: int) -> str:
    """Registers of ``d`` that an instruction reads and writes."""
    return ", ".join(f'"+r"(d[{i}])' for i in range(count))


def _multiply(signs: str, n: int, chunk: int) -> str:
    count = n // 2
    return _TEXT.format(
        signs=signs,
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
        operands=_operands(count),
    )


SOURCES = {
    f"wgmma_{signs}_n{n}_k{chunk}": (_multiply(signs, n, chunk), "void")
    for signs in SIGNS
    for n in WIDTHS
    for chunk in CHUNKS
}
SOURCES |= {
    f"wgmma_wait_{count}": (_WAIT.format(count=count, operands=_operands(count)), "void")
    for count in COUNTS
}
SOURCES |= {f"wgmma_let_{n}": (_LET.format(pending=n), "void") for n in PENDING}
SOURCES["fence_async"] = (_FENCE, "void")
