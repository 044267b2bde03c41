"""A thin layer over TVM's IRBuilder: kernels are written as Python that emits TIR.

The builder is used directly, not TVMScript: nothing is parsed (a kernel is built in
milliseconds), loops over registers are Python loops, and a template takes its tile as
arguments. Vectors are explicit: `load` and `store` move `lanes` elements along the last axis, and
one emitting function serves the vector body and the scalar remainder of a loop (`for_chunks`).

Two facts of TVM that the layer hides: an allocation of at most 1024 bytes stays on the
stack (and in registers) only in scope "global", and an expression used twice must be
kept (`bind`), because TIR expressions are trees.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T  # noqa: N812 - the name that TVM gives it

from vitq.compiler.kernels.tensor import TensorType

Expr = Any
Buffer = Any


def alloc(shape: tuple[int, ...], dtype: str) -> Buffer:
    """Allocate static scratch memory (registers when small and indexed by constants)."""
    return T.alloc_buffer(shape, dtype, scope="global", layout=None, align=64)


def view(buffer: Buffer, tensor: TensorType) -> Buffer:
    """Return the memory of `buffer` under another shape of as many bytes."""
    return T.decl_buffer(tensor.shape, tensor.dtype, data=buffer.data, layout=None)


def bind(value: Expr) -> Expr:
    """Evaluate once; use the result many times.

    TVM's simplifier inlines bound variables again, which makes long chains of arithmetic grow
    exponentially. What is not an index therefore goes through a stack slot, which LLVM turns into
    a register.
    """
    dtype, lanes = str(value.ty.dtype), lanes_of(value)
    if dtype == "int32":
        return T.Bind(value)
    slot = alloc((lanes,), dtype.split("x")[0])
    store(slot, value, 0)
    return slot[_at((0,), lanes)]


@contextmanager
def serial(extent: int) -> Iterator[Expr]:
    """Emit a sequential loop; yields its index."""
    with T.serial(0, extent) as index:
        yield index


@contextmanager
def parallel(extent: int) -> Iterator[Expr]:
    """Emit a loop whose iterations may run on different threads; yields its index."""
    with T.parallel(0, extent) as index:
        yield index


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """Code that runs only where a condition holds."""
    with T.If(condition), T.Then():
        yield


@contextmanager
def region() -> Iterator[None]:
    """One launch of the thread pool for all `parallel` loops inside, which do not nest.

    A loop that reads what the loop before wrote needs that one inside of `finished`.
    """
    with T.attr(0, "pragma_parallel_launch_point", 1):
        yield


@contextmanager
def finished() -> Iterator[None]:
    """Inside of `region`: all threads wait for each other at the end."""
    with T.attr(0, "pragma_parallel_barrier_when_finish", 1):
        yield


def prefetch(buffer: Buffer, *index: Expr) -> None:
    """Ask for the cache line of an element that is read later, for the second-level cache."""
    address = T.address_of(buffer[index])
    T.evaluate(tirx.call_intrin("", "tirx.prefetch", address, 0, 2, 1))


def load(buffer: Buffer, *index: Expr, lanes: int = 1) -> Expr:
    """Read `lanes` elements that follow each other on the last axis, and bind them."""
    return T.Bind(buffer[_at(index, lanes)])


def store(buffer: Buffer, value: Expr, *index: Expr) -> None:
    """Write a scalar or a vector along the last axis, cast to the buffer's type."""
    lanes = lanes_of(value)
    T.buffer_store(buffer, cast(value, str(buffer.ty.dtype)), list(_at(index, lanes)))


def _at(index: tuple[Expr, ...], lanes: int) -> tuple[Expr, ...]:
    if lanes == 1:
        return index
    return (*index[:-1], tirx.Ramp(index[-1], 1, lanes))


def lanes_of(value: Expr) -> int:
    """Count the vector lanes of an expression."""
    dtype = str(value.ty.dtype)
    return int(dtype.split("x")[1]) if "x" in dtype else 1


def typed(dtype: str, lanes: int) -> str:
    """TIR's name of a vector type."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def const(value: int, dtype: str, lanes: int = 1) -> Expr:
    """Make an integer constant, in every lane."""
    return splat(tirx.const(value, dtype), lanes)


def splat(scalar: Expr, lanes: int) -> Expr:
    """Broadcast a scalar to every lane."""
    return scalar if lanes == 1 else tirx.Broadcast(scalar, lanes)


def cast(value: Expr, dtype: str) -> Expr:
    """Convert elementwise (truncating where the type is narrower)."""
    return value.astype(typed(dtype, lanes_of(value)))


def reinterpret(value: Expr, dtype: str) -> Expr:
    """Return the same bits as another (vector) type."""
    return T.reinterpret(dtype, value)


def piece(value: Expr, index: int, lanes: int) -> Expr:
    """Lanes ``[index * lanes, (index + 1) * lanes)`` of a vector."""
    if lanes_of(value) == lanes:
        return value
    return bind(tirx.Shuffle([value], list(range(index * lanes, (index + 1) * lanes))))


def join(pieces: Sequence[Expr]) -> Expr:
    """Vectors after each other."""
    total = sum(lanes_of(p) for p in pieces)
    return bind(tirx.Shuffle(list(pieces), list(range(total))))


def reduce_lanes(value: Expr, operation: str) -> Expr:
    """Combine the lanes of a vector to a scalar.

    Args:
        value: int32 or int64 lanes.
        operation: ``add`` or ``smax``.
    """
    scalar = str(value.ty.dtype).split("x")[0]
    return bind(T.call_llvm_pure_intrin(scalar, f"llvm.vector.reduce.{operation}", value))


def for_chunks(size: int, lanes: int, body: Callable[[Expr, int], None], start: Expr = 0) -> None:
    """Walk `size` elements in vectors of `lanes` and the remainder one by one.

    Args:
        size: number of elements.
        lanes: elements in a vector.
        body: called with the offset and with how many elements to process there.
        start: offset of the first element.
    """
    whole = size // lanes
    if whole:
        with serial(whole) as i:
            body(start + i * lanes, lanes)
    if size % lanes:
        with serial(size % lanes) as i:
            body(start + whole * lanes + i, 1)
