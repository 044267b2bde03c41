"""The machine instructions that CUDA C has no words for, as CUDA device functions.

One text serves every architecture: where an instruction is missing (asynchronous copies and the
large matrix instruction before sm_80), the function does the same in another way.

Fragments follow the PTX manual's layout of ``mma.m16n8k32`` for 8-bit integers. Its 16 x 32 and
32 x 8 operands are the concatenation of those of ``mma.m8n8k16`` (sm_75), which is why four of
the small instructions do the work of the large one without moving a register.
"""

from vitq.compiler.kernels.cuda import wgmma

PREFIX = "vitq_"
"""What our functions' names begin with."""
QUALIFIER = "__device__ __forceinline__ "
MAX_PENDING = 7
"""Groups of copies that may be left unfinished by ``wait``."""

_MMA = """
void vitq_mma_{a}{b}(int* d, int a0, int a1, int a2, int a3, int b0, int b1) {{
#if __CUDA_ARCH__ >= 800
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
}}
"""

_LDMATRIX = """
void vitq_ldmatrix(int* d, const void* p) {
  unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(p));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(address));
}
"""

_LDMATRIX_TRANS = _LDMATRIX.replace("ldmatrix(", "ldmatrix_trans(").replace(
    ".x4.shared", ".x4.trans.shared"
)

_COPY = """
void vitq_copy16(void* to, const void* from) {
#if __CUDA_ARCH__ >= 800
  unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(address), "l"(from) : "memory");
#else
  *static_cast<int4*>(to) = *static_cast<const int4*>(from);
#endif
}
"""

_COMMIT = """
void vitq_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
"""

_WAIT = """
void vitq_wait_{pending}() {{
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group {pending};" ::: "memory");
#endif
}}
"""

_START_NEXT = """
void vitq_start_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
"""

_AWAIT_INPUTS = """
void vitq_await_inputs() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
"""

_RESERVE = """
void vitq_reserve(const void* p) {
  asm volatile("" :: "l"(p));
}
"""

_SYNC_WARP = """
void vitq_sync_warp() {
  __syncwarp();
}
"""

_SHUFFLE = """
{type} vitq_shuffle{bits}({type} value, int mask) {{
  return __shfl_xor_sync(0xffffffffu, value, mask);
}}
"""

_PERMUTE = """
int vitq_permute(int low, int high, int selector) {
  return __byte_perm(low, high, selector);
}
"""

_PICK = """
int vitq_pick(int word, int place) {
  return (word << place) < 0 ? static_cast<int>(static_cast<unsigned>(word) >> 8) : word;
}
"""

_MAD_HIGH = """
int vitq_mad_high{name}(int value, int multiplier, int low, int high) {{
  int result;
  asm("{{ .reg .b32 t; mad.lo.cc.{kind} t, %1, %2, %3; madc.hi.{kind} %0, %1, %2, %4; }}"
      : "=r"(result) : "r"(value), "r"(multiplier), "r"(low), "r"(high));
  return result;
}}
"""

_LIMIT = """
int vitq_limit(int value, int high) {
#if __CUDA_ARCH__ >= 900
  int result;
  asm("min.relu.s32 %0, %1, %2;" : "=r"(result) : "r"(value), "r"(high));
  return result;
#else
  return max(min(value, high), 0);
#endif
}
"""

_PACK4 = """
int vitq_pack_{kind}(int a, int b, int c, int d) {{
  int word;
  asm("{{ .reg .b32 t; cvt.pack.sat.{kind}.s32.b32 t, %4, %3, 0; "
      "cvt.pack.sat.{kind}.s32.b32 %0, %2, %1, t; }}"
      : "=r"(word) : "r"(a), "r"(b), "r"(c), "r"(d));
  return word;
}}
"""

_PACK2 = """
int vitq_pack_{kind}(int a, int b) {{
  int word;
  asm("cvt.pack.sat.{kind}.s32 %0, %2, %1;" : "=r"(word) : "r"(a), "r"(b));
  return word;
}}
"""

_LEADING_ZEROS = """
int vitq_leading_zeros(long long value) {
  return __clzll(value);
}
"""

SOURCES = {
    "ldmatrix": (_LDMATRIX, "void"),
    "ldmatrix_trans": (_LDMATRIX_TRANS, "void"),
    "copy16": (_COPY, "void"),
    "commit": (_COMMIT, "void"),
    "start_next": (_START_NEXT, "void"),
    "await_inputs": (_AWAIT_INPUTS, "void"),
    "reserve": (_RESERVE, "void"),
    "sync_warp": (_SYNC_WARP, "void"),
    "permute": (_PERMUTE, "int32"),
    "pick": (_PICK, "int32"),
    "mad_high": (_MAD_HIGH.format(name="", kind="s32"), "int32"),
    "mad_high_unsigned": (_MAD_HIGH.format(name="_unsigned", kind="u32"), "int32"),
    "limit": (_LIMIT, "int32"),
    "pack_s8": (_PACK4.format(kind="s8"), "int32"),
    "pack_u8": (_PACK4.format(kind="u8"), "int32"),
    "pack_s16": (_PACK2.format(kind="s16"), "int32"),
    "leading_zeros": (_LEADING_ZEROS, "int32"),
    "shuffle32": (_SHUFFLE.format(type="int", bits=32), "int32"),
    "shuffle64": (_SHUFFLE.format(type="long long", bits=64), "int64"),
}
SOURCES |= {f"wait_{n}": (_WAIT.format(pending=n), "void") for n in range(MAX_PENDING + 1)}
SOURCES |= {
    f"mma_{a}{b}": (_MMA.format(a=a, b=b), "void") for a in ("s8", "u8") for b in ("s8", "u8")
}
SOURCES |= wgmma.SOURCES
