"""Build and run single kernels; describe random operator calls."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import tvm

from tests.compiler.emulated import Emulated
from vitq.compiler.codegen.lower_kernels import lower_op
from vitq.compiler.kernels.building import build_kernel
from vitq.compiler.kernels.cpu.lowering import CpuFeatures, TensorType
from vitq.compiler.kernels.cuda.emulator.emulator import run_kernel
from vitq.compiler.kernels.kernel import Kernel, KernelCall
from vitq.compiler.target import host
from vitq.compiler.target import table as targets
from vitq.compiler.target.features import Features, GpuFeatures
from vitq.compiler.target.qemu import why_not
from vitq.numerics.arrays import IntArray

VNNI = CpuFeatures("vnni512", 512)
GENERIC = CpuFeatures("generic", 256)
ENTRIES = {target.features: target for target in targets.CPU_TARGETS.values()}
"""Each primitive with what it is compiled for; the plain one, which no target takes, as AVX2."""
ENTRIES[GENERIC] = targets.TARGETS["x86-avx2"]


def _parameter(features: CpuFeatures) -> Any:
    target = ENTRIES[features]
    lacking = host.missing_flags(target, host.host_flags())
    reason = f"this processor lacks {', '.join(lacking)}"
    if lacking and target.emulation:
        lacking = [why] if (why := why_not(target)) else []
        reason = "".join(lacking)
    return pytest.param(features, marks=pytest.mark.skipif(bool(lacking), reason=reason))


HOST = next(
    features
    for features, target in ENTRIES.items()
    if not host.missing_flags(target, host.host_flags())
)
"""The first primitive that this processor has."""
CPU_FEATURES = tuple(_parameter(features) for features in ENTRIES)
GPU = GpuFeatures(processors=4, shared_bytes=64 * 1024, macs=2048)
"""Run by `compiler.kernels.cuda.emulator.emulator`."""
FEATURES = (*CPU_FEATURES, GPU)


def tensor_type(array: IntArray) -> TensorType:
    """The type of an array."""
    return TensorType(tuple(array.shape), str(array.dtype))


def compile_function(func: Any, features: CpuFeatures) -> Any:
    """Compile a PrimFunc for the target of these features; returns what can be called."""
    target = ENTRIES[features]
    if host.missing_flags(target, host.host_flags()):
        return Emulated(func, target)
    library = tvm.compile(func, target=tvm.target.Target(target.tvm_config()))
    return library[func.attrs["global_symbol"]]


def run_op(
    op: str,
    operands: Sequence[IntArray],
    out: TensorType,
    features: Features,
    known: int = 1,
    draw: np.random.Generator | dict[str, int] | None = None,
) -> IntArray:
    """Lower, compile and run one operator.

    Args:
        op: its name.
        operands: all operands' values.
        out: type of the result.
        features: what to build for.
        known: operands from this index on are compile-time constants.
        draw: chooses each knob's value, or has them; without it they have their defaults.
    """
    constants: Mapping[int, IntArray] = {i: operands[i] for i in range(known, len(operands))}
    call = lower_op(op, [tensor_type(o) for o in operands], constants, out, features)
    return run_lowered(call, operands, features, draw)


def run_lowered(
    call: KernelCall,
    operands: Sequence[IntArray],
    features: Features,
    draw: np.random.Generator | dict[str, int] | None = None,
) -> IntArray:
    """Compile and run one kernel; see `run_op`. `draw` may be the knobs' values themselves."""
    out = call.kernel.out
    chosen = draw
    if isinstance(draw, np.random.Generator):
        chosen = random_schedule(call.kernel, draw)
    arrays = [operands[o] if isinstance(o, int) else o for o in call.operands]
    if isinstance(features, GpuFeatures):
        known = [i for i, o in enumerate(call.operands) if not isinstance(o, int)]
        return run_kernel(
            build_kernel(call.kernel, chosen), arrays, np.zeros(out.shape, out.dtype), known
        )
    function = compile_function(build_kernel(call.kernel, chosen), features)
    inputs = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
    # A guard behind the output would be overwritten by a store that is too wide.
    result = tvm.runtime.tensor(np.full(out.shape, 77, out.dtype))
    function(*inputs, result)
    return result.numpy()


def random_schedule(kernel: Kernel, rng: np.random.Generator) -> dict[str, int]:
    """One point of a kernel's knob space."""
    return {name: int(rng.choice(knob.choices)) for name, knob in kernel.knobs().items()}


def random_codes(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> IntArray:
    """Codes over a type's whole range, both ends included; some constant rows."""
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
