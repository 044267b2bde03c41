"""Expressions of the emulated GPU; see `compiler.kernels.cuda.emulator.emulator`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vitq.compiler.kernels.cuda.emit import BYTES
from vitq.compiler.kernels.cuda.emulator.memory import (
    EmulationError,
    LocalMemory,
    Memory,
    Pointer,
    Watched,
)
from vitq.compiler.kernels.cuda.intrinsics import CALL
from vitq.numerics.arrays import IntArray

Value = Any
Mask = IntArray | None
Evaluate = Callable[[Mask], Value]

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "FloorDiv": np.floor_divide,
    "FloorMod": np.mod,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
    "LShift": np.left_shift,
    "RShift": np.right_shift,
    "Min": np.minimum,
    "Max": np.maximum,
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
    "EQ": np.equal,
    "NE": np.not_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
}


class Expressions:
    """Translates expressions to functions of the mask.

    Args:
        threads: of all blocks.
        per_block: threads of one.
        owner: (threads,) each thread's number.
        memories: by buffer.
        values: by variable.
    """

    def __init__(
        self,
        threads: int,
        per_block: int,
        owner: IntArray,
        memories: dict[int, Memory],
        values: dict[int, Value],
    ) -> None:
        self.threads, self.per_block, self.owner = threads, per_block, owner
        self.memories, self.values = memories, values
        self.instruction: Callable[[str, list[Value], Mask], Value] = _unknown

    def translate(self, node: Any) -> Evaluate:
        """Return the function of one expression."""
        kind = type(node).__name__
        if kind in _BINARY:
            return self._binary(node, _BINARY[kind])
        translate = getattr(self, f"_{kind.lower()}", None)
        if translate is None:
            raise EmulationError(f"the emulator does not know the expression {kind}")
        evaluate: Evaluate = translate(node)
        return evaluate

    def _binary(self, node: Any, operation: Callable[[Any, Any], Any]) -> Evaluate:
        a, b, dtype = self.translate(node.a), self.translate(node.b), str(node.ty.dtype)
        if dtype == "bool":
            return lambda mask: operation(a(mask), b(mask))
        kind = np.dtype(dtype).type
        return lambda mask: kind_of(operation(a(mask), b(mask)), kind)

    def _div(self, node: Any) -> Evaluate:
        return self._truncated(node, lambda x, y: np.abs(x) // np.abs(y), of_quotient=True)

    def _mod(self, node: Any) -> Evaluate:
        return self._truncated(node, lambda x, y: np.abs(x) % np.abs(y), of_quotient=False)

    def _truncated(self, node: Any, operation: Any, of_quotient: bool) -> Evaluate:
        a, b, kind = self.translate(node.a), self.translate(node.b), np.dtype(str(node.ty.dtype))

        def run(mask: Mask) -> Value:
            x, y = np.asarray(a(mask)), np.asarray(b(mask))
            if mask is not None:
                y = np.where(mask, y, 1)
            negative = (x < 0) ^ (y < 0) if of_quotient else x < 0
            size = operation(x, y)
            return np.where(negative, -size, size).astype(kind)

        return run

    def _intimm(self, node: Any) -> Evaluate:
        dtype = str(node.ty.dtype)
        value = bool(node.value) if dtype == "bool" else np.dtype(dtype).type(int(node.value))
        return lambda mask: value

    def _var(self, node: Any) -> Evaluate:
        key, kind = hash(node), np.dtype(str(node.ty.dtype)).type
        return lambda mask: kind_of(self.values[key], kind)

    def _cast(self, node: Any) -> Evaluate:
        value, kind = self.translate(node.value), np.dtype(str(node.ty.dtype)).type
        return lambda mask: kind_of(value(mask), kind)

    def _select(self, node: Any) -> Evaluate:
        condition, yes, no = (
            self.translate(n) for n in (node.condition, node.true_value, node.false_value)
        )
        return lambda mask: np.where(condition(mask), yes(mask), no(mask))

    def _not(self, node: Any) -> Evaluate:
        value = self.translate(node.a)
        return lambda mask: np.logical_not(value(mask))

    def _tensorload(self, node: Any) -> Evaluate:
        source, dtype = self.pointer(node.source, node.indices), str(node.source.ty.dtype)
        lanes = lanes_of(node.indices[-1])
        return lambda mask: self.load(source(mask), dtype, lanes, mask)

    def _call(self, node: Any) -> Evaluate:
        name = node.op.name
        if name == "tirx.address_of":
            load = node.args[0]
            return self.pointer(load.source, load.indices)
        if name == CALL:
            function = str(node.args[0].value)
            args = [self.translate(arg) for arg in node.args[1:-1]]
            return lambda mask: self.instruction(function, [arg(mask) for arg in args], mask)
        raise EmulationError(f"the emulator does not know {name}")

    def pointer(self, buffer: Any, indices: Sequence[Any]) -> Evaluate:
        """Where an element lies; `Pointer` for all threads."""
        shape = [int(extent) for extent in buffer.shape]
        parts = [self.translate(getattr(i, "base", i)) for i in indices]
        size, key, name = BYTES[str(buffer.ty.dtype)], hash(buffer), buffer.name

        def run(mask: Mask) -> Pointer:
            place = np.zeros(self.threads, np.int64)
            for part, extent in zip(parts, shape, strict=True):
                at = np.broadcast_to(np.asarray(part(mask), np.int64), (self.threads,))
                inside = (at >= 0) & (at < extent)
                if not (inside if mask is None else inside | ~mask).all():
                    raise EmulationError(f"{name}: an index outside of its {extent} elements")
                place = place * extent + at
            return Pointer(self.memories[key], place * size)

        return run

    def rows(self, memory: Memory) -> IntArray:
        """Which row of a memory each thread uses."""
        if isinstance(memory, LocalMemory):
            return self.owner
        rows: IntArray = self.owner // self.per_block * (memory.data.shape[0] > 1)
        return rows

    def load(self, source: Pointer, dtype: str, lanes: int, mask: Mask) -> Value:
        """Elements of the active threads; noise elsewhere: (threads,) or (threads, lanes)."""
        memory, active = source.memory, _active(mask, self.threads)
        rows, offset = self.rows(memory)[active], source.offset[active]
        count = BYTES[dtype] * lanes
        found = memory.load(rows, offset, count)
        if isinstance(memory, Watched):
            memory.note_read(rows, offset[:, None] + np.arange(count), self.owner[active])
        values = found.view(dtype)
        result = np.zeros((self.threads, lanes), values.dtype)
        result[active] = values
        return result[:, 0] if lanes == 1 else result

    def store(self, target: Pointer, value: Value, dtype: str, mask: Mask) -> None:
        """Write the active threads' elements."""
        memory, active = target.memory, _active(mask, self.threads)
        values = np.asarray(value, dtype)
        lanes = values.shape[1] if values.ndim == 2 else 1
        values = np.broadcast_to(values.reshape(-1, lanes), (self.threads, lanes))[active]
        raw = np.ascontiguousarray(values).view(np.uint8).reshape(len(active), -1)
        rows, offset = self.rows(memory)[active], target.offset[active]
        memory.store(rows, offset, raw)
        if isinstance(memory, Watched):
            at = offset[:, None] + np.arange(raw.shape[1])
            memory.note_write(rows, at, self.owner[active])

    def uniform(self, value: Value, mask: Mask, what: str) -> int:
        """Return the one value that all active threads have."""
        values = np.broadcast_to(np.asarray(value), (self.threads,))[_active(mask, self.threads)]
        if values.min() != values.max():
            raise EmulationError(f"{what} is not the same for all threads")
        return int(values[0])


def _unknown(name: str, args: list[Value], mask: Mask) -> Value:
    raise EmulationError(f"the emulator does not know {name}")


def _active(mask: Mask, threads: int) -> IntArray:
    active: IntArray = np.arange(threads) if mask is None else np.nonzero(mask)[0]
    return active


def lanes_of(index: Any) -> int:
    """Elements of an access."""
    return int(index.lanes) if type(index).__name__ == "Ramp" else 1


def kind_of(value: Value, kind: Any) -> Value:
    """Wrap a value into an integer type, as the machine does it."""
    if isinstance(value, np.ndarray):
        return value if value.dtype.type is kind else value.astype(kind)
    return np.asarray(value).astype(kind)[()]
