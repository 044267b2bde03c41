"""What a kernel must compute: its operator by the arithmetic contract, as hashes for a kit.

A kernel stands for one operator call of a model. `relay_passes.interpreter.interpreter` evaluates
that call, by `numerics`, on the codes of `compiler.gpu_kit.drawing`; the GPU machine draws the same
codes and compares the hash of what its kernel makes of them (`compiler.gpu_kit.kernels`).

Codes come from the whole storage type wherever no intermediate can overflow on it
(`relay_passes.check_accumulators`), and else from what the model's tensor can hold.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import IRModule

from vitq.compiler.codegen.lower_kernels import lowered_calls
from vitq.compiler.gpu_kit.drawing import CASES, Activation, digest, draw
from vitq.compiler.kernels.kernel import Kernel, KernelCall
from vitq.compiler.target.features import Features
from vitq.numerics.arrays import IntArray
from vitq.relay_passes.check_accumulators import is_proven
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect.operator import Interval
from vitq.relay_passes.expressions import MAIN, Expr, is_constant, shape_of
from vitq.relay_passes.interpreter.interpreter import evaluate
from vitq.relay_passes.reading.ranges import Ranges, ranges_of


@dataclass(frozen=True)
class Operator:
    """An operator call of a model.

    Attributes:
        expr: the dialect call.
        call: its kernel.
        codes: for each input of the kernel the codes it is tested on; None for a constant.
        constants: for each input of the kernel its value; None for an activation.
        batch: of the model. The first axis of an activation may be a multiple of it: windows, whose
            masks and places are those of a whole picture.
    """

    expr: Expr
    call: KernelCall
    codes: tuple[Interval | None, ...]
    constants: tuple[IntArray | None, ...]
    batch: int

    @property
    def kernel(self) -> Kernel:
        """The call's kernel."""
        return self.call.kernel

    def draw(self, case: str) -> list[IntArray]:
        """Return the activations of one case, in the kernel's order."""
        activations = [
            Activation(kind.shape, kind.dtype, *codes)
            for kind, codes in zip(self.kernel.inputs, self.codes, strict=True)
            if codes is not None
        ]
        return draw(case, activations)

    def evaluate(self, activations: list[IntArray]) -> IntArray:
        """Return the contract's result, computed picture by picture to need little memory.

        Args:
            activations: in the kernel's order.
        """
        args = [_value(operand) for operand in dialect.operands(self.expr)]
        pairs = zip(self.call.operands, self.codes, strict=True)
        places = [operand for operand, codes in pairs if codes is not None]
        first, parts = activations[0], []
        pictures = self.batch if first.ndim > 2 and len(first) % self.batch == 0 else 1
        size = len(first) // pictures
        for start in range(0, len(first), size):
            for place, array in zip(places, activations, strict=True):
                whole = array.ndim != first.ndim or len(array) != len(first)
                args[place] = array if whole else array[start : start + size]
            parts.append(evaluate(self.expr, args))
        return np.concatenate(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the codes, and hashes of inputs and result of each case."""
        cases = {}
        for case in CASES:
            drawn = self.draw(case)
            cases[case] = {"inputs": digest(drawn), "output": digest([self.evaluate(drawn)])}
        return {"numpy": np.__version__, "codes": list(self.codes), "cases": cases}


def operators_of(mod: IRModule, features: Features) -> list[Operator]:
    """All operator calls.

    Args:
        mod: from `relay_passes.pipeline.integerize`.
        features: of the target.
    """
    known, batch = ranges_of(mod), shape_of(mod[MAIN].params[0])[0]
    return [_operator(expr, call, known, batch) for expr, call in lowered_calls(mod, features)]


def _operator(expr: Expr, call: KernelCall, known: Ranges, batch: int) -> Operator:
    types, operands = Ranges(), dialect.operands(expr)
    ranges = types if is_proven(expr, types) else known
    constants = tuple(_value(operands[o]) if isinstance(o, int) else o for o in call.operands)
    codes = tuple(
        ranges.of(operands[o]) if isinstance(o, int) and constant is None else None
        for o, constant in zip(call.operands, constants, strict=True)
    )
    return Operator(expr, call, codes, constants, batch)


def _value(operand: Expr) -> IntArray | None:
    """Read the value of a constant."""
    return operand.value.numpy() if is_constant(operand) else None
