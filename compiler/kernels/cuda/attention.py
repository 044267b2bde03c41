"""Fused attention: q k^T, Shiftmax codes, codes V and the normalization, one launch.

qkv is (B, N, 3, H, D), out (B, N, H, D). A block has `row_warps` times 16 rows of one head; its
keys and values are in shared memory, as they lie in qkv. Scores never leave registers: a warp holds
those of all its keys, or, where they are too many, computes them twice, once for the row's maximum
and once for the codes (`compiler.kernels.cuda.attention_rows`). `key_warps` groups of warps share a
row's keys, so that few heads (batch 1) occupy the chip.

A term that is constant along a row of scores cancels in Shiftmax: K's zero point is not needed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.arith import Normalize
from vitq.compiler.kernels.cuda.attention_codes import FastCodes, FastForm, fast_codes
from vitq.compiler.kernels.cuda.attention_products import Products
from vitq.compiler.kernels.cuda.attention_rows import Offsets, Rows
from vitq.compiler.kernels.cuda.attention_shape import UNIT, Shape
from vitq.compiler.kernels.cuda.codes import fills
from vitq.compiler.kernels.cuda.emit import (
    WORD_BITS,
    WORD_BYTES,
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
    launch,
    serial,
    spread,
    when,
)
from vitq.compiler.kernels.cuda.kernel import call_of, gpu_of
from vitq.compiler.kernels.cuda.loading import Layout, Loader, Source
from vitq.compiler.kernels.cuda.octaves import (
    Capped,
    CodeForm,
    code_form,
    code_of,
    distance_constants,
)
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Knob, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import GpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.attention import AttentionParams, QkvShape
from vitq.numerics.errors import VitqError

LARGEST_WIDTH = 256
ROW_WARPS, KEY_WARPS = (1, 2, 4, 8), (1, 2, 4)
DEFAULT_ROW_WARPS = ROW_WARPS[:3]
"""Eight are faster for some numbers of heads only."""


@dataclass(frozen=True)
class AttentionSpec:
    """What the code depends on beside types.

    Attributes:
        centred: q's zero point is 0.
        codes: of the weights.
        fast: whether they take the short code (`compiler.kernels.cuda.attention_codes`), and its
            facts.
        saturate: the result's bounds are its type's, and only the upper word of the normalized
            sum is needed.
    """

    centred: bool
    codes: CodeForm
    fast: FastForm | None
    saturate: bool


def lower_attention(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.attention``: qkv (B, N, 3, H, D), params -> (B, N, H, D)."""
    spec, packed = _prepare(operands[0], constants[1], out)
    return call_of(ATTENTION, operands, (0, *packed), out, features, spec)


def lower_offset_attention(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: GpuFeatures,
) -> KernelCall:
    """``vitq.offset_attention``: qkv, offsets (G, N, N), index (W, H), params -> (B, N, H, D)."""
    spec, packed = _prepare(operands[0], constants[3], out)
    offsets = constants[1].astype(np.int32)
    rows = np.pad(offsets, ((0, 0), (0, 0), (0, -offsets.shape[-1] % UNIT)))
    order: tuple[int | IntArray, ...] = (0, *packed, rows, constants[2].astype(np.int32))
    return call_of(OFFSET_ATTENTION, operands, order, out, features, spec)


def _prepare(
    qkv: TensorType, params: IntArray, out: TensorType
) -> tuple[AttentionSpec, tuple[IntArray, ...]]:
    """Return static facts, and zero points, octaves and normalization as the kernel reads them."""
    width = QkvShape.of(qkv.shape).width
    if width % WORD_BYTES or width > LARGEST_WIDTH:
        raise VitqError(
            f"attention heads of {width} channels: the CUDA kernel takes multiples of "
            f"{WORD_BYTES} up to {LARGEST_WIDTH}"
        )
    p = AttentionParams(*(int(v) for v in params))
    zeros = np.array([p.q_zero_point, p.v_zero_point], np.int32)
    norm = np.array([p.numerator, p.out_shift, p.zero_point, p.qmin, p.qmax], np.int64)
    short = fast_codes(p.codes)
    if short is None:
        fast, octaves = None, distance_constants(p.multiplier, p.shift, p.limit)
    else:
        fast, octaves = short
    saturate = p.out_shift >= WORD_BITS and fills(out.dtype, p.qmin, p.qmax)
    spec = AttentionSpec(p.q_zero_point == 0, code_form(p.codes), fast, saturate)
    return spec, (zeros, octaves, norm)


def _knobs(kernel: Kernel) -> dict[str, Knob]:
    batch, tokens, heads, _ = QkvShape.of(kernel.inputs[0].shape)
    processors = gpu_of(kernel).processors

    def blocks(row_warps: int) -> int:
        return batch * heads * ceil_div(tokens, 16 * row_warps)

    enough = [rows for rows in DEFAULT_ROW_WARPS if blocks(rows) >= 2 * processors]
    rows = max(enough, default=1)
    keys = 1 if rows > 1 else 4 if blocks(1) < processors else 2
    return {"row_warps": Knob(ROW_WARPS, rows), "key_warps": Knob(KEY_WARPS, keys)}


def _body(
    kernel: Kernel,
    schedule: Schedule,
    qkv: Buffer,
    zeros: Buffer,
    octaves: Buffer,
    norm: Buffer,
    *rest: Buffer,
) -> None:
    *constants, out = rest
    shape, spec = Shape(kernel, schedule), kernel.spec
    grid = ceil_div(shape.tokens, shape.rows), shape.heads, shape.batch
    with launch(grid, shape.threads) as block:
        loads = _Loads(shape, block, qkv, spread(grid, shape.threads, gpu_of(kernel)))
        if shape.chunks == 1:
            loads.start(const(0), values=True)
        q_zero = None if spec.centred else get(zeros, 0)
        added = None
        if constants:
            windows = kernel.inputs[-1].shape[0]
            added = Offsets(shape, block, (constants[0], constants[1]), windows)
        rows = Rows(shape, block, loads.shared, loads.query, q_zero, added)
        loads.each_chunk(rows.find_maximum, values=False)
        rows.share_maximum()
        if spec.fast is None:
            capped, form = Capped(octaves, spec.codes.limit), spec.codes
            products = Products(rows, lambda distance: code_of(capped(distance), form))
        else:
            products = Products(rows, FastCodes(octaves, spec.fast))

        def finish() -> None:
            products.finish(Normalize(norm, saturate=spec.saturate), get(zeros, 1), out)

        if rows.are_alone:
            loads.await_chunk(values=True)
            with when(rows.exist):
                products.add(const(0))
                finish()
        else:
            loads.each_chunk(products.add, values=True)
            products.share()
            finish()


ATTENTION = Template("attention", _body, _knobs)
OFFSET_ATTENTION = Template("offset_attention", _body, _knobs)


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


class _Loads:
    """Brings a head's parts to where they are needed."""

    def __init__(self, shape: Shape, block: Block, qkv: Buffer, least: int) -> None:
        self.shape, self.block = shape, block
        self.shared = Shared(max(shape.shared_bytes, least))
        data = flat(qkv)
        self.words = flat(qkv, "int32")
        self.parts = [_Head(shape, data, block, part) for part in range(3)]

    def query(self, row: Expr, column: int) -> Expr:
        """Four bytes of q at a row of the head, from a column that is a multiple of 4."""
        row = tirx.min(row, self.shape.tokens - 1)
        return self.words[self.parts[0].at(row, column) // WORD_BYTES]

    def each_chunk(self, work: Callable[[Expr], None], values: bool) -> None:
        """Work on each chunk of keys when they, and perhaps their values, are there.

        Args:
            work: called with the chunk's first key.
            values: whether values are needed.
        """
        if self.shape.chunks == 1:
            self.await_chunk(values)
            work(const(0))
            return
        with serial(self.shape.chunks) as chunk:
            first = index(chunk * self.shape.chunk)
            intrinsics.barrier()
            self.start(first, values)
            intrinsics.wait(0)
            intrinsics.barrier()
            work(first)

    def await_chunk(self, values: bool) -> None:
        """Wait for the only chunk of keys, and perhaps their values."""
        intrinsics.wait(0 if values else 1)
        intrinsics.barrier()

    def start(self, first: Expr, values: bool) -> None:
        """Begin to load the keys of a chunk, and its values, as a group each."""
        shape = self.shape
        for part, base in ((1, 0), (2, shape.value_base))[: 2 if values else 1]:
            layout = Layout(shape.row_bytes, False)
            loader = Loader(self.parts[part], layout, shape.chunk, first, 1)
            loader.emit(self.shared, const(base), const(0), self.block.thread, shape.threads)
            intrinsics.commit()
