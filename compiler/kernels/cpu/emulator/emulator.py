"""Runs a processor's kernel in NumPy: its TIR becomes one Python function.

It is how a machine without AVX512-VNNI checks the kernels that use it, and how any x86 checks ARM's
without an emulator of processors: the same integers as `numerics`, from the very instructions that
a kernel names (`compiler.kernels.cpu.emulator.instructions`). Beyond the results it refuses

* an index outside of a buffer, in any dimension, scalar or vector;
* a shift by as many bits as the type has, or more, which each processor does differently;
* an instruction, an expression or a statement that it does not know: nothing is left out.

What was never written is noise: scratch memory and the output. Iterations of a parallel loop come
in any order. What LLVM makes of the TIR is not seen: that is for machines that have the
instructions.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitq.compiler.kernels.cpu.emulator import machine
from vitq.compiler.kernels.cpu.emulator.expressions import (
    Expressions,
    Names,
    extents_of,
    kind,
    type_of,
)
from vitq.compiler.kernels.emulation import EmulationError
from vitq.numerics.arrays import IntArray

INDENT = "    "
LOOPS = {0: "range({start}, {start} + {extent})", 1: "any_order({start}, {extent})"}
"""By TVM's kinds: serial, parallel."""
UNROLLED = 3
IGNORED_ATTRIBUTES = ("pragma_parallel_launch_point", "pragma_parallel_barrier_when_finish")
HELPERS = (
    "cast", "gathered", "leading_zeros", "outside", "reinterpret", "shift_left", "shift_right",
    "truncated_quotient", "truncated_rest",
)  # fmt: skip


def run_kernel(func: Any, inputs: Sequence[IntArray], out: IntArray) -> IntArray:
    """Run one kernel.

    Args:
        func: a PrimFunc of `compiler.kernels.cpu`.
        inputs: one array for each of its arguments but the last.
        out: an array of the output's shape and type; its content is not used.

    Returns:
        The output.

    Raises:
        EmulationError: what no kernel may do, see above.
    """
    for param, array in zip(func.params, [*inputs, out], strict=True):
        if array.shape != extents_of(param) or (str(array.dtype), 1) != type_of(param):
            raise EmulationError(f"{param.name} must be {param.ty.dtype} {extents_of(param)}")
    memory = machine.Memory()
    result = memory.noise(out.size, str(out.dtype))
    arguments = [np.ascontiguousarray(array).reshape(-1) for array in inputs]
    with np.errstate(over="ignore"):
        translated(func)(memory, *arguments, result)
    return result.reshape(out.shape)


@functools.cache
def translated(func: Any) -> Any:
    """Return the Python function of a PrimFunc: memory, then one flat array for each argument."""
    names = Names()
    for param in func.params:
        names.parted.add(hash(param))
    while True:  # again when an access shows that a buffer is no variable
        known = len(names.parted)
        text = _Statements(names).function(func)
        if len(names.parted) == known:
            break
    scope = {name: getattr(machine, name) for name in HELPERS}
    scope |= {"np": np, **names.constants}
    exec(compile(text, f"<emulated {func.attrs['global_symbol']}>", "exec"), scope)
    return scope["kernel"]


class _Statements:
    """Translates statements to lines."""

    def __init__(self, names: Names) -> None:
        self.names, self.expr = names, Expressions(names)
        self.lines: list[str] = []
        self.depth = 1

    def function(self, func: Any) -> str:
        """Return the text of a function called ``kernel``."""
        params = ", ".join(self.names.of(param, "b") for param in func.params)
        self.lines = [f"def kernel(memory, {params}):"]
        self._say("noise, any_order = memory.noise, memory.any_order")
        self.statement(func.body)
        return "\n".join(self.lines) + "\n"

    def statement(self, node: Any) -> None:
        """Append the lines of one statement."""
        translate = getattr(self, f"_{kind(node).lower()}", None)
        if translate is None:
            raise EmulationError(f"the emulator does not know the statement {kind(node)}")
        translate(node)

    def _say(self, line: str) -> None:
        self.lines.append(INDENT * self.depth + line)

    def _inside(self, head: str, body: Any) -> None:
        self._say(head)
        self.depth += 1
        before = len(self.lines)
        self.statement(body)
        if len(self.lines) == before:
            self._say("pass")
        self.depth -= 1

    def _seqstmt(self, node: Any) -> None:
        for step in node.seq:
            self.statement(step)

    def _allocbuffer(self, node: Any) -> None:
        buffer = node.buffer
        name, size = self.names.of(buffer, "b"), int(np.prod(extents_of(buffer)))
        if self.names.is_variable(buffer):
            self._say(f"{name} = None")
        else:
            self._say(f"{name} = noise({size}, {type_of(buffer)[0]!r})")

    def _declbuffer(self, node: Any) -> None:
        source, buffer = node.data.args[0], node.buffer
        self.names.parted |= {hash(source), hash(buffer)}
        name, memory = self.names.of(buffer, "b"), self.names.of(source, "b")
        self._say(f"{name} = {memory}.view({type_of(buffer)[0]!r})")

    def _bind(self, node: Any) -> None:
        self._say(f"{self.names.of(node.var)} = {self._value(node.value)}")

    def _value(self, node: Any) -> str:
        """Write an expression's text; what could be a view of memory is copied."""
        text = self.expr.text(node)
        is_view = kind(node) in ("TensorLoad", "Shuffle", "Call") and type_of(node)[1] > 1
        return f"{text}.copy()" if is_view else text

    def _bufferstore(self, node: Any) -> None:
        lanes = type_of(node.value)[1]
        if kind(node.indices[-1]) == "Ramp" and int(node.indices[-1].stride) != 1:
            raise EmulationError(f"{node.buffer.name}: the emulator does not scatter")
        value = self._value(node.value)
        self._say(f"{self.expr.access(node.buffer, node.indices, lanes)} = {value}")

    def _ifthenelse(self, node: Any) -> None:
        self._inside(f"if {self.expr.text(node.condition)}:", node.then_case)
        if node.else_case is not None:
            self._inside("else:", node.else_case)

    def _for(self, node: Any) -> None:
        way = 0 if int(node.kind) == UNROLLED else int(node.kind)
        if way not in LOOPS:
            raise EmulationError(f"the emulator does not know loops of kind {node.kind}")
        start, extent = self.expr.text(node.min), self.expr.text(node.extent)
        loop = LOOPS[way].format(start=start, extent=extent)
        self._inside(f"for {self.names.of(node.loop_var)} in {loop}:", node.body)

    def _attrstmt(self, node: Any) -> None:
        if node.attr_key not in IGNORED_ATTRIBUTES:
            raise EmulationError(f"the emulator does not know the attribute {node.attr_key}")
        self.statement(node.body)

    def _evaluate(self, node: Any) -> None:
        call = node.value
        if kind(call) == "Call" and str(call.op.name) == "tirx.prefetch":
            (address, *_) = call.args
            load = address.args[0]
            self._say(self.expr.access(load.source, load.indices, 1))
        elif kind(call) != "IntImm":
            raise EmulationError(f"the emulator does not evaluate {call}")
