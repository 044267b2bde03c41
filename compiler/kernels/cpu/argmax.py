"""The class of the largest code: one maximum of keys in int32 lanes (`numerics.argmax`)."""

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import tirx

from vitq.compiler.kernels.cpu.builder import (
    Buffer,
    Expr,
    alloc,
    bind,
    cast,
    const,
    for_chunks,
    load,
    parallel,
    serial,
    splat,
    store,
)
from vitq.compiler.kernels.kernel import Kernel, KernelCall, Schedule, Template
from vitq.compiler.kernels.tensor import TensorType, tensor_of
from vitq.compiler.target.features import CpuFeatures
from vitq.numerics.argmax import MOST_CLASSES
from vitq.numerics.arrays import IntArray

ROW = 1024
"""Places of one parallel iteration."""
LAST = np.array([MOST_CLASSES - 1], np.int64)
"""Addend of class 0's keys, as data: TVM takes a kernel of one input for a reshape, and fails."""


def lower_argmax(
    operands: Sequence[TensorType],
    constants: Mapping[int, IntArray],
    out: TensorType,
    features: CpuFeatures,
) -> KernelCall:
    """``vitq.argmax``: x (B, C, M) -> (B, M)."""
    inputs = (operands[0], tensor_of(LAST))
    return KernelCall(Kernel(ARGMAX, inputs, out, features), (0, LAST))


def _argmax_body(
    kernel: Kernel, schedule: Schedule, x: Buffer, params: Buffer, result: Buffer
) -> None:
    batch, classes, places = kernel.inputs[0].shape
    last = bind(cast(load(params, 0), "int32"))

    def emit(b: Expr, m: Expr, lanes: int) -> None:
        best = alloc((lanes,), "int32")

        def key(c: Expr) -> Expr:
            code = cast(load(x, b, c, m, lanes=lanes), "int32")
            return code * const(MOST_CLASSES, "int32", lanes) + splat(last - c, lanes)

        store(best, key(tirx.const(0, "int32")), 0)
        if classes > 1:
            with serial(classes - 1) as c:
                store(best, tirx.max(load(best, 0, lanes=lanes), key(c + 1)), 0)
        low = load(best, 0, lanes=lanes) & const(MOST_CLASSES - 1, "int32", lanes)
        store(result, splat(last, lanes) - low, b, m)

    rows = max(places // ROW, 1)
    size = places // rows
    with parallel(batch * rows) as r:
        b, start = r // rows, r % rows * size
        for_chunks(size, kernel.features.lanes, lambda m, n: emit(b, m, n), start)
    if places % rows:
        with parallel(batch) as b:
            rest = rows * size
            for_chunks(places - rest, kernel.features.lanes, lambda m, n: emit(b, m, n), rest)


ARGMAX = Template("argmax", _argmax_body)
