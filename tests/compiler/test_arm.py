"""ARM: what no other processor's tests show. The kernels' own tests run for ARM too."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.compiler.emulated import build
from tests.compiler.kernels.test_gemm import linear_call
from tests.compiler.kernels.util import random_codes, tensor_type
from vitq.compiler.benchmark.hot_loops import (
    GEMM,
    MODELS,
    OBJDUMP,
    find_mca,
    hot_loops,
    product,
    rows_of,
)
from vitq.compiler.kernels.building import build_kernel
from vitq.compiler.kernels.cpu.dot_arm import pairs_fit
from vitq.compiler.kernels.cpu.lowering import TensorType, lower_op
from vitq.compiler.kernels.kernel import KernelCall
from vitq.compiler.target import host, tools
from vitq.compiler.target import qemu as emulation
from vitq.compiler.target.choice import get_target
from vitq.compiler.target.qemu import Call
from vitq.compiler.target.table import TARGETS, Target
from vitq.compiler.target.tools import find_compiler
from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError
from vitq.relay_passes.dialect import names

RPI5, RPI4, GRAVITON = (TARGETS[name] for name in ("rpi5", "rpi4", "graviton3"))
MISSING = emulation.why_not(RPI5)
EMULATED = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
GEMM_BARS = {"rpi5": 2_100_000, "graviton3": 1_300_000, "rpi4": 7_500_000}


def linear(target: Target, weight: IntArray, rows: int) -> KernelCall:
    """A linear layer without bias, to int8."""
    channels, inner = weight.shape
    zeros = np.zeros(channels, np.int32)
    multiplier = np.full(channels, 2**30 + 5, np.int32)
    bounds = np.array([-128, 127], np.int64)
    values = [weight, zeros, multiplier, np.full(channels, 42, np.int32), zeros, bounds]
    constants = dict(enumerate(values, 1))
    types = [TensorType((rows, inner), "int8"), *(tensor_type(v) for v in values)]
    out = TensorType((rows, channels), "int8")
    return lower_op(names.LINEAR, types, constants, out, target.features)


@EMULATED
@pytest.mark.parametrize("name", sorted(GEMM_BARS))
def test_instructions_of_the_product(name: str) -> None:
    """Counts are the same in every run, and no worse than they were."""
    target = get_target(name)
    call = product(target)
    path = build(build_kernel(call.kernel), target)
    first = emulation.predict(path, call.kernel, target, "kernel")
    assert first == emulation.predict(path, call.kernel, target, "kernel")
    assert first.instructions <= GEMM_BARS[name]
    assert first.instructions / target_width(target) <= first.cycles <= first.instructions


def target_width(target: Target) -> int:
    """Instructions in a cycle."""
    assert target.emulation is not None
    return target.emulation.width


@EMULATED
@pytest.mark.skipif(not shutil.which(OBJDUMP), reason=f"{OBJDUMP} is not installed")
@pytest.mark.parametrize(
    ("target", "instruction", "share"), [(RPI5, "sdot", 0.8), (GRAVITON, "smmla", 0.7)]
)
def test_the_hot_loop_is_dot_products(target: Target, instruction: str, share: float) -> None:
    """LLVM takes the lane from the register, and little else is in the loop."""
    path = build(build_kernel(product(target).kernel), target)
    loops = [loop.names for loop in hot_loops(path) if instruction in loop.names]
    assert max(loop.count(instruction) / len(loop) for loop in loops) >= share
    assert not any("dup" in loop or "ld1r" in loop for loop in loops)


@EMULATED
@pytest.mark.skipif(not shutil.which(OBJDUMP), reason=f"{OBJDUMP} is not installed")
def test_predicted_cycles_of_the_hot_loops() -> None:
    """Also on Cortex-A72, which has no dot product, int8 beats float32."""
    try:
        find_mca()
    except VitqError as error:
        pytest.skip(str(error))
    rate = {(name, kind): float(row[-1]) for name, kind, *row in rows_of(list(MODELS))}
    assert rate["rpi5", "int8"] > 24 and rate["graviton3", "int8"] > 100
    for name in MODELS:
        assert rate[name, "int8"] > 1.3 * rate[name, "float32"]


@EMULATED
def test_dot_products_end_on_a_processor_without_them() -> None:
    """The emulator refuses what the processor does not have."""
    call = product(RPI5)
    path = build(build_kernel(call.kernel), RPI5)
    job = emulation.call_of(path, call.kernel, "kernel")
    with pytest.raises(VitqError, match=r"qemu-aarch64 ended with -4"):
        emulation.run([job], RPI5, cpu="cortex-a72")
    assert emulation.run([job], RPI5)[0].shape == (GEMM[0], GEMM[2])


@EMULATED
@pytest.mark.parametrize("pair", [(-128, -128), (-128, -127), (-127, -127), (127, 127)])
@pytest.mark.parametrize("code", [-128, 127])
def test_two_products_in_sixteen_bits(pair: tuple[int, int], code: int) -> None:
    """Cortex-A72 sums two products in 16 bits only where the weights allow it."""
    weight = np.empty((16, 64), np.int8)
    weight[:, :] = np.array([*pair[:1] * 2, *pair[1:] * 2])[np.arange(64) % 4]
    call = linear(RPI4, weight, 5)
    fits = pair != (-128, -128)
    assert call.kernel.features.dot == ("neon-pairs" if fits else "neon")
    x = np.full((5, 64), code, np.int8)
    inputs = (x, *call.operands[1:])
    job = Call(build(build_kernel(call.kernel), RPI4), "kernel", inputs, ((5, 16), "int8"))
    exact = (int(x[0].astype(np.int64) @ weight[0]) * (2**30 + 5) + (1 << 41)) >> 42
    np.testing.assert_array_equal(emulation.run([job], RPI4)[0], np.clip(exact, -128, 127))


def test_weights_that_fit() -> None:
    """Bytes 0 and 2, and 1 and 3, are summed."""
    packed = np.zeros((1, 1, 64), np.int8)
    packed[0, 0, :2] = -128
    assert pairs_fit(packed)
    packed[0, 0, 4:8] = [-128, 0, 0, -128]
    assert pairs_fit(packed)
    packed[0, 0, 10] = packed[0, 0, 8] = -128
    assert not pairs_fit(packed)


@EMULATED
def test_a_store_behind_the_result_is_found() -> None:
    """The runner has guard bytes."""
    call = product(RPI5)
    path = build(build_kernel(call.kernel), RPI5)
    job = emulation.call_of(path, call.kernel, "kernel")
    shape, dtype = job.out
    short = Call(path, "kernel", job.inputs, ((shape[0], shape[1] - 1), dtype))
    with pytest.raises(VitqError, match="ended with 1"):
        emulation.run([short], RPI5)


def test_reasons_why_a_target_is_not_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert emulation.why_not(TARGETS["x86-64"]) == "target x86-64 is not emulated"
    monkeypatch.setattr(emulation.shutil, "which", lambda _: None)
    missing = emulation.why_not(RPI5)
    assert missing == "qemu-aarch64 is not installed: on Debian apt-get install qemu-user"
    with pytest.raises(VitqError, match="qemu-user"):
        emulation.predict(Path("x.so"), product(RPI5).kernel, RPI5)


def test_no_cross_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(tools.shutil, "which", lambda _: None)
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(VitqError, match=r"apt-get install g\+\+-aarch64.*pip install ziglang"):
        find_compiler(RPI5)


def test_zig_is_the_other_cross_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(tools.shutil, "which", lambda _: None)
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = Path(find_compiler(RPI5))
    assert compiler.parent == tmp_path / "vitq"
    assert "-m ziglang c++ -target aarch64-linux-gnu.2.28" in compiler.read_text()
    assert compiler.stat().st_mode & 0o111
    assert find_compiler(RPI5) == str(compiler)


def test_an_arm_machine_uses_its_own_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(tools.shutil, "which", lambda name: f"/bin/{name}")
    assert find_compiler(RPI5) == "/bin/g++"
    for name, flags in {"graviton3": {"asimddp", "i8mm", "sve"}, "rpi5": {"asimddp"}}.items():
        monkeypatch.setattr(host, "host_flags", lambda flags=flags: {"aarch64", *flags})
        assert get_target("cpu").config == TARGETS[name].config


@EMULATED
def test_many_calls_in_one_start() -> None:
    """Calls of several kernels, each with its own data."""
    rng = np.random.default_rng(5)
    jobs, expected = [], []
    for rows in (1, 3, 8):
        x = random_codes(rng, "int8", (1, rows, 48))
        operands, result = linear_call(rng, x, 20, "int8", 1e-3)
        constants = {i: operands[i] for i in range(1, len(operands))}
        out = TensorType((1, rows, 20), "int8")
        call = lower_op(
            names.LINEAR, [tensor_type(o) for o in operands], constants, out, RPI5.features
        )
        path = build(build_kernel(call.kernel), RPI5)
        jobs.append(Call(path, "kernel", (x, *call.operands[1:]), (out.shape, out.dtype)))
        expected.append(result)
    for found, wanted in zip(emulation.run(jobs, RPI5), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
