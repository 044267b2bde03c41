"""Build and run single kernels; describe random operator calls."""

from collections.abc import Mapping, Sequence

import numpy as np
import tvm

from compiler.kernels import CpuFeatures, TensorType, lower_op
from numerics.arrays import IntArray

VNNI = CpuFeatures("vnni512", 512)
GENERIC = CpuFeatures("generic", 256)
TARGETS = {
    VNNI: {"kind": "llvm", "mcpu": "cascadelake"},
    GENERIC: {"kind": "llvm", "mcpu": "haswell"},
}
FEATURES = tuple(TARGETS)


def tensor_type(array: IntArray) -> TensorType:
    """The type of an array."""
    return TensorType(tuple(array.shape), str(array.dtype))


def run_op(
    op: str,
    operands: Sequence[IntArray],
    out: TensorType,
    features: CpuFeatures,
    known: int = 1,
) -> IntArray:
    """Lower, compile and run one operator.

    Args:
        op: its name.
        operands: all operands' values.
        out: type of the result.
        features: what to build for.
        known: operands from this index on are compile-time constants.
    """
    constants: Mapping[int, IntArray] = {i: operands[i] for i in range(known, len(operands))}
    call = lower_op(op, [tensor_type(o) for o in operands], constants, out, features)
    library = tvm.compile(call.func, target=tvm.target.Target(TARGETS[features]))
    name = call.func.attrs["global_symbol"]
    arrays = [operands[o] if isinstance(o, int) else o for o in call.operands]
    inputs = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
    # A guard behind the output would be overwritten by a store that is too wide.
    result = tvm.runtime.tensor(np.full(out.shape, 77, out.dtype))
    library[name](*inputs, result)
    return result.numpy()


def random_codes(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> IntArray:
    """Codes over a type's whole range, both ends included; some constant rows."""
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
