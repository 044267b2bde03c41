"""Expressions of TIR as text of Python; see `compiler.kernels.cpu.emulator.emulator`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm.target.codegen import llvm_get_intrinsic_name

from vitq.compiler.kernels.cpu.emulator.instructions import instruction
from vitq.compiler.kernels.cpu.emulator.machine import outside
from vitq.compiler.kernels.emulation import EmulationError

INFIX = {
    "Add": "+", "Sub": "-", "Mul": "*", "FloorDiv": "//", "FloorMod": "%", "LT": "<", "LE": "<=",
    "GT": ">", "GE": ">=", "EQ": "==", "NE": "!=", "BitwiseAnd": "&", "BitwiseOr": "|",
    "BitwiseXor": "^",
}  # fmt: skip
EITHER = {"Min": ("min", "minimum"), "Max": ("max", "maximum"), "And": ("all", "logical_and")}
EITHER["Or"] = ("any", "logical_or")


def type_of(node: Any) -> tuple[str, int]:
    """Element type and lanes of an expression."""
    dtype, _, lanes = str(node.ty.dtype).partition("x")
    return dtype, int(lanes or 1)


def kind(node: Any) -> str:
    """Return the class of a node."""
    return type(node).__name__


class Names:
    """Names of variables and buffers, and values that the text refers to.

    Attributes:
        constants: by name: arrays, scalars of NumPy, instructions.
        parted: buffers of which a part is read or written; all others are variables.
    """

    def __init__(self) -> None:
        self.constants: dict[str, Any] = {}
        self.parted: set[int] = set()
        self._known: dict[int, str] = {}
        self._number = 0

    def fresh(self, prefix: str) -> str:
        """Make a name that nothing has."""
        self._number += 1
        return f"{prefix}{self._number}"

    def of(self, node: Any, prefix: str = "v") -> str:
        """Return the name of a variable or buffer."""
        if hash(node) not in self._known:
            self._known[hash(node)] = self.fresh(prefix)
        return self._known[hash(node)]

    def keep(self, value: Any) -> str:
        """Return a constant's name."""
        name = self.fresh("k")
        self.constants[name] = value
        return name

    def is_variable(self, buffer: Any) -> bool:
        """Whether a buffer is read and written as a whole."""
        return hash(buffer) not in self.parted


def extents_of(buffer: Any) -> tuple[int, ...]:
    """Read a buffer's shape."""
    return tuple(int(extent) for extent in buffer.shape)


def is_whole(buffer: Any, indices: Sequence[Any]) -> bool:
    """Whether an access takes all of a buffer, by constant indices."""
    if len(indices) != 1:
        return False
    (index,), (extent,) = indices, extents_of(buffer)
    if kind(index) == "Ramp":
        first, stride = index.base, index.stride
        steady = kind(first) == kind(stride) == "IntImm" and int(stride) == 1
        return steady and int(first) == 0 and int(index.lanes) == extent
    return extent == 1 and kind(index) == "IntImm" and int(index) == 0


class Expressions:
    """Translates expressions.

    Args:
        names: of what they refer to.
    """

    def __init__(self, names: Names) -> None:
        self.names = names

    def text(self, node: Any) -> str:
        """Return the text of one expression."""
        name = kind(node)
        if name in INFIX:
            return f"({self.text(node.a)} {INFIX[name]} {self.text(node.b)})"
        if name in EITHER:
            return self._either(node, *EITHER[name])
        translate = getattr(self, f"_{name.lower()}", None)
        if translate is None:
            raise EmulationError(f"the emulator does not know the expression {name}")
        text: str = translate(node)
        return text

    def _either(self, node: Any, scalar: str, vector: str) -> str:
        a, b = self.text(node.a), self.text(node.b)
        if type_of(node)[1] > 1:
            return f"np.{vector}({a}, {b})"
        return f"{scalar}(({a}, {b}))"

    def _div(self, node: Any) -> str:
        return f"truncated_quotient({self.text(node.a)}, {self.text(node.b)})"

    def _mod(self, node: Any) -> str:
        return f"truncated_rest({self.text(node.a)}, {self.text(node.b)})"

    def _not(self, node: Any) -> str:
        return f"np.logical_not({self.text(node.a)})"

    def _intimm(self, node: Any) -> str:
        dtype, value = type_of(node)[0], int(node.value)
        if dtype == "bool":
            return str(bool(value))
        return str(value) if dtype == "int32" else self.names.keep(np.dtype(dtype).type(value))

    def _var(self, node: Any) -> str:
        return self.names.of(node)

    def _cast(self, node: Any) -> str:
        dtype, lanes = type_of(node)
        value = self.text(node.value)
        return f"{value}.astype({dtype!r})" if lanes > 1 else f"cast({value}, {dtype!r})"

    def _select(self, node: Any) -> str:
        parts = (node.condition, node.true_value, node.false_value)
        condition, yes, no = (self.text(part) for part in parts)
        if type_of(node)[1] > 1:
            return f"np.where({condition}, {yes}, {no})"
        return f"({yes} if {condition} else {no})"

    def _broadcast(self, node: Any) -> str:
        dtype, lanes = type_of(node)
        if kind(node.value) == "IntImm":
            return self.names.keep(np.full(lanes, int(node.value.value), dtype))
        return f"np.full({lanes}, {self.text(node.value)}, {dtype!r})"

    def _ramp(self, node: Any) -> str:
        dtype, lanes = type_of(node)
        steps = self.names.keep(np.arange(lanes, dtype=dtype))
        return f"({self.text(node.base)} + {steps} * {self.text(node.stride)})"

    def _shuffle(self, node: Any) -> str:
        order = [int(index) for index in node.indices]
        vectors = [self.text(vector) for vector in node.vectors]
        value = vectors[0]
        if len(vectors) > 1:
            value = f"np.concatenate([{', '.join(vectors)}])"
        if len(order) == 1:
            return f"{value}[{order[0]}]"
        first, last = order[0], order[-1]
        if order == list(range(first, last + 1)):
            total = sum(type_of(vector)[1] for vector in node.vectors)
            return value if len(order) == total else f"{value}[{first}:{last + 1}]"
        return f"{value}[{self.names.keep(np.array(order))}]"

    def _tensorload(self, node: Any) -> str:
        return self.access(node.source, node.indices, type_of(node)[1])

    def _call(self, node: Any) -> str:
        name = str(node.op.name)
        translate = getattr(self, f"_call_{name.rpartition('.')[2]}", None)
        if translate is None:
            raise EmulationError(f"the emulator does not know {name}")
        text: str = translate(node)
        return text

    def _lshift(self, node: Any) -> str:
        return self._shift(node, "left")

    def _rshift(self, node: Any) -> str:
        return self._shift(node, "right")

    def _shift(self, node: Any, way: str) -> str:
        value, by = node.a, node.b
        bits = 8 * np.dtype(type_of(node)[0]).itemsize
        constant = by.value if kind(by) == "Broadcast" else by
        if kind(constant) == "IntImm" and 0 <= int(constant.value) < bits:
            return f"({self.text(value)} {'<<' if way == 'left' else '>>'} {self.text(by)})"
        return f"shift_{way}({self.text(value)}, {self.text(by)}, {bits})"

    def _call_reinterpret(self, node: Any) -> str:
        (value,) = node.args
        (before, lanes), (after, more) = type_of(value), type_of(node)
        text = self.text(value)
        if lanes > 1 and more > 1:
            return f"{text}.view({after!r})"
        return f"reinterpret({text}, {before!r}, {after!r}, {more})"

    def _call_clz(self, node: Any) -> str:
        (value,) = node.args
        return f"leading_zeros({self.text(value)}, {8 * np.dtype(type_of(value)[0]).itemsize})"

    def _call_abs(self, node: Any) -> str:
        return f"np.abs({self.text(node.args[0])})"

    def _call_likely(self, node: Any) -> str:
        return self.text(node.args[0])

    def _call_call_llvm_pure_intrin(self, node: Any) -> str:
        identifier, *args = node.args
        name = str(llvm_get_intrinsic_name(int(identifier)))
        function = self.names.keep(instruction(name))
        return f"{function}({', '.join(self.text(arg) for arg in args)})"

    def access(self, buffer: Any, indices: Sequence[Any], lanes: int) -> str:
        """Return the elements of an access, to be read or to be assigned to."""
        if not is_whole(buffer, indices):
            self.names.parted.add(hash(buffer))
        name = self.names.of(buffer, "b")
        if self.names.is_variable(buffer):
            return name
        *outer, last = indices
        if kind(last) != "Ramp" and lanes > 1:
            return self._gather(buffer, outer, last)
        if kind(last) == "Ramp" and int(last.stride) != 1:
            return self._gather(buffer, outer, last)
        place = self._place(buffer, [*outer, getattr(last, "base", last)], lanes)
        if lanes == 1:
            return f"{name}[{place}]"
        if place.isdecimal():
            return f"{name}[{place}:{int(place) + lanes}]"
        start = self.names.fresh("t")
        return f"{name}[({start} := {place}) : {start} + {lanes}]"

    def _place(self, buffer: Any, indices: Sequence[Any], lanes: int) -> str:
        """Where an access begins in the flat memory, checked in every dimension."""
        extents = extents_of(buffer)
        if all(kind(index) == "IntImm" for index in indices):
            return str(self._constant_place(buffer, [int(i) for i in indices], lanes))
        texts, names, tests = [self.text(index) for index in indices], [], []
        for axis, (text, extent) in enumerate(zip(texts, extents, strict=True)):
            last = extent - (lanes if axis == len(extents) - 1 else 1)
            name = self.names.fresh("t")
            names.append(name)
            tests.append(f"(0 <= ({name} := {text}) <= {last})")
        place = names[0]
        for name, extent in zip(names[1:], extents[1:], strict=True):
            place = f"({place}) * {extent} + {name}"
        fault = f"outside({buffer.name!r}, {extents}, {lanes}, {', '.join(names)})"
        # All indices are assigned before one is found to be outside.
        return f"(int({place}) if {' & '.join(tests)} else {fault})"

    def _constant_place(self, buffer: Any, indices: list[int], lanes: int) -> int:
        place, extents = 0, extents_of(buffer)
        for axis, (index, extent) in enumerate(zip(indices, extents, strict=True)):
            if not 0 <= index <= extent - (lanes if axis == len(extents) - 1 else 1):
                outside(str(buffer.name), extents, lanes, *indices)
            place = place * extent + index
        return place

    def _gather(self, buffer: Any, outer: Sequence[Any], last: Any) -> str:
        """Elements whose last index is a vector."""
        if outer:
            raise EmulationError(f"{buffer.name}: the emulator gathers from one dimension only")
        return f"gathered({self.names.of(buffer, 'b')}, {self.text(last)}, {buffer.name!r})"
