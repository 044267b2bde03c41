"""A static plan: which kernel runs when, and where every tensor lies.

    x = call_tir(@layernorm_0, (a, c))        step 0: a @ 0, c in the constants, x @ 75648
    y = reshape(x)                            no step: another name for x's bytes
    z = call_tir(@linear_0, (y, w, addend))   step 1: ...

Tensors that are alive at the same time do not overlap in the arena; the largest are placed first,
each at the lowest free offset. The kernels' own workspace is bounded by the sum of
what a kernel allocates, which holds however its scopes are nested.
"""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import tvm_ffi
from tvm import IRModule, relax
from tvm.tirx import AllocBuffer, PrimFunc

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError
from vitq.relay_passes.expressions import (
    MAIN,
    Expr,
    bindings_of,
    dtype_of,
    is_constant,
    op_name,
    shape_of,
)

ALIGNMENT = 64
STACK_LIMIT = 1024
"""Below so many bytes TVM keeps an allocation on the machine's stack (kMaxStackAlloca)."""
ALIASES = ("relax.reshape",)


@dataclass
class Block:
    """Bytes in the arena for one result.

    Attributes:
        size: in bytes, aligned.
        first: step that writes it; -1 for the input.
        last: last step that reads it.
        offset: in the arena, once it is placed.
    """

    size: int
    first: int
    last: int
    offset: int = 0

    def meets(self, other: "Block") -> bool:
        """Whether both are alive at some time."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Tensor:
    """An operand of a step.

    Attributes:
        shape: of the operand.
        dtype: of its elements.
        block: where it lies in the arena; None for a constant.
        constant: offset in the constants.
    """

    shape: tuple[int, ...]
    dtype: str
    block: Block | None
    constant: int = 0

    @property
    def offset(self) -> int:
        """Place of the first byte, in the arena or the constants."""
        return self.constant if self.block is None else self.block.offset

    @property
    def size_bytes(self) -> int:
        """Size of all elements."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Step:
    """One call of a kernel.

    Attributes:
        kernel: its name in the module.
        operands: inputs, then the output.
    """

    kernel: str
    operands: tuple[Tensor, ...]


@dataclass
class StaticPlan:
    """All that an inference does.

    Attributes:
        steps: in order.
        input: the picture.
        outputs: the integers of each result, in order.
        constants: all weights, each once.
        arena_bytes: of results between steps.
        workspace_bytes: of one thread.
        least_bytes: that any plan would need: the most that is alive in one step.
    """

    steps: list[Step] = field(default_factory=list)
    input: Tensor | None = None
    outputs: list[Tensor] = field(default_factory=list)
    constants: bytearray = field(default_factory=bytearray)
    arena_bytes: int = 0
    workspace_bytes: int = 0
    least_bytes: int = 0


def legalize_layout(lowered: IRModule) -> IRModule:
    """Make kernels of the layout operators that move data; reshapes stay, as they move none."""
    return relax.transform.LegalizeOps(skip_ops=list(ALIASES))(lowered)


def plan_memory(module: IRModule) -> StaticPlan:
    """Plan ``main``.

    Args:
        module: from `legalize_layout`.

    Returns:
        The plan.

    Raises:
        VitqError: a call that is neither a kernel nor an alias.
    """
    planner = _Planner()
    main = module[MAIN]
    (pixels,) = main.params
    planner.tensors[pixels] = planner.plan.input = planner.result(pixels, -1)
    for binding in bindings_of(main):
        planner.bind(binding.var, binding.value)
    planner.plan.outputs = planner.results(main.body.body)
    plan = planner.plan
    plan.arena_bytes = place(planner.blocks)
    plan.least_bytes = max(
        sum(block.size for block in planner.blocks if block.first <= step <= block.last)
        for step in range(-1, len(plan.steps) + 1)
    )
    used = {step.kernel for step in plan.steps}
    plan.workspace_bytes = max(workspace_of(module[name]) for name in used)
    return plan


class _Planner:
    """Walks the bindings of ``main``."""

    def __init__(self) -> None:
        self.plan = StaticPlan()
        self.blocks: list[Block] = []
        self.tensors: dict[Expr, Tensor] = {}
        self.tuples: dict[Expr, list[Expr]] = {}
        self.known: dict[bytes, int] = {}

    def results(self, expr: Expr) -> list[Tensor]:
        """Keep what ``main`` returns to its end."""
        fields = self.tuples.get(expr) or (
            list(expr.fields) if isinstance(expr, relax.Tuple) else [expr]
        )
        found = [self.operand(each) for each in fields]
        for tensor in found:
            if tensor.block is not None:
                tensor.block.last = len(self.plan.steps)
        return found

    def bind(self, var: Expr, value: Expr) -> None:
        """Add the step of one binding, if it needs one."""
        name = op_name(value)
        if name == "relax.call_tir":
            operands = tuple(self.operand(operand) for operand in value.args[1].fields)
            result = self.result(var, len(self.plan.steps))
            self.plan.steps.append(Step(str(value.args[0].name_hint), (*operands, result)))
            self.tensors[var] = result
        elif name in ALIASES:
            whole = self.operand(value.args[0])
            self.tensors[var] = Tensor(shape_of(var), dtype_of(var), whole.block, whole.constant)
        elif isinstance(value, relax.Tuple):
            self.tuples[var] = list(value.fields)
        elif not name and value in self.tuples:
            self.tuples[var] = self.tuples[value]
        elif not name and value in self.tensors:
            self.tensors[var] = self.tensors[value]
        else:
            raise VitqError(f"the static flavour has no plan for {name or value}: deploy vm")

    def operand(self, expr: Expr) -> Tensor:
        """Plan a tensor that the next step reads."""
        if is_constant(expr):
            array = np.ascontiguousarray(expr.value.numpy())
            return Tensor(shape_of(expr), str(array.dtype), None, self._store(array))
        tensor = self.tensors[expr]
        if tensor.block is not None:
            tensor.block.last = max(tensor.block.last, len(self.plan.steps))
        return tensor

    def result(self, var: Expr, step: int) -> Tensor:
        """Plan a tensor that a step writes."""
        block = Block(0, step, step)
        tensor = Tensor(shape_of(var), dtype_of(var), block)
        block.size = _aligned(tensor.size_bytes)
        self.blocks.append(block)
        return tensor

    def _store(self, array: IntArray) -> int:
        """Offset of a constant; equal bytes are stored once."""
        content = array.tobytes()
        if content not in self.known:
            self.known[content] = _aligned(len(self.plan.constants))
            padding = self.known[content] - len(self.plan.constants)
            self.plan.constants += bytes(padding) + content
        return self.known[content]


def place(blocks: list[Block]) -> int:
    """Give every block an offset; returns the arena's size."""
    placed: list[Block] = []
    for block in sorted(blocks, key=lambda block: (-block.size, block.first)):
        offset = 0
        neighbours = (other for other in placed if block.meets(other))
        for other in sorted(neighbours, key=lambda other: other.offset):
            if offset + block.size <= other.offset:
                break
            offset = max(offset, other.offset + other.size)
        block.offset = offset
        placed.append(block)
    return max((block.offset + block.size for block in blocks), default=0)


def workspace_of(function: PrimFunc) -> int:
    """Bytes that a kernel can have allocated at once, beside the machine's stack."""
    total = 0

    def visit(node: Any) -> None:
        nonlocal total
        buffer = node.buffer.ty
        size = prod(int(dim) for dim in buffer.shape) * np.dtype(str(buffer.dtype)).itemsize
        if size >= STACK_LIMIT:
            total += _aligned(size)

    tvm_ffi.structural_walk(function.body, (AllocBuffer, visit))
    return total


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
