"""A machine instruction that TIR has no words for: what it is in CUDA, and what it means.

A record is all there is of an instruction. `compiler.kernels.cuda.intrinsics` makes the TIR call of
it, with the device function's text; `compiler.kernels.cuda.emulator.emulator` runs its meaning. One
text serves every architecture: where an instruction is missing (asynchronous copies and the large
matrix instruction before sm_80), the function does the same in another way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar

from vitq.numerics.arrays import IntArray

PREFIX = "vitq_"
"""What our functions' names begin with."""
QUALIFIER = "__device__ __forceinline__ "
WARP = 32
C_TYPES = {"void": "void", "int32": "int", "int64": "long long"}

Value = Any
"""Of one operand: a pointer, an array (threads,), or a scalar that all threads share."""
S = TypeVar("S")


class Threads(Protocol):
    """The active threads of a launch, as an instruction's meaning sees them.

    The emulator gives them; what a thread may not do is an error of the emulator's.
    """

    def refuse(self, why: str) -> NoReturn:
        """End the launch: the kernel does what no kernel may do."""

    def everyone(self) -> None:
        """Refuse unless all threads of the launch are active."""

    def warps(self) -> IntArray:
        """Numbers of the active warps; refuses a warp of which only some lanes are active."""

    def lanes(self, value: Value) -> IntArray:
        """View a value as (active warps, 32)."""

    def spread(self, lanes: IntArray) -> IntArray:
        """Active warps' values as (threads,)."""

    def registers(self, pointer: Value, count: int) -> IntArray:
        """(active warps, 32, count) int32 at a pointer to registers."""

    def set_registers(self, pointer: Value, values: IntArray) -> None:
        """Write what `registers` reads."""

    def shared_rows(self, pointer: Value) -> IntArray:
        """(active warps, 32) byte offsets into shared memory; refuses another memory."""

    def read_shared(self, pointer: Value, where: IntArray) -> IntArray:
        """Read bytes of shared memory.

        Args:
            pointer: into it.
            where: byte offsets, (active warps, 32, n) as each lane reads them or (active warps, n).

        Returns:
            uint8 of that shape.
        """

    def offsets(self, pointer: Value) -> IntArray:
        """Byte offset of each active thread."""

    def read(self, pointer: Value, count: int) -> IntArray:
        """(active threads, count) bytes."""

    def claim(self, pointer: Value, count: int) -> None:
        """Say that each active thread's `count` bytes may be written from now on."""

    def write(self, pointer: Value, raw: IntArray) -> None:
        """Write (active threads, count) bytes."""

    def release_inputs(self) -> None:
        """Let what the kernels in front wrote be read."""

    def state(self, kind: type[S]) -> S:
        """Return what instructions keep over a launch: one instance of a class."""

    def only(self, warps: IntArray | None) -> "Threads":
        """Return the same launch with other active warps, (warps,) bool; None for all."""


Meaning = Callable[..., Value]
"""Called with the active `Threads` and the operands' values."""


@dataclass(frozen=True)
class Instruction:
    """One of them.

    Attributes:
        name: of the instruction.
        operands: of the device function, as CUDA declares them.
        body: of the device function.
        numpy: what it means.
        result: type of the result in TIR; ``void`` for none.
    """

    name: str
    operands: str
    body: str
    numpy: Meaning
    result: str = "void"

    @property
    def function(self) -> str:
        """Name of the device function."""
        return PREFIX + self.name

    @property
    def text(self) -> str:
        """The device function."""
        signature = f"{C_TYPES[self.result]} {self.function}({self.operands})"
        return f"{QUALIFIER}{signature} {{\n{self.body}}}\n"


def of_values(function: Callable[..., Value]) -> Meaning:
    """Return the meaning of an instruction that reads and writes a thread's own values only."""
    return lambda _, *values: function(*values)


def together(threads: Threads, *_: Value) -> None:
    """Mean nothing but that all threads get here."""
    threads.everyone()


def by_warps(threads: Threads, *_: Value) -> None:
    """Mean nothing but that whole warps get here."""
    threads.warps()
