"""Runs a CUDA kernel's TIR in NumPy: every thread of every block in lockstep.

It is how a machine without a GPU finds wrong index arithmetic: kernels are run on small shapes and
compared bit for bit with `numerics`. Beyond the results it refuses what a GPU would let pass:

* an index outside of a buffer, and a warp-wide instruction that not all lanes reach;
* a race: two threads touch a byte of shared memory, one of them writes, and no barrier is between;
* a loop or a barrier that is not the same for all threads;
* an activation that is read, or a result that is written, before `await_inputs`.

What was never written is noise, not zero: registers, shared memory, the output, and what an
asynchronous copy brings before `wait`.

A statement becomes a Python function of the active threads' mask (None: all of them) once, so that
a loop's body is translated once. Expressions are arrays (threads,) or scalars that all share.
"""

from collections.abc import Callable, Collection, Sequence
from math import prod
from typing import Any

import numpy as np

from vitq.compiler.kernels.cuda.emit import BYTES
from vitq.compiler.kernels.cuda.emulator.expressions import Expressions, Mask, Value
from vitq.compiler.kernels.cuda.emulator.memory import (
    EmulationError,
    GlobalMemory,
    LocalMemory,
    Memory,
    Pointer,
    SharedMemory,
)
from vitq.compiler.kernels.cuda.emulator.threads import Instructions
from vitq.compiler.kernels.cuda.intrinsics import CALL
from vitq.numerics.arrays import IntArray

Run = Callable[[Mask], None]
AXES = ("blockIdx.x", "blockIdx.y", "blockIdx.z", "threadIdx.x")


def run_kernel(
    func: Any, inputs: Sequence[IntArray], out: IntArray, constants: Collection[int] = ()
) -> IntArray:
    """Run one kernel.

    Args:
        func: a PrimFunc of `compiler.kernels.cuda`.
        inputs: one array for each of its arguments but the last.
        out: an array of the output's shape and type; its content is not used.
        constants: indices of inputs that no kernel writes.

    Returns:
        The output.

    Raises:
        EmulationError: what no kernel may do, see above.
    """
    return _Emulator(func).run(list(inputs), out, constants)


class _Emulator:
    """One launch."""

    def __init__(self, func: Any) -> None:
        self.params = list(func.params)
        extents, self.axes, self.body = _grid(func.body)
        self.threads_per_block = extents["threadIdx.x"]
        self.blocks = prod(extents.values()) // self.threads_per_block
        self.threads = self.blocks * self.threads_per_block
        grid = np.indices([extents[axis] for axis in reversed(AXES[:3])]).reshape(3, -1)
        places = dict(zip(reversed(AXES[:3]), grid, strict=True))
        self.places = {
            axis: np.repeat(place, self.threads_per_block) for axis, place in places.items()
        }
        self.places["threadIdx.x"] = np.tile(np.arange(self.threads_per_block), self.blocks)

    def run(self, inputs: list[IntArray], out: IntArray, constants: Collection[int]) -> IntArray:
        """See `run_kernel`."""
        tensors: list[GlobalMemory] = []
        for i, (param, array) in enumerate(zip(self.params, [*inputs, None], strict=True)):
            shape = tuple(int(extent) for extent in param.shape)
            size = prod(shape) * BYTES[str(param.ty.dtype)]
            if array is not None and (
                array.shape != shape or str(array.dtype) != str(param.ty.dtype)
            ):
                raise EmulationError(f"{param.name} must be {param.ty.dtype} {shape}")
            tensors.append(GlobalMemory(param.name, array, size, i not in constants))
        memories: dict[int, Memory] = {
            hash(param): tensor for param, tensor in zip(self.params, tensors, strict=True)
        }
        values = {hash(var): self.places[axis] for var, axis in self.axes}
        owner = np.arange(self.threads)
        expressions = Expressions(self.threads, self.threads_per_block, owner, memories, values)
        machine = _Statements(expressions)
        with np.errstate(over="ignore"):
            machine.statement(self.body)(None)
        if tensors[-1].awaited:
            raise EmulationError("the kernel does not wait for those in front of it")
        target = tensors[-1].data[0]
        result: IntArray = np.frombuffer(target.tobytes(), out.dtype).reshape(out.shape)
        return result


def _grid(body: Any) -> tuple[dict[str, int], list[tuple[Any, str]], Any]:
    """Extents, index variables, and what is inside of the launch."""
    extents, axes = {}, []
    while type(body).__name__ == "AttrStmt":
        tag = str(body.node.thread_tag)
        extents[tag] = int(body.value)
        axes.append((body.node.var, tag))
        body = body.body
    return extents, axes, body


class _Statements:
    """Translates statements."""

    def __init__(self, expressions: Expressions) -> None:
        self.expr = expressions
        self.instructions = Instructions(expressions)
        expressions.instruction = self.instructions.run

    def statement(self, node: Any) -> Run:
        """Return the function of one statement."""
        kind = type(node).__name__
        translate = getattr(self, f"_{kind.lower()}", None)
        if translate is None:
            raise EmulationError(f"the emulator does not know the statement {kind}")
        run: Run = translate(node)
        return run

    def _seqstmt(self, node: Any) -> Run:
        steps = [self.statement(step) for step in node.seq]

        def run(mask: Mask) -> None:
            for step in steps:
                step(mask)

        return run

    def _allocbuffer(self, node: Any) -> Run:
        buffer = node.buffer
        size = prod(int(e) for e in buffer.shape) * BYTES[str(buffer.ty.dtype)]
        expr, key = self.expr, hash(buffer)
        if str(buffer.scope()) == "local":
            expr.memories[key] = LocalMemory(buffer.name, expr.threads, size)
        else:
            blocks = expr.threads // expr.per_block
            expr.memories[key] = SharedMemory(buffer.name, blocks, size)
        return lambda mask: None

    def _declbuffer(self, node: Any) -> Run:
        self.expr.memories[hash(node.buffer)] = self.expr.memories[hash(node.data.args[0])]
        return lambda mask: None

    def _bind(self, node: Any) -> Run:
        value, key = self.expr.translate(node.value), hash(node.var)

        def run(mask: Mask) -> None:
            self.expr.values[key] = value(mask)

        return run

    def _bufferstore(self, node: Any) -> Run:
        value = self.expr.translate(node.value)
        target = self.expr.pointer(node.buffer, node.indices)
        dtype = str(node.buffer.ty.dtype)

        def run(mask: Mask) -> None:
            self.expr.store(target(mask), value(mask), dtype, mask)

        return run

    def _ifthenelse(self, node: Any) -> Run:
        condition, then = self.expr.translate(node.condition), self.statement(node.then_case)
        if node.else_case is not None:
            raise EmulationError("the emulator knows no else")

        def run(mask: Mask) -> None:
            where = condition(mask)
            where = np.broadcast_to(np.asarray(where, bool), (self.expr.threads,))
            where = where if mask is None else where & mask
            if where.all():
                then(None)
            elif where.any():
                then(where)

        return run

    def _for(self, node: Any) -> Run:
        first, extent = self.expr.translate(node.min), self.expr.translate(node.extent)
        body, key = self.statement(node.body), hash(node.loop_var)

        def run(mask: Mask) -> None:
            start, turns = (self.expr.uniform(v(mask), mask, "a loop") for v in (first, extent))
            for i in range(start, start + turns):
                self.expr.values[key] = i
                body(mask)

        return run

    def _evaluate(self, node: Any) -> Run:
        call = node.value
        if type(call).__name__ != "Call":
            return lambda mask: None
        if call.op.name == "tirx.tvm_storage_sync":
            return self._barrier
        if call.op.name != CALL:
            raise EmulationError(f"the emulator does not know {call.op.name}")
        name = str(call.args[0].value)
        args = [self.expr.translate(arg) for arg in call.args[1:-1]]

        def run(mask: Mask) -> None:
            self.instructions.run(name, [arg(mask) for arg in args], mask)

        return run

    def _barrier(self, mask: Mask) -> None:
        if mask is not None:
            raise EmulationError("a barrier that not all threads reach")
        for memory in self.expr.memories.values():
            if isinstance(memory, SharedMemory):
                memory.barrier()


__all__ = ["EmulationError", "Pointer", "Value", "run_kernel"]
