"""What a kernel is asked for, what it returns, and what of it is left to choose.

A `Template` emits the code of one operator family. A `Kernel` is a template with everything fixed
that the operator call decides: types, the processor's features, static facts (`spec`). What is left
is its schedule: a value for each knob of the template, none of which changes a bit of the result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError

L = TypeVar("L")
"""A function that gives the kernel of one operator call."""

Schedule = Mapping[str, int]
"""A value for each knob; knobs that are absent have their default."""


class Knob(NamedTuple):
    """One choice of a schedule.

    Attributes:
        choices: all of them valid, whatever the other knobs are.
        default: of an untuned kernel.
    """

    choices: tuple[int, ...]
    default: int


def no_knobs(_: "Kernel") -> dict[str, Knob]:
    """Return the knobs of a template that has one schedule: none."""
    return {}


def no_facts(_: "Kernel") -> tuple[int | str, ...]:
    """Return the facts of a template whose speed follows from its shapes: none."""
    return ()


@dataclass(frozen=True)
class Template:
    """A family of kernels.

    Attributes:
        name: of the family.
        emit: called with the kernel, a complete schedule, one buffer for each input, and the
            output's buffer; emits TIR.
        knobs: what can be chosen for a kernel, by name.
        facts: what of a kernel's spec decides which schedule is best. Kernels that agree in them,
            the first input, the output and the number of inputs are tuned as one: leave out what
            follows the values of the weights.
    """

    name: str
    emit: Callable[..., None]
    knobs: Callable[["Kernel"], dict[str, Knob]] = no_knobs
    facts: Callable[["Kernel"], tuple[int | str, ...]] = no_facts


@dataclass(frozen=True)
class Kernel:
    """One kernel, its schedule still open.

    Attributes:
        template: emits it.
        inputs: the input buffers in order.
        out: the output buffer.
        features: of the processor.
        spec: static facts that choose code, hashable; what they are is the template's matter.
    """

    template: Template
    inputs: tuple[TensorType, ...]
    out: TensorType
    features: CpuFeatures
    spec: Any = None

    @property
    def name(self) -> str:
        """The template's."""
        return self.template.name

    def knobs(self) -> dict[str, Knob]:
        """Return what can be chosen."""
        return self.template.knobs(self)

    @property
    def is_tunable(self) -> bool:
        """Whether there is more than one schedule."""
        return any(len(knob.choices) > 1 for knob in self.knobs().values())

    def schedule(self, chosen: Schedule | None = None) -> dict[str, int]:
        """Choose a value for every knob.

        Args:
            chosen: values that differ from the defaults.

        Raises:
            VitqError: for a knob or a value that the template does not have.
        """
        knobs = self.knobs()
        for name, value in (chosen or {}).items():
            if name not in knobs or value not in knobs[name].choices:
                raise VitqError(f"kernel {self.name} has no schedule with {name} = {value}")
        return {name: knob.default for name, knob in knobs.items()} | dict(chosen or {})


@dataclass(frozen=True)
class KernelCall:
    """A kernel and the tensors it takes before its output.

    Attributes:
        kernel: its last buffer is the output (destination passing).
        operands: for each input buffer the index of an original operand, or a new constant.
    """

    kernel: Kernel
    operands: tuple[int | IntArray, ...]


def lowering_of(table: Mapping[str, L], op: str, kind: str) -> L:
    """Return what makes an operator's kernel.

    Args:
        table: of a family of kernels, by operator.
        op: operator's name.
        kind: of the family, for the message.

    Raises:
        VitqError: for an operator without a kernel.
    """
    lowering = table.get(op)
    if lowering is None:
        raise VitqError(f"no {kind} for {op}: known are {', '.join(table)}")
    return lowering
