"""Asynchronous copies, and what waits: for copies, for a warp's lanes, for other kernels."""

from functools import partial
from typing import NamedTuple

from vitq.compiler.kernels.cuda.instructions.instruction import (
    Instruction,
    Threads,
    Value,
    by_warps,
    together,
)
from vitq.numerics.arrays import IntArray

COPY = 16
"""Bytes of a copy."""
MAX_PENDING = 7
"""Groups of copies that may be left unfinished by ``wait``."""

_COPY = """#if __CUDA_ARCH__ >= 800
  unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(address), "l"(from) : "memory");
#else
  *static_cast<int4*>(to) = *static_cast<const int4*>(from);
#endif
"""

_GUARDED = """#if {condition}
  asm volatile("{instruction};"{memory});
#endif
"""


class _Copy(NamedTuple):
    """One that has begun."""

    threads: Threads
    to: Value
    raw: IntArray


class Copies:
    """Those of a launch that have not arrived."""

    def __init__(self) -> None:
        self.open: list[_Copy] = []
        self.groups: list[list[_Copy]] = []


def copy16(threads: Threads, to: Value, source: Value) -> None:
    """Read now, keep; the bytes arrive with `wait`, and may arrive at any time before."""
    raw = threads.read(source, COPY)
    if (threads.offsets(source) % COPY).any():
        threads.refuse("the source is not aligned to 16 bytes")
    threads.state(Copies).open.append(_Copy(threads, to, raw))
    threads.claim(to, COPY)


def commit(threads: Threads) -> None:
    """Return what was copied since the last call is one group."""
    threads.everyone()
    copies = threads.state(Copies)
    copies.groups.append(copies.open)
    copies.open = []


def wait(threads: Threads, pending: int) -> None:
    """All but the latest `pending` groups arrive."""
    threads.everyone()
    copies = threads.state(Copies)
    done = copies.groups[: max(len(copies.groups) - pending, 0)]
    copies.groups = copies.groups[len(done) :]
    for group in done:
        for copy in group:
            copy.threads.write(copy.to, copy.raw)


def await_inputs(threads: Threads) -> None:
    """All kernels before this one are done."""
    threads.everyone()
    threads.release_inputs()


def _guarded(condition: str, instruction: str, memory: str = ' ::: "memory"') -> str:
    """Guard an instruction that older architectures lack, and need not have."""
    return _GUARDED.format(condition=condition, instruction=instruction, memory=memory)


def _wait(pending: int) -> Instruction:
    body = _guarded("__CUDA_ARCH__ >= 800", f"cp.async.wait_group {pending}")
    return Instruction(f"wait_{pending}", "", body, partial(wait, pending=pending))


INSTRUCTIONS = (
    Instruction("copy16", "void* to, const void* from", _COPY, copy16),
    Instruction("commit", "", _guarded("__CUDA_ARCH__ >= 800", "cp.async.commit_group"), commit),
    *(_wait(pending) for pending in range(MAX_PENDING + 1)),
    Instruction(
        "start_next",
        "",
        _guarded("__CUDA_ARCH__ >= 900", "griddepcontrol.launch_dependents", memory=""),
        together,
    ),
    Instruction(
        "await_inputs", "", _guarded("__CUDA_ARCH__ >= 900", "griddepcontrol.wait"), await_inputs
    ),
    Instruction("reserve", "const void* p", '  asm volatile("" :: "l"(p));\n', together),
    Instruction("sync_warp", "", "  __syncwarp();\n", by_warps),
    Instruction(
        "fence_async",
        "",
        _guarded("defined(__CUDA_ARCH_FEAT_SM90_ALL)", "fence.proxy.async.shared::cta"),
        by_warps,
    ),
)
