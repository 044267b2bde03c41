"""The machine instructions that TIR has no words for, as CUDA device functions.

One text serves every architecture: where an instruction is missing (asynchronous copies and the
large matrix instruction before sm_80), the function does the same in another way. What each
function means is written a second time, in NumPy, in `compiler.cuda.emulator`: kernels run there
in tests, on any machine.

Fragments follow the PTX manual's layout of ``mma.m16n8k32`` for 8-bit integers. Its 16 x 32 and
32 x 8 operands are the concatenation of those of ``mma.m8n8k16`` (sm_75), which is why four of
the small instructions do the work of the large one without moving a register.
"""

from collections.abc import Sequence
from typing import Any

from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder as T  # noqa: N812 - the name that TVM gives it

from compiler.cuda import wgmma

Expr = Any

CALL, PREFIX = "tirx.cuda.func_call", "vitq_"
"""TVM's operator for a CUDA function, and what our functions' names begin with."""
QUALIFIER = "__device__ __forceinline__ "
MAX_PENDING = 7
"""Groups of copies that may be left unfinished by `wait`."""

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
int vitq_mad_high(int value, int multiplier, int low, int high) {
  int result;
  asm("{ .reg .b32 t; mad.lo.cc.s32 t, %1, %2, %3; madc.hi.s32 %0, %1, %2, %4; }"
      : "=r"(result) : "r"(value), "r"(multiplier), "r"(low), "r"(high));
  return result;
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
    "permute": (_PERMUTE, "int32"),
    "pick": (_PICK, "int32"),
    "mad_high": (_MAD_HIGH, "int32"),
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


def _call(name: str, *args: Expr) -> Expr:
    source, result = SOURCES[name]
    text = QUALIFIER + source.lstrip()
    return cuda_func_call(PREFIX + name, *args, source_code=text, return_type=result)


def mma(acc: Expr, a: list[Expr], b: list[Expr], signs: str) -> None:
    """``acc += a @ b`` for a 16 x 32 and a 32 x 8 fragment.

    Args:
        acc: address of four int32 registers.
        a: four registers of four bytes.
        b: two registers of four bytes.
        signs: types of both operands, such as ``u8s8``.
    """
    T.evaluate(_call(f"mma_{signs}", acc, *a, *b))


def wgmma_issue(acc: Expr, a: Expr, b: Expr, signs: str, columns: int, chunk: int) -> None:
    """``acc += a @ b.T`` for 64 rows and a chunk of K, by four warps; there after `wgmma_wait`.

    Args:
        acc: address of ``columns / 2`` int32 registers (`compiler.cuda.wgmma`).
        a: address of 64 rows in shared memory.
        b: address of `columns` rows.
        signs: types of both operands.
        columns: one of `wgmma.WIDTHS`.
        chunk: bytes of a row, 64 or 128.
    """
    T.evaluate(_call(f"wgmma_{signs}_n{columns}_k{chunk}", acc, a, b))


def wgmma_wait(acc: Expr, count: int) -> None:
    """Until the accumulators, `count` registers, hold all that was issued."""
    T.evaluate(_call(f"wgmma_wait_{count}", acc))


def fence_async() -> None:
    """What this thread has copied to shared memory is seen by `wgmma_issue` behind a barrier."""
    T.evaluate(_call("fence_async"))


def ldmatrix(to: Expr, row: Expr) -> None:
    """Four 8 x 16-byte matrices from shared memory to four registers.

    Args:
        to: address of four int32 registers.
        row: address of row ``lane % 8`` of matrix ``lane // 8``; lane l then gets bytes
            ``4 (l % 4)`` to ``4 (l % 4) + 3`` of row ``l // 4`` of each matrix.
    """
    T.evaluate(_call("ldmatrix", to, row))


def ldmatrix_trans(to: Expr, row: Expr) -> None:
    """As `ldmatrix`, each matrix of 8 x 8 pairs of bytes transposed.

    Lane l gets pair ``l // 4`` of rows ``2 (l % 4)`` and ``2 (l % 4) + 1``.
    """
    T.evaluate(_call("ldmatrix_trans", to, row))


def copy16(to: Expr, source: Expr) -> None:
    """16 bytes from global to shared memory; there after `wait` and a barrier."""
    T.evaluate(_call("copy16", to, source))


def commit() -> None:
    """What this thread has copied since the last call is one group."""
    T.evaluate(_call("commit"))


def wait(pending: int) -> None:
    """Until all but the latest `pending` of this thread's groups are there."""
    T.evaluate(_call(f"wait_{pending}"))


def start_next() -> None:
    """The next kernel's blocks may begin where there is room, once all of this one's came here."""
    T.evaluate(_call("start_next"))


def await_inputs() -> None:
    """Until all kernels before this one are done: before that, only constants may be read."""
    T.evaluate(_call("await_inputs"))


def reserve(shared: Expr) -> None:
    """Keep shared memory that nobody uses (`emit.spread`)."""
    T.evaluate(_call("reserve", shared))


def barrier() -> None:
    """All threads of the block meet; what they wrote before is seen by all of them."""
    T.evaluate(T.tvm_storage_sync("shared"))


def shuffle(value: Expr, mask: int) -> Expr:
    """The value of lane ``lane ^ mask``; int32 or int64."""
    bits = 64 if str(value.ty.dtype) == "int64" else 32
    return _call(f"shuffle{bits}", value, mask)


def permute(low: Expr, high: Expr, selector: int) -> Expr:
    """Four of the eight bytes of two registers, chosen by the selector's four nibbles."""
    return _call("permute", low, high, selector)


def pick(word: Expr, place: Expr) -> Expr:
    """The word's second byte, brought down, where its bit ``31 - place`` is set; else the word."""
    return _call("pick", word, place)


def mad_high(value: Expr, multiplier: Expr, low: Expr, high: Expr) -> Expr:
    """The upper word of ``value * multiplier + (high, low)``: one instruction.

    CUDA C has no word for it, and does not always see that both factors have 32 bits; the two
    halves with a carry, as they are written, become one ``IMAD.HI``.
    """
    return _call("mad_high", value, multiplier, low, high)


def pack(values: Sequence[Expr], kind: str) -> Expr:
    """Four (s8, u8) or two (s16) values, each clamped to its type, in one register."""
    return _call(f"pack_{kind}", *values)


def leading_zeros(value: Expr) -> Expr:
    """Of a positive int64."""
    return _call("leading_zeros", value)
