"""Thread blocks, registers and shared memory over TVM's IRBuilder.

As `compiler.kernels.cpu.builder`, for GPUs: a kernel is Python that emits what one thread does.
Loops over registers are Python loops, because a register array may be indexed by constants only.
An expression that is used twice must be kept: `index` for what addresses are made of, `keep`
(a register) for arithmetic, which TVM's simplifier would otherwise inline again and again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

from tvm import tirx
from tvm.tirx.script import builder as T  # noqa: N812 - the name that TVM gives it

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.tile import RESERVED
from vitq.compiler.target.features import GpuFeatures

Expr = Any
Buffer = Any
WARP = 32
ALIGN = 16
WORD_BYTES = 4
WORD_BITS = 32
RESIDENT = 640
"""Threads of small blocks that a multiprocessor runs at a time."""
BYTES = {"int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "int64": 8}


class Block(NamedTuple):
    """Where a thread is.

    Attributes:
        x: block index; consecutive blocks run together.
        y: block index.
        z: block index.
        thread: within the block.
    """

    x: Expr
    y: Expr
    z: Expr
    thread: Expr

    @property
    def lane(self) -> Expr:
        """Within the warp."""
        return index(self.thread % WARP)

    @property
    def warp(self) -> Expr:
        """Within the block."""
        return index(self.thread // WARP)


@contextmanager
def launch(blocks: Sequence[int], threads: int, early: bool = False) -> Iterator[Block]:
    """One kernel: everything inside is what a thread does.

    Args:
        blocks: of each axis.
        threads: of a block.
        early: whether it has something to do before the kernels in front of it are done, and
            calls `intrinsics.await_inputs` itself.
    """
    x, y, z = (*blocks, 1, 1)[:3]
    with T.launch_thread("blockIdx.x", x) as bx, T.launch_thread("blockIdx.y", y) as by:
        with T.launch_thread("blockIdx.z", z) as bz:
            with T.launch_thread("threadIdx.x", threads) as thread:
                intrinsics.start_next()
                if not early:
                    intrinsics.await_inputs()
                yield Block(bx, by, bz, thread)


def spread(blocks: Sequence[int], threads: int, features: GpuFeatures) -> int:
    """Bytes of shared memory with which no multiprocessor takes more than its share of the blocks.

    A kernel that begins beside the one in front of it would otherwise have its blocks where there
    is room first, many on a few multiprocessors, and they stay there. All kernels then also divide
    a multiprocessor's memory into shared memory and cache alike, which changes only when it idles.

    Args:
        blocks: of each axis.
        threads: of a block.
        features: of the GPU.
    """
    if not features.dependent:
        return 0
    share = min(ceil_div(prod(blocks), features.processors), max(RESIDENT // threads, 1))
    return max(features.shared_bytes // share - RESERVED, 0) // ALIGN * ALIGN


def registers(count: int, dtype: str = "int32") -> Buffer:
    """Allocate a thread's own values; indices must be constants after unrolling."""
    return T.alloc_buffer((count,), dtype, scope="local", layout=None, align=ALIGN)


class Shared:
    """The block's shared memory; parts of it are seen as tensors.

    Args:
        size: in bytes.
        align: of its first byte.
    """

    def __init__(self, size: int, align: int = ALIGN) -> None:
        self.size = size
        self.bytes = T.alloc_buffer((size,), "int8", scope="shared.dyn", layout=None, align=align)

    def view(self, dtype: str) -> Buffer:
        """All of it, as one axis of another type."""
        return T.decl_buffer(
            (self.size // BYTES[dtype],),
            dtype,
            data=self.bytes.data,
            scope="shared.dyn",
            layout=None,
        )


def flat(buffer: Buffer, dtype: str | None = None) -> Buffer:
    """Return the memory of a global tensor as one axis, perhaps of another type."""
    own = str(buffer.ty.dtype)
    size = BYTES[own]
    for extent in buffer.shape:
        size *= int(extent)
    dtype = dtype or own
    count = max(size // BYTES[dtype], 1)
    return T.decl_buffer((count,), dtype, data=buffer.data, layout=None)


def index(value: Expr) -> Expr:
    """Evaluate an int32 that addresses are made of."""
    return value if isinstance(value, int) else T.Bind(value)


def keep(value: Expr) -> Expr:
    """Evaluate once, into a register."""
    slot = registers(1, str(value.ty.dtype))
    put(slot, 0, value)
    return slot[0]


def put(buffer: Buffer, at: Expr, value: Expr) -> None:
    """Store one element of a flat buffer, cast to its type."""
    T.buffer_store(buffer, value.astype(str(buffer.ty.dtype)), [at])


def get(buffer: Buffer, at: Expr) -> Expr:
    """Load one element of a flat buffer into a register."""
    return keep(buffer[at])


def get_many(buffer: Buffer, at: Expr, count: int) -> Buffer:
    """Load `count` elements that follow each other with one instruction, into registers."""
    to = registers(count, str(buffer.ty.dtype))
    if count == 1:
        put(to, 0, buffer[at])
    else:
        T.buffer_store(to, buffer[tirx.Ramp(at, 1, count)], [tirx.Ramp(0, 1, count)])
    return to


def put_many(buffer: Buffer, at: Expr, values: Buffer, count: int) -> None:
    """Store `count` registers with one instruction."""
    if count == 1:
        put(buffer, at, values[0])
    else:
        T.buffer_store(buffer, values[tirx.Ramp(0, 1, count)], [tirx.Ramp(at, 1, count)])


def address(buffer: Buffer, at: Expr) -> Expr:
    """Take the address of an element."""
    return T.address_of(buffer[at])


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """Code that only some threads run; no barrier inside."""
    if condition is True:
        yield
        return
    with T.If(condition), T.Then():
        yield


def each_item(count: int, thread: Expr, threads: int) -> Iterator[Expr]:
    """Walk a thread's numbers below `count`: what is emitted for each runs only if it is one.

    Args:
        count: of the items.
        thread: of the block.
        threads: among which they are divided.
    """
    for step in range(ceil_div(count, threads)):
        item = index(thread + step * threads)
        whole = (step + 1) * threads <= count
        with when(True if whole else item < count):
            yield item


@contextmanager
def serial(extent: Expr) -> Iterator[Expr]:
    """Emit a loop with as many turns for every thread."""
    with T.serial(0, extent) as i:
        yield i


def const(value: int, dtype: str = "int32") -> Expr:
    """Make an integer constant."""
    return tirx.const(value, dtype)


def as_word(value: Expr) -> Expr:
    """As int32, in a register."""
    return keep(value.astype("int32"))


def wide(value: Expr) -> Expr:
    """As int64."""
    return value.astype("int64")


def select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    """One of two values, both evaluated."""
    return tirx.Select(condition, yes, no)


def clamp(value: Expr, low: Expr, high: Expr) -> Expr:
    """Limit a value."""
    return keep(tirx.max(tirx.min(value, high), low))


def ceil_div(a: int, b: int) -> int:
    """Divide and round up."""
    return -(-a // b)
