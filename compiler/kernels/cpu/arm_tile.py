"""The register tile of ARM's primitives (`compiler.kernels.cpu.dot_arm`)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tvm import tirx

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    const,
    join,
    load,
    piece,
    store,
)

if TYPE_CHECKING:
    from vitq.compiler.kernels.cpu.dot import Weights
    from vitq.compiler.kernels.cpu.dot_arm import Arm

WORDS = 4
"""int32 lanes in one register."""


class ArmTile:
    """Accumulators, by row (or pair of rows), group and register."""

    def __init__(
        self,
        dot: "Arm",
        rows: Buffer,
        weights: "Weights",
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
