"""Fused attention: q k^T, Shiftmax codes, codes V and the normalization, one launch.

qkv is (B, N, 3, H, D), out (B, N, H, D). A block has `row_warps` times 16 rows of one head; its
keys and values are in shared memory. Scores never leave registers: they are computed twice, once
for the row's maximum and once for the codes (`compiler.cuda.attention_rows`), which costs tensor
core time that is not the bottleneck and works for any number of tokens. `key_warps` groups of
warps share a row's keys, so that few heads (batch 1) occupy the chip.

A term that is constant along a row of scores cancels in Shiftmax: K's zero point is not needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from compiler.cuda import intrinsics
from compiler.cuda.arith import Capped, CodeForm, Normalize, code_form, distance_constants
from compiler.cuda.attention_rows import UNIT, Rows
from compiler.cuda.attention_shape import Shape
from compiler.cuda.emit import (
    Block,
    Buffer,
    Expr,
    Shared,
    address,
    ceil_div,
    const,
    flat,
    get,
    index,
    keep,
    launch,
    put,
    serial,
    when,
)
from compiler.cuda.kernel import call_of, gpu_of
from compiler.cuda.loading import Layout, Loader, Source
from compiler.features import GpuFeatures
from compiler.kernels.types import (
    Kernel,
    KernelCall,
    Knob,
    Schedule,
    Template,
    TensorType,
)
from numerics.arrays import IntArray
from numerics.errors import VitqError
from relay_passes.dialect import AttentionParams

WORD = 4
LARGEST_WIDTH = 256
WARP_CHOICES = (1, 2, 4)


@dataclass(frozen=True)
class AttentionSpec:
    """What the code depends on beside types.

    Attributes:
        centred: q's zero point is 0.
        codes: of the weights.
    """

    centred: bool
    codes: CodeForm


def lower_attention(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.attention``: qkv (B, N, 3, H, D), params -> (B, N, H, D)."""
    width = operands[0].shape[-1]
    if width % WORD or width > LARGEST_WIDTH:
        raise VitqError(
            f"attention heads of {width} channels: the CUDA kernel takes multiples of {WORD} up to "
            f"{LARGEST_WIDTH}"
        )
    p = AttentionParams(*(int(v) for v in constants[1]))
    octaves = distance_constants(p.multiplier, p.shift, p.limit)
    zeros = np.array([p.q_zero_point, p.v_zero_point], np.int32)
    norm = np.array([p.numerator, p.out_shift, p.zero_point, p.qmin, p.qmax], np.int64)
    order: tuple[int | IntArray, ...] = (0, zeros, octaves, norm)
    spec = AttentionSpec(p.q_zero_point == 0, code_form(p.codes))
    return call_of(ATTENTION, operands, order, out, features, spec)


def _knobs(kernel: Kernel) -> dict[str, Knob]:
    batch, tokens, _, heads, _ = kernel.inputs[0].shape
    processors = gpu_of(kernel).processors

    def blocks(row_warps: int) -> int:
        return batch * heads * ceil_div(tokens, 16 * row_warps)

    enough = [rows for rows in WARP_CHOICES if blocks(rows) >= 2 * processors]
    rows = max(enough, default=1)
    keys = 1 if rows > 1 else 4 if blocks(1) < processors else 2
    return {"row_warps": Knob(WARP_CHOICES, rows), "key_warps": Knob(WARP_CHOICES, keys)}


def _body(
    kernel: Kernel,
    schedule: Schedule,
    qkv: Buffer,
    zeros: Buffer,
    octaves: Buffer,
    norm: Buffer,
    out: Buffer,
) -> None:
    shape = Shape(kernel, schedule)
    grid = ceil_div(shape.tokens, shape.rows), shape.heads, shape.batch
    with launch(grid, shape.threads) as block:
        work = _Attention(shape, block, qkv)
        q_zero = None if kernel.spec.centred else get(zeros, 0)
        rows = Rows(shape, block, work.shared, work.query, q_zero)
        work.each_chunk(rows.find_maximum, values=shape.chunks == 1)
        rows.share_maximum()
        rows.start(Capped(octaves, kernel.spec.codes.limit), kernel.spec.codes)
        if shape.chunks == 1:
            rows.add_products(const(0))
        else:
            work.each_chunk(rows.add_products, values=True)
        rows.share_products()
        rows.finish(Normalize(norm), get(zeros, 1), flat(out), kernel.out.dtype)


ATTENTION = Template("attention", _body, _knobs)


class _Head(Source):
    """One part (q, k or v) of one head: (N, D) bytes."""

    def __init__(self, shape: Shape, data: Buffer, block: Block, part: int) -> None:
        self.rows, self.inner = shape.tokens, shape.width
        self.copies = shape.width % 16 == 0
        self.data, self.stride = data, 3 * shape.heads * shape.width
        token = block.z * shape.tokens * 3 + part
        self.base = index((token * shape.heads + block.y) * shape.width)

    def at(self, row: Expr, column: Expr) -> Expr:
        """Byte index."""
        return self.base + row * self.stride + column

    def copy(self, to: Expr, row: Expr, piece: Expr) -> None:
        """See `Source`."""
        intrinsics.copy16(to, address(self.data, self.at(row, piece * 16)))

    def byte(self, row: Expr, column: Expr) -> Expr:
        """See `Source`."""
        return self.data[self.at(row, column)]


class _Attention:
    """Brings a head's parts to where they are needed."""

    def __init__(self, shape: Shape, block: Block, qkv: Buffer) -> None:
        self.shape, self.block = shape, block
        self.shared = Shared(shape.shared_bytes)
        data, words = flat(qkv), flat(qkv, "int32")
        parts = [_Head(shape, data, block, part) for part in range(3)]
        self.q, self.v = parts[0], parts[2]
        self.words = words
        layout = Layout(shape.key_bytes, False)
        self.keys = Loader(parts[1], layout, shape.chunk, const(0), 1)

    def query(self, row: Expr, column: int) -> Expr:
        """Four bytes of q at a row of the head, from a column that is a multiple of 4."""
        row = tirx.min(row, self.shape.tokens - 1)
        return self.words[self.q.at(row, column) // WORD]

    def each_chunk(self, work: object, values: bool) -> None:
        """Load each chunk of keys (and values) and work on it.

        Args:
            work: called with the chunk's first key.
            values: whether values are loaded, too.
        """
        assert callable(work)
        if self.shape.chunks == 1:
            self._load(const(0), values)
            work(const(0))
            return
        with serial(self.shape.chunks) as chunk:
            first = index(chunk * self.shape.chunk)
            intrinsics.barrier()
            self._load(first, values)
            work(first)

    def _load(self, first: Expr, values: bool) -> None:
        keys = Loader(self.keys.source, self.keys.layout, self.keys.rows, first, self.keys.groups)
        keys.emit(self.shared, const(0), const(0), self.block.thread, self.shape.threads)
        intrinsics.commit()
        if values:
            self._load_values(first)
        intrinsics.wait(0)
        intrinsics.barrier()

    def _load_values(self, first: Expr) -> None:
        """V transposed: for each unit of 32 keys, each channel's 32 bytes as `mma` reads them.

        A thread takes 4 channels of the 4 keys whose codes lie in one register of the first
        operand (`compiler.cuda.attention_rows`): 4 words in, a 4 x 4 byte transposition, 4 out.
        """
        shape = self.shape
        fours = shape.width // WORD
        total = shape.chunk // 4 * fours
        words = self.shared.view("int32")
        for step in range(ceil_div(total, shape.threads)):
            item = index(self.block.thread + step * shape.threads)
            whole = (step + 1) * shape.threads <= total
            with when(True if whole else item < total):
                quad, half = index(item % 4), index(item // 4 % 2)
                four, unit = index(item // 8 % fours), index(item // (8 * fours))
                key = index(first + unit * UNIT + half * 16 + quad * 2)
                columns = [self._value_word(key + k, four) for k in (0, 1, 8, 9)]
                for channel, word in enumerate(_transposed(columns)):
                    place = shape.value_place(unit, four * WORD + channel, half)
                    put(words, place // WORD + quad, word)

    def _value_word(self, key: Expr, four: Expr) -> Expr:
        row = tirx.min(key, self.shape.tokens - 1)
        return keep(self.words[self.v.at(row, four * WORD) // WORD])


def _transposed(rows: list[Expr]) -> list[Expr]:
    """4 x 4 bytes: word i of the result has byte i of each of the four words."""
    a, b, c, d = rows
    low = [keep(intrinsics.permute(x, y, 0x5140)) for x, y in ((a, b), (c, d))]
    high = [keep(intrinsics.permute(x, y, 0x7362)) for x, y in ((a, b), (c, d))]
    return [
        intrinsics.permute(pair[0], pair[1], selector)
        for pair in (low, high)
        for selector in (0x5410, 0x7632)
    ]
