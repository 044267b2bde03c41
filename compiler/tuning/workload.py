"""What is tuned: a task stands for all kernels of one template whose speed is the same.

MetaSchedule knows a task by its workload, a PrimFunc, and finds it again by structural equality.
The kernel itself would be a poor workload: its code changes with every edit of a template, and its
flags follow the values of the weights, so that a log would serve one model only. A workload
here is a *descriptor*: one block that does next to nothing, and two attributes that say which task
and which knobs. The block carries the chosen values as annotations.

    vitq.task   linear 1x197x192:int8 -> 1x197x576:int8, 6 inputs, vnni512/512
    vitq.space  columns=1,2,3,4 rows=2,4,6,8,12
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitq.compiler.kernels.kernel import Kernel, KernelCall, Knob
from vitq.compiler.kernels.tensor import TensorType
from vitq.compiler.target.features import Features
from vitq.numerics.arrays import IntArray

TASK = "vitq.task"
SPACE = "vitq.space"
BLOCK = "task"


@dataclass(frozen=True)
class Task:
    """One thing to tune.

    Attributes:
        text: names it; what a log is searched for.
        kernel: of the kernels that it stands for, the one called most.
        constants: that kernel's constant inputs, None where an input is an activation.
        calls: of its kernels, in one run of the model.
        mod: MetaSchedule's workload.
    """

    text: str
    kernel: Kernel
    constants: tuple[IntArray | None, ...]
    calls: int
    mod: Any

    @property
    def knobs(self) -> dict[str, Knob]:
        """What can be chosen."""
        return self.kernel.knobs()


def task_text(kernel: Kernel, facts: bool = True) -> str:
    """Which task a kernel belongs to; without `facts`, the nearest one that most logs know.

    First input, output, number of inputs, processor features and the template's `facts` decide
    the amount of work. What else differs between kernels (flags of the spec, the storage of the
    constants) follows the values of the weights and hardly matters for which schedule is best.
    """
    known = kernel.template.facts(kernel) if facts else ()
    more = "".join(f", {fact}" for fact in known)
    return (
        f"{kernel.name} {_type(kernel.inputs[0])} -> {_type(kernel.out)}, "
        f"{len(kernel.inputs)} inputs, {kernel.features.label}{more}"
    )


def _type(tensor: TensorType) -> str:
    return f"{'x'.join(map(str, tensor.shape))}:{tensor.dtype}"


def space_text(knobs: Mapping[str, Knob]) -> str:
    """Names and choices of knobs."""
    return " ".join(
        f"{name}={','.join(map(str, knob.choices))}" for name, knob in sorted(knobs.items())
    )


def descriptor(kernel: Kernel) -> Any:
    """Return the PrimFunc that stands for a kernel's task; equal for all kernels of the task."""
    from tvm import tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder as T  # noqa: N812 - the name that TVM gives it

    attributes = {
        "tirx.noalias": True,
        TASK: task_text(kernel),
        SPACE: space_text(kernel.knobs()),
    }
    with IRBuilder() as ir:
        with T.prim_func(s_tir=True):
            T.func_name("main")
            T.func_attr(attributes)
            first, out = kernel.inputs[0], kernel.out
            T.arg("x", T.Buffer(first.shape, first.dtype, layout=None))
            buffer = T.arg("out", T.Buffer(out.shape, out.dtype, layout=None))
            start = [0] * len(out.shape)
            with T.sblock("root"), T.sblock(BLOCK):
                T.reads([])
                T.writes([buffer[tuple(start)]])
                T.buffer_store(buffer, tirx.const(0, out.dtype), start)
    return ir.get()


def workload(kernel: Kernel) -> Any:
    """Return the descriptor as MetaSchedule's module."""
    from tvm import IRModule

    return IRModule({"main": descriptor(kernel)})


def text_of(mod: Any) -> str:
    """Return the task of a workload; empty for a module that is none."""
    attributes = mod["main"].attrs
    return str(attributes[TASK]) if attributes and TASK in attributes else ""


def extract(mod: Any, features: Features, config: Mapping[str, Any]) -> list[Task]:
    """Return the tasks of an integer module; kernels with one schedule are none.

    Args:
        mod: from `relay_passes.pipeline.integerize`.
        features: of the target.
        config: of TVM's target.

    Returns:
        The tasks in order of first use.
    """
    from tvm.s_tir.meta_schedule.relax_integration import extract_tasks
    from tvm.target import Target

    from vitq.compiler.codegen.lower_kernels import kernel_calls
    from vitq.compiler.support.compat import no_tensor_intrinsics

    calls = [call for call in kernel_calls(mod, features) if call.kernel.is_tunable]
    if not calls:
        return []
    counts = Counter(call.kernel for call in calls)
    typical: dict[tuple[str, str], KernelCall] = {}
    for call in calls:
        key = _key(call.kernel)
        if key not in typical or counts[call.kernel] > counts[typical[key].kernel]:
            typical[key] = call
    with no_tensor_intrinsics():
        extracted = extract_tasks(_graph([call.kernel for call in calls]), Target(dict(config)))
    found: dict[tuple[str, str], Any] = {}
    for item in extracted:
        attributes = item.dispatched[0]["main"].attrs
        found[str(attributes[TASK]), str(attributes[SPACE])] = item
    return [
        Task(key[0], call.kernel, _constants(call), int(found[key].weight), workload(call.kernel))
        for key, call in typical.items()
    ]


def _constants(call: KernelCall) -> tuple[IntArray | None, ...]:
    return tuple(None if isinstance(operand, int) else operand for operand in call.operands)


def _graph(kernels: list[Kernel]) -> Any:
    """Build a Relax module that calls the descriptors as the model calls the kernels."""
    from tvm import relax

    builder = relax.BlockBuilder()
    params = {
        tensor: relax.Var(f"x{i}", relax.TensorType(tensor.shape, tensor.dtype))
        for i, tensor in enumerate(dict.fromkeys(kernel.inputs[0] for kernel in kernels))
    }
    functions: dict[tuple[str, str], Any] = {}
    with builder.function("main", list(params.values())):
        with builder.dataflow():
            for kernel in kernels:
                func = _global(builder, kernel, functions)
                out = relax.TensorType(kernel.out.shape, kernel.out.dtype)
                last = builder.emit(relax.call_tir(func, params[kernel.inputs[0]], out))
            result = builder.emit_output(last)
        builder.emit_func_output(result)
    return builder.finalize()


def _global(builder: Any, kernel: Kernel, known: dict[tuple[str, str], Any]) -> Any:
    """Return the module's global for a kernel's descriptor; the same descriptor is added once."""
    key = _key(kernel)
    if key not in known:
        symbol = f"{kernel.name}_{len(known)}"
        known[key] = builder.add_func(descriptor(kernel).with_attr("global_symbol", symbol), symbol)
    return known[key]


def _key(kernel: Kernel) -> tuple[str, str]:
    return task_text(kernel), space_text(kernel.knobs())
