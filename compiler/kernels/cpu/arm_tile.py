"""What ARM's primitives (`compiler.kernels.cpu.dot_arm`) have in common: their register tile."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    T,
    alloc,
    bind,
    const,
    join,
    lanes_of,
    load,
    piece,
    serial,
    store,
)
from vitq.compiler.kernels.cpu.dot import Dot, Weights

REGISTER = 16
"""Bytes of one register."""
WORDS = 4
"""int32 lanes in one register."""


class ArmTile:
    """Accumulators, by row (or pair of rows), group and register."""

    def __init__(
        self,
        dot: "Arm",
        rows: Buffer,
        weights: Weights,
        size: tuple[int, int],
        at: tuple[Expr, Expr],
    ) -> None:
        self.dot, self.rows, self.weights = dot, rows, weights
        self.size, self.at = size, at
        # Tiles with an odd number of rows may begin at an odd row: then nothing is paired.
        pairs = size[0] % dot.rows == 0 or (isinstance(at[0], int) and at[0] % dot.rows == 0)
        self.stride = dot.rows if pairs else 1
        self.registers = dot.lanes * dot.rows // WORDS
        self.acc = [
            [[alloc((WORDS,), "int32") for _ in range(self.registers)] for _ in range(size[1])]
            for _ in range(0, size[0], self.stride)
        ]

    def begin(self, start: Callable[[Expr], Expr] | None) -> None:
        """Set all accumulators."""
        rows = self.dot.rows
        for c in range(self.size[1]):
            if start is None:
                values = [const(0, "int32", WORDS)] * self.registers
            else:
                first = bind(start(self.at[1] + c))
                parts = [piece(first, i, WORDS // rows) for i in range(self.registers)]
                values = [join([part] * rows) if rows > 1 else part for part in parts]
            for groups in self.acc:
                for register, value in zip(groups[c], values, strict=True):
                    store(register, value, 0)

    def advance(self, step: Expr, count: int) -> None:
        """`count` steps, a chunk of activations at a time."""
        dot, (row, group) = self.dot, self.at
        rows = range(0, self.size[0], self.stride)
        for first in range(0, count, dot.chunk):
            chunk = min(dot.chunk, count - first)
            a = [self._row(row + r, step + first, chunk) for r in rows]
            for s in range(chunk):
                for c in range(self.size[1]):
                    weights = self.weights(group + c, step, first + s)
                    for i, part in enumerate(dot.parts(weights)):
                        for groups, steps in zip(self.acc, a, strict=True):
                            register = groups[c][i]
                            old = load(register, 0, lanes=WORDS)
                            store(register, dot.multiply(old, steps[s], part), 0)

    def _row(self, row: Expr, step: Expr, count: int) -> list[Expr]:
        dot = self.dot
        if self.stride == dot.rows:
            return dot.row_steps(self.rows, row, step, count)
        return [dot.activations(self.rows, row, step + s) for s in range(count)]

    def results(self) -> list[list[Expr]]:
        """Lanes in the order of channels, by row and group."""
        each = WORDS // self.dot.rows
        tile: list[list[Expr]] = []
        for groups in self.acc:
            whole = [join([load(r, 0, lanes=WORDS) for r in registers]) for registers in groups]
            for row in range(self.stride):
                firsts = range(row * each, self.registers * WORDS, WORDS)
                order = [lane for first in firsts for lane in range(first, first + each)]
                tile.append([bind(tirx.Shuffle([value], order)) for value in whole])
        return tile[: self.size[0]]


@dataclass(frozen=True)
class Arm(Dot):
    """What the three have in common.

    Attributes:
        chunk: steps in one iteration of a tile's loop; their activations are read together.
    """

    chunk: int = 1

    def stored(self, dtype: str, weights: bool) -> str:
        """Signed bytes, unless activations may stay unsigned."""
        return dtype if not weights and self.offset(dtype) == 0 else "int8"

    def offset(self, dtype: str) -> int:
        """Unsigned activations are stored minus 128."""
        return -128 if dtype == "uint8" else 0

    def ones(self) -> Expr:
        """Return a group's bytes."""
        return const(1, "int8", self.lanes * self.depth)

    def ones_row(self) -> Expr:
        """One register."""
        return const(1, "int8", REGISTER)

    def slots(self, rows: int, columns: int) -> float:
        """Instructions: products, loads of two registers of weights, loads of a chunk of a row."""
        registers = self.lanes * self.rows // WORDS
        loads = self.lanes * self.depth // REGISTER / 2 * columns + rows / self.chunk
        return registers * rows * columns + loads

    def sum_codes(self, acc: Expr, codes: Expr) -> Expr:
        """By udot with ones."""
        name = "llvm.aarch64.neon.udot.v4i32.v16i8"
        ones = const(1, "uint8", REGISTER)
        registers = [(piece(acc, i, WORDS), piece(codes, i, REGISTER)) for i in range(WORDS)]
        sums = [T.call_llvm_pure_intrin("int32x4", name, a, c, ones) for a, c in registers]
        return join([bind(total) for total in sums])

    @abstractmethod
    def row_steps(self, rows: Buffer, row: Expr, step: Expr, count: int) -> list[Expr]:
        """Load the operands of `count` steps from `step` on, for `Dot.rows` rows from `row` on."""

    @abstractmethod
    def multiply(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """Return the instructions for one register of accumulators and its part of the weights."""

    def parts(self, b: Expr) -> list[Expr]:
        """Return the part of a group's weights for each register of accumulators."""
        return [piece(b, i, REGISTER) for i in range(lanes_of(b) // REGISTER)]

    def activations(self, rows: Buffer, row: Expr, step: Expr) -> Expr:
        """One step of one row."""
        return self.row_steps(rows, row, step, 1)[0]

    def accumulate(self, acc: Expr, a: Expr, b: Expr) -> Expr:
        """One row."""
        registers = [piece(acc, i, WORDS) for i in range(self.lanes // WORDS)]
        parts = zip(registers, self.parts(b), strict=True)
        return join([self.multiply(register, a, part) for register, part in parts])

    def own_tile(
        self,
        rows: Buffer,
        weights: Weights,
        steps: tuple[int, int],
        size: tuple[int, int],
        at: tuple[Expr, Expr],
        start: Callable[[Expr], Expr] | None,
    ) -> list[list[Expr]]:
        """`chunk` steps at a time, and a register of weights at a time with all rows."""
        tile = ArmTile(self, rows, weights, size, at)
        tile.begin(start)
        count, together = steps[0], max(self.chunk, steps[1])
        if count // together:
            with serial(count // together) as i:
                tile.advance(i * together, together)
        if rest := count % together:
            tile.advance(count - rest, rest)
        return tile.results()
