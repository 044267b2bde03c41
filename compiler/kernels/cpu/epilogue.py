"""What becomes of a tile's accumulators: codes, perhaps a second step, and stores.

Where the processor has 16-bit lanes, a saturating pack makes one register of two registers of
codes, which is the clamp where the bounds are the type's own. The second step (a residual addition
or a GELU) works on those, and another pack makes one register of bytes of two of them. A pack
interleaves its sources, see `compiler.kernels.cpu.fixed`; one permutation before the store undoes
that. What is left over (odd groups, missing channels, other targets) goes through int32 lanes.
"""

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    cast,
    lanes_of,
    load,
    piece,
    serial,
    store,
)
from vitq.compiler.kernels.cpu.elementwise import AddHalves, AddWords
from vitq.compiler.kernels.cpu.fixed import Halves
from vitq.compiler.kernels.cpu.microkernel import store_lanes
from vitq.compiler.kernels.cpu.requantizing import Requantize
from vitq.compiler.kernels.cpu.shiftgelu import GeluHalves, GeluSpec, GeluWords

BYTES = ("int8", "uint8")
OWN_BOUNDS = {"int8": (-(2**7), 2**7 - 1), "uint8": (0, 2**8 - 1), "int16": (-(2**15), 2**15 - 1)}


class SecondStep:
    """Nothing: codes are stored as they are.

    Attributes:
        in_order: whether the registers of 16-bit codes must have their lanes in order.
        clamps: whether results have their bounds already.
        loops: whether it is long: then a tile's codes wait in memory for a loop over its rows,
            because its temporaries would push accumulators out of the registers.
    """

    in_order = False
    clamps = False
    loops = False

    def words(self, codes: Expr, valid: int, row: Expr, column: Expr) -> Expr:
        """int32 lanes to int32 lanes, of which the first `valid` exist."""
        del valid, row, column
        return codes

    def halves(self, codes: Expr, row: Expr, column: Expr, saturates: bool) -> Expr:
        """int16 lanes to int16 lanes; with `saturates` a pack limits them to their type."""
        del row, column, saturates
        return codes


class AddStep(SecondStep):
    """Plus a residual."""

    in_order = True
    clamps = True

    def __init__(self, residual: Buffer, params: Buffer, halves: Halves | None) -> None:
        """Read AddParams; `residual` is (rows, channels)."""
        self.residual = residual
        self.add_words = AddWords(params)
        self.add_halves = AddHalves(params, halves) if halves else None

    def words(self, codes: Expr, valid: int, row: Expr, column: Expr) -> Expr:
        """See `SecondStep`."""
        lanes = lanes_of(codes)
        return self.add_words(codes, load_lanes(self.residual, lanes, valid, row, column))

    def halves(self, codes: Expr, row: Expr, column: Expr, saturates: bool) -> Expr:
        """See `SecondStep`."""
        assert self.add_halves is not None
        del saturates
        residual = load(self.residual, row, column, lanes=lanes_of(codes))
        return self.add_halves(codes, bind(cast(residual, "int16")))


class GeluStep(SecondStep):
    """GELU of the codes."""

    clamps = True
    loops = True

    def __init__(self, params: Buffer, spec: GeluSpec, halves: Halves | None) -> None:
        """Read GeluParams."""
        self.gelu_words = GeluWords(params, spec.twin)
        self.gelu_halves = GeluHalves(params, spec, halves) if halves else None

    def words(self, codes: Expr, valid: int, row: Expr, column: Expr) -> Expr:
        """See `SecondStep`."""
        return self.gelu_words(codes)

    def halves(self, codes: Expr, row: Expr, column: Expr, saturates: bool) -> Expr:
        """See `SecondStep`."""
        assert self.gelu_halves is not None
        return self.gelu_halves(codes, saturates)


class Finish:
    """Finishes tiles; see the module docstring."""

    def __init__(
        self, first: Requantize, second: SecondStep, halves: Halves | None, target: Buffer
    ) -> None:
        """Keep the steps; `halves` where codes go through 16-bit lanes, `target` (rows, N)."""
        self.first, self.second, self.target = first, second, target
        self.pack = halves
        self.dtype = str(target.ty.dtype)
        self.lanes = first.dot.lanes

    def __call__(self, row: Expr, group: Expr, accs: list[list[Expr]], exist: int) -> None:
        """Finish a tile.

        Args:
            row: the first one.
            group: the first one.
            accs: accumulators by row and column.
            exist: channels of the last group.
        """
        columns = len(accs[0])
        whole = columns if exist == self.lanes else columns - 1
        done = 0
        if self.pack is not None and self.pack.lanes == self.lanes:
            for c in range(whole):
                for r, registers in enumerate(accs):
                    self._emit_group(self.pack, registers[c], row + r, group + c)
            done = whole
        while self.pack is not None and whole - done >= 2:
            bytes_fit = self.dtype in BYTES and not self.second.in_order and whole - done >= 4
            count = 4 if bytes_fit else 2
            self._emit_packed(self.pack, row, group, accs, range(done, done + count))
            done += count
        for c in range(done, columns):
            valid = self.lanes if c < whole else exist
            for r, registers in enumerate(accs):
                self._emit_words(registers[c], row + r, group + c, valid)

    def _emit_words(self, acc: Expr, row: Expr, group: Expr, valid: int) -> None:
        column = group * self.lanes
        codes = self.first(acc, group)
        if self.first.spec.shift != "wide":
            codes = self.first.clamp(codes, "int32")
        value = self.second.words(codes, valid, row, column)
        store_lanes(self.target, value, valid, row, column)

    def _emit_group(self, pack: Halves, acc: Expr, row: Expr, group: Expr) -> None:
        """One group of one row in 16-bit lanes, where they need no second group."""
        saturates = self.dtype in BYTES
        codes = self.first(acc, group)
        halves = [piece(codes, i, self.lanes // 2) for i in range(2)]
        column = group * self.lanes
        value = self._limited(pack, pack.pack(*halves), saturates)
        value = self.second.halves(value, row, column, saturates)
        if saturates:
            low, high = (piece(value, i, self.lanes // 2) for i in range(2))
            value = pack.bytes_in_order(low, high, signed=self.dtype == "int8")
        store(self.target, value, row, column)

    def _emit_packed(
        self, pack: Halves, row: Expr, group: Expr, accs: list[list[Expr]], columns: range
    ) -> None:
        """Two or four groups of all rows: constants of a group are read once."""
        saturates = len(columns) == 4
        pairs = [
            [self._codes(pack, registers[c : c + 2], group + c, saturates) for registers in accs]
            for c in columns[::2]
        ]
        column = (group + columns[0]) * self.lanes
        if not self.second.loops:
            for r, parts in enumerate(zip(*pairs, strict=True)):
                done = [
                    self.second.halves(part, row + r, column + i * pack.lanes, saturates)
                    for i, part in enumerate(parts)
                ]
                self._store(pack, done, row + r, column)
            return
        count = len(pairs)
        waiting = alloc((len(accs) * count, pack.lanes), "int16")
        for p, rows in enumerate(pairs):
            for r, part in enumerate(rows):
                store(waiting, part, r * count + p, 0)
        with serial(len(accs)) as r:
            done = [
                self.second.halves(
                    load(waiting, r * count + p, 0, lanes=pack.lanes),
                    row + r,
                    column + p * pack.lanes,
                    saturates,
                )
                for p in range(count)
            ]
            self._store(pack, done, row + r, column)

    def _codes(self, pack: Halves, accs: list[Expr], group: Expr, saturates: bool) -> Expr:
        """Two groups of a row as one register of 16-bit codes."""
        codes = pack.pack(*(self.first(acc, group + i) for i, acc in enumerate(accs)))
        return self._limited(pack, codes, saturates)

    def _limited(self, pack: Halves, codes: Expr, saturates: bool) -> Expr:
        """Codes within their bounds, as the second step wants them."""
        limited = ["int16"]
        if saturates and not self.second.clamps:
            limited.append(self.dtype)
        spec = self.first.spec
        if (spec.low, spec.high) not in [OWN_BOUNDS[dtype] for dtype in limited]:
            codes = self.first.clamp(codes, "int16")
        return pack.words_in_order(codes) if self.second.in_order else codes

    def _store(self, pack: Halves, done: list[Expr], row: Expr, column: Expr) -> None:
        """One row's results."""
        if len(done) == 2:
            value = pack.bytes_in_order(done[0], done[1], signed=self.dtype == "int8")
        else:
            value = done[0] if self.second.in_order else pack.words_in_order(done[0])
        store(self.target, value, row, column)


def load_lanes(source: Buffer, lanes: int, valid: int, row: Expr, column: Expr) -> Expr:
    """Read a vector whose first `valid` lanes exist."""
    if valid == lanes:
        return load(source, row, column, lanes=lanes)
    scratch = alloc((lanes,), str(source.ty.dtype))
    with serial(valid) as i:
        store(scratch, load(source, row, column + i), i)
    return load(scratch, 0, lanes=lanes)
