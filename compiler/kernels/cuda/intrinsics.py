"""The machine instructions that TIR has no words for, as kernels call them.

What each is in CUDA and what it means is one record of `compiler.kernels.cuda.instructions`.
"""

from collections.abc import Sequence
from typing import Any

from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder as T  # noqa: N812 - the name that TVM gives it

from vitq.compiler.kernels.cuda.instructions.table import INSTRUCTIONS

Expr = Any

CALL = "tirx.cuda.func_call"
"""TVM's operator for a CUDA function."""


def _call(name: str, *args: Expr) -> Expr:
    one = INSTRUCTIONS[name]
    return cuda_func_call(one.function, *args, source_code=one.text, return_type=one.result)


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
        acc: address of ``columns / 2`` int32 registers (`instructions.wgmma`).
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


def wgmma_let(pending: int) -> None:
    """Until all but the latest `pending` of this warp group's `wgmma_issue` are done."""
    T.evaluate(_call(f"wgmma_let_{pending}"))


def fence_async() -> None:
    """Let `wgmma_issue` behind a barrier see what this thread has copied to shared memory."""
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
    """Return what this thread has copied since the last call is one group."""
    T.evaluate(_call("commit"))


def wait(pending: int) -> None:
    """Until all but the latest `pending` of this thread's groups are there."""
    T.evaluate(_call(f"wait_{pending}"))


def start_next() -> None:
    """Let the next kernel's blocks begin where there is room, once all of this one's came here."""
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


def sync_warp() -> None:
    """Return the lanes of a warp meet; the compiler moves no load from behind it to the front."""
    T.evaluate(_call("sync_warp"))


def shuffle(value: Expr, mask: int) -> Expr:
    """Return the value of lane ``lane ^ mask``; int32 or int64."""
    bits = 64 if str(value.ty.dtype) == "int64" else 32
    return _call(f"shuffle{bits}", value, mask)


def permute(low: Expr, high: Expr, selector: int) -> Expr:
    """Four of the eight bytes of two registers, chosen by the selector's four nibbles."""
    return _call("permute", low, high, selector)


def pick(word: Expr, place: Expr) -> Expr:
    """Bring a word's second byte down where its bit ``31 - place`` is set; else keep the word."""
    return _call("pick", word, place)


def mad_high(value: Expr, multiplier: Expr, low: Expr, high: Expr, unsigned: bool = False) -> Expr:
    """Return the upper word of ``value * multiplier + (high, low)``: one instruction.

    CUDA C has no word for it, and does not always see that both factors have 32 bits; the two
    halves with a carry, as they are written, become one ``IMAD.HI``. Where `unsigned`, both factors
    are taken as they are without a sign.
    """
    name = "mad_high_unsigned" if unsigned else "mad_high"
    return _call(name, value, multiplier, low, high)


def limit(value: Expr, high: Expr) -> Expr:
    """``max(min(value, high), 0)``, one instruction from sm_90 on."""
    return _call("limit", value, high)


def pack(values: Sequence[Expr], kind: str) -> Expr:
    """Four (s8, u8) or two (s16) values, each clamped to its type, in one register."""
    return _call(f"pack_{kind}", *values)


def leading_zeros(value: Expr) -> Expr:
    """Count the leading zeros of a positive int64."""
    return _call("leading_zeros", value)
