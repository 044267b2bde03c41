"""From a kernel and a schedule to its PrimFunc."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812 - the name that TVM gives it

from vitq.compiler.kernels.kernel import Kernel, Schedule
from vitq.compiler.kernels.tensor import TensorType

Buffer = Any


def build(
    name: str, inputs: Sequence[TensorType], out: TensorType, body: Callable[..., None]
) -> Any:
    """Build a PrimFunc.

    Args:
        name: of the function; the graph may rename it.
        inputs: the input buffers in order.
        out: the output buffer, the last argument.
        body: called with one buffer for each of `inputs` and the output's buffer.

    Returns:
        The PrimFunc.
    """
    with IRBuilder() as ir:
        with T.prim_func(s_tir=True):
            T.func_name(name)
            T.func_attr({"tirx.noalias": True})
            buffers = [_argument(f"x{i}", t) for i, t in enumerate(inputs)]
            body(*buffers, _argument("out", out))
    return ir.get()


def _argument(name: str, tensor: TensorType) -> Buffer:
    return T.arg(name, T.Buffer(tensor.shape, tensor.dtype, layout=None))


def build_kernel(kernel: Kernel, chosen: Schedule | None = None) -> Any:
    """Build the PrimFunc of a kernel; equal kernels with equal schedules are one object.

    Args:
        kernel: what to build.
        chosen: values of knobs that differ from the defaults.

    Raises:
        VitqError: for a knob or a value that the kernel's template does not have.
    """
    return _build(kernel, tuple(sorted(kernel.schedule(chosen).items())))


@functools.cache
def _build(kernel: Kernel, schedule: tuple[tuple[str, int], ...]) -> Any:
    def body(*buffers: Any) -> None:
        kernel.template.emit(kernel, dict(schedule), *buffers)

    return build(kernel.name, kernel.inputs, kernel.out, body)
