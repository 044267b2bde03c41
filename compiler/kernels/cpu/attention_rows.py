"""A block of attention's rows: scores, codes and the normalized product with V.

The score tile takes each row's maximum while the accumulators are in registers and leaves the
scores (int32) in the L1 cache; each row's codes are then made in registers of 16-bit lanes, where
the processor has them (`compiler.kernels.cpu.octaves` says when), and go through the product with
V.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from vitq.compiler.kernels.cpu.attention_tiles import Operands, emit_columns
from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    cast,
    const,
    lanes_of,
    load,
    reduce_lanes,
    reinterpret,
    serial,
    splat,
    store,
    typed,
)
from vitq.compiler.kernels.cpu.dot import Dot
from vitq.compiler.kernels.cpu.fixed import Halves
from vitq.compiler.kernels.cpu.microkernel import Tile
from vitq.compiler.kernels.cpu.octaves import HalfOctaves
from vitq.compiler.kernels.cpu.scaling import Rescale
from vitq.compiler.kernels.cpu.softmax import (
    LOWEST,
    CodeSpec,
    Normalize,
    emit_codes,
    emit_half_codes,
    emit_packed_octaves,
)

BYTES_IN_WORD = 4


class RowCodes(ABC):
    """Emits the codes of one row of scores."""

    def __init__(self, dot: Dot, tokens: int) -> None:
        self.dot, self.tokens = dot, tokens
        self.groups = dot.groups(tokens)

    @property
    def width(self) -> int:
        """Codes of one row as stored, a whole number of the product's steps."""
        return -(-self.groups // self.dot.depth) * self.dot.depth * self.dot.lanes

    @abstractmethod
    def emit(self, scores: Buffer, row: Expr, top: Expr, codes: Buffer) -> Expr:
        """Write a row's codes, 0 beyond the last token.

        Args:
            scores: (rows, groups * lanes) int32; `LOWEST` beyond the last token.
            row: which.
            top: its largest score.
            codes: (rows, `width`) as the product reads them.

        Returns:
            Lanes that add up to their sum.
        """


class PlainCodes(RowCodes):
    """One int32 lane for each code."""

    def __init__(self, dot: Dot, tokens: int, octaves: Rescale, spec: CodeSpec) -> None:
        super().__init__(dot, tokens)
        self.octaves, self.spec = octaves, spec

    def emit(self, scores: Buffer, row: Expr, top: Expr, codes: Buffer) -> Expr:
        """One register at a time."""
        dot, lanes = self.dot, self.dot.lanes
        acc = alloc((lanes,), "int32")
        store(acc, const(0, "int32", lanes), 0)

        def emit(group: Expr, valid: int) -> None:
            score = load(scores, row, group * lanes, lanes=lanes)
            value = emit_codes(splat(top, lanes) - score, self.octaves, self.spec)
            if valid < lanes:
                value = _first_lanes(value, valid)
            store(acc, load(acc, 0, lanes=lanes) + value, 0)
            if offset := dot.offset("uint8"):
                value = bind(value + const(offset, "int32", lanes))
            dot.store_row(codes, bind(cast(value, str(codes.ty.dtype))), row, group * lanes)

        if self.tokens // lanes:
            with serial(self.tokens // lanes) as group:
                emit(group, lanes)
        if self.tokens % lanes:
            emit(self.groups - 1, self.tokens % lanes)
        return load(acc, 0, lanes=lanes)


class PackedCodes(RowCodes):
    """16-bit lanes; exponents in 16 bits (`HalfOctaves`) or 64 (`Rescale`).

    `masks` says that the code of `LOWEST` is not 0.
    """

    def __init__(
        self,
        dot: Dot,
        tokens: int,
        octaves: HalfOctaves | Rescale,
        spec: CodeSpec,
        halves: Halves,
        masks: bool,
    ) -> None:
        super().__init__(dot, tokens)
        self.octaves, self.spec, self.halves, self.masks = octaves, spec, halves, masks

    def emit(self, scores: Buffer, row: Expr, top: Expr, codes: Buffer) -> Expr:
        """As many registers of scores at a time as make one register of stored codes."""
        lanes, depth = self.dot.lanes, min(self.dot.depth, BYTES_IN_WORD)
        octaves = self.octaves
        base = octaves.base(top) if isinstance(octaves, HalfOctaves) else splat(top, lanes)
        acc = alloc((lanes,), "int32")
        store(acc, const(0, "int32", lanes), 0)

        def emit(first: Expr, present: int, last: bool) -> None:
            missing = [const(LOWEST, "int32", lanes)] * (present % 2)
            values = [
                load(scores, row, (first + i) * lanes, lanes=lanes) for i in range(present)
            ] + missing
            packed = [
                emit_half_codes(self._octaves(base, pair), octaves.limit, self.spec, self.halves)
                for pair in zip(values[::2], values[1::2], strict=True)
            ]
            value = self._in_order(packed)
            if last and self.masks:
                value = _first_lanes(value, self.tokens - first * lanes)
            store(acc, self.dot.sum_codes(load(acc, 0, lanes=lanes), value), 0)
            if offset := self.dot.offset("uint8"):  # the top bit
                value = bind(value ^ const(-offset, "uint8", lanes_of(value)))
            self.dot.store_row(codes, value, row, first * lanes)

        rest = self.groups % depth or depth
        if whole := (self.groups - rest) // depth:
            with serial(whole) as block:
                emit(block * depth, depth, last=False)
        emit(self.groups - rest, rest, last=True)
        return load(acc, 0, lanes=lanes)

    def _octaves(self, base: Expr, scores: tuple[Expr, Expr]) -> Expr:
        if isinstance(self.octaves, HalfOctaves):
            return self.octaves(base, scores)
        return emit_packed_octaves([bind(base - s) for s in scores], self.octaves, self.halves)

    def _in_order(self, packed: list[Expr]) -> Expr:
        """One register of codes as stored: bytes of two registers, or words of one."""
        dot, q = self.dot, self.halves
        if dot.depth == 2:
            return q.words_in_order(packed[0])
        none = const(0, "int16", q.lanes)
        ordered = q.bytes_in_order(*(packed + [none] * (2 - len(packed))))
        return bind(reinterpret(ordered, typed("uint8", BYTES_IN_WORD * dot.lanes)))


def _first_lanes(value: Expr, count: int) -> Expr:
    """Return the first `count` lanes of a vector, and zeros."""
    lanes = lanes_of(value)
    exists = tirx.Ramp(0, 1, lanes) < splat(const(count, "int32"), lanes)
    none = const(0, str(value.ty.dtype).split("x")[0], lanes)
    return bind(tirx.Select(exists, value, none))


@dataclass(frozen=True)
class Block:
    """What emits one block of rows.

    Attributes:
        dot: the primitive.
        scores: product of the block's staged Q with K.
        values: product of the block's codes with V.
        tiles: of both.
        rows: of the block.
        codes: makes them.
        normalize: the division by a row's sum.
        v_zero: V's zero point as stored.
        groups: of V's channels.
        bytes: packs four registers of results, where all of their lanes exist.
    """

    dot: Dot
    scores: Operands
    values: Operands
    tiles: tuple[Tile, Tile]
    rows: int
    codes: RowCodes
    normalize: Normalize
    v_zero: Expr
    groups: int
    bytes: Halves | None

    def scratch(self) -> Buffer:
        """Memory for one block's scores."""
        return alloc((self.rows, self.codes.groups * self.dot.lanes), "int32")

    def emit(
        self,
        scores: Buffer,
        write: Callable[[Expr, Expr, Expr], None],
        added: Callable[[Expr, Expr], Expr] | None = None,
    ) -> None:
        """Both products of the rows that are staged.

        Args:
            scores: from `scratch`.
            write: called with a row of the block, a group, and the results from there on.
            added: to a register of scores, at a row of the block and a group.
        """
        lanes = self.dot.lanes
        maxima, sums = (alloc((self.rows, lanes), "int32") for _ in range(2))
        tops, multipliers, totals = (alloc((self.rows,), "int32") for _ in range(3))
        self._emit_scores(scores, maxima, added)
        # Three loops, not one: a row's chain of dependent instructions is longer than what the
        # processor looks ahead.
        with serial(self.rows) as r:
            store(tops, reduce_lanes(load(maxima, r, 0, lanes=lanes), "smax"), r)
        with serial(self.rows) as r:
            store(sums, self.codes.emit(scores, r, load(tops, r), self.values.rows), r, 0)
        with serial(self.rows) as r:
            total = reduce_lanes(load(sums, r, 0, lanes=lanes), "add")
            store(totals, total * self.v_zero, r)
            store(multipliers, self.normalize.multiplier(total), r)

        def finish(row: Expr, group: Expr, acc: Sequence[Expr]) -> None:
            offset = splat(load(totals, row), lanes)
            multiplier = load(multipliers, row)
            rest = [bind(value - offset) for value in acc]
            at = 0
            while self.bytes is not None and len(rest) - at >= BYTES_IN_WORD:
                four = rest[at : at + BYTES_IN_WORD]
                write(row, group + at, self.normalize.as_bytes(four, multiplier, self.bytes))
                at += BYTES_IN_WORD
            for c in range(at, len(rest)):
                write(row, group + c, self.normalize(rest[c], multiplier))

        emit_columns(self.dot, self.values, self.tiles[1], self.rows, self.groups, finish)

    def _emit_scores(
        self, scores: Buffer, maxima: Buffer, added: Callable[[Expr, Expr], Expr] | None
    ) -> None:
        lanes, groups, tile = self.dot.lanes, self.codes.groups, self.tiles[0]
        single = groups <= tile.columns
        if not single:
            with serial(self.rows) as r:
                store(maxima, const(LOWEST, "int32", lanes), r, 0)

        def keep(row: Expr, group: Expr, acc: Sequence[Expr]) -> None:
            if added is not None:
                acc = [bind(value + added(row, group + c)) for c, value in enumerate(acc)]
            largest = acc[0] if single else load(maxima, row, 0, lanes=lanes)
            for c, value in enumerate(acc):
                store(scores, value, row, (group + c) * lanes)
                largest = bind(tirx.max(largest, value))
            store(maxima, largest, row, 0)

        emit_columns(self.dot, self.scores, tile, self.rows, groups, keep)
