"""Build and run single kernels; describe random operator calls."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm

from tests.compiler.emulated import Emulated
from vitq.compiler.codegen.lower_kernels import lower_op
from vitq.compiler.kernels.building import build_kernel
from vitq.compiler.kernels.cpu.emulator import emulator as cpu_emulator
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


CPU_FEATURES = tuple(ENTRIES)
"""Of which a processor lacks some: see `compile_function`."""
GPU = GpuFeatures(processors=4, shared_bytes=64 * 1024, macs=2048)
"""Run by `compiler.kernels.cuda.emulator.emulator`."""
FEATURES = (*CPU_FEATURES, GPU)


def tensor_type(array: IntArray) -> TensorType:
    """The type of an array."""
    return TensorType(tuple(array.shape), str(array.dtype))


class Interpreted:
    """A PrimFunc whose instructions NumPy executes; called like a compiled one."""

    def __init__(self, func: Any) -> None:
        self.func = func

    def __call__(self, *tensors: Any) -> None:
        """Run it; the last tensor is overwritten."""
        *inputs, out = (tensor.numpy() for tensor in tensors)
        tensors[-1].copyfrom(cpu_emulator.run_kernel(self.func, inputs, out))


def compile_function(func: Any, features: CpuFeatures) -> Any:
    """Compile a PrimFunc for the target of these features; returns what can be called.

    It is compiled where this processor has the instructions and interpreted everywhere else: no
    machine skips a kernel. What LLVM makes of those for ARM is in `test_cpu_emulator`, under qemu.
    """
    if host.missing_flags(ENTRIES[features], host.host_flags()):
        return Interpreted(func)
    return executed(func, features)


def executed(func: Any, features: CpuFeatures) -> Any:
    """A PrimFunc compiled by LLVM, on this processor or under qemu; see `is_executed`."""
    target = ENTRIES[features]
    if host.missing_flags(target, host.host_flags()):
        return Emulated(func, target)
    library = tvm.compile(func, target=tvm.target.Target(target.tvm_config()))
    return library[func.attrs["global_symbol"]]


def is_executed(features: CpuFeatures) -> bool:
    """Whether this processor or qemu has the instructions."""
    target = ENTRIES[features]
    return not host.missing_flags(target, host.host_flags()) or not why_not(target)


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
