"""The interpreter of processors' kernels: against the processor itself, and what it refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm

from tests.compiler.kernels import (
    test_attention,
    test_elementwise,
    test_gemm,
    test_ivit,
    test_layernorm,
    test_narrow,
    util,
)
from tests.compiler.kernels.util import ENTRIES, executed, is_executed
from vitq.compiler.kernels.building import build
from vitq.compiler.kernels.cpu.builder import (
    T,
    alloc,
    const,
    load,
    parallel,
    serial,
    store,
    typed,
)
from vitq.compiler.kernels.cpu.emulator import instructions
from vitq.compiler.kernels.cpu.emulator.emulator import run_kernel
from vitq.compiler.kernels.emulation import EmulationError
from vitq.compiler.kernels.tensor import TensorType

Body = Callable[..., None]

X86, NEON = "llvm.x86.", "llvm.aarch64.neon."
INT8, INT16, INT32 = "int8", "int16", "int32"
INSTRUCTIONS = [
    # the target, the name, the result, the operands
    ("x86-vnni", X86 + "avx512.vpdpbusd.512", (INT32, 16), [(INT32, 16), (INT8, 64), (INT8, 64)]),
    ("x86-vnni", X86 + "avx512.vpdpbusd.256", (INT32, 8), [(INT32, 8), (INT8, 32), (INT8, 32)]),
    ("x86-vnni", X86 + "avx512.pmaddw.d.512", (INT32, 16), [(INT16, 32)] * 2),
    ("x86-vnni", X86 + "avx512.pmul.hr.sw.512", (INT16, 32), [(INT16, 32)] * 2),
    ("x86-vnni", X86 + "avx512.pmulh.w.512", (INT16, 32), [(INT16, 32)] * 2),
    ("x86-vnni", X86 + "avx512.packssdw.512", (INT16, 32), [(INT32, 16)] * 2),
    ("x86-vnni", X86 + "avx512.packusdw.512", (INT16, 32), [(INT32, 16)] * 2),
    ("x86-vnni", X86 + "avx512.packuswb.512", (INT8, 64), [(INT16, 32)] * 2),
    ("x86-vnni", X86 + "avx512.packsswb.512", (INT8, 64), [(INT16, 32)] * 2),
    ("x86-vnni", X86 + "avx512.permvar.si.512", (INT32, 16), [(INT32, 16)] * 2),
    ("x86-avx2", X86 + "avx2.pmadd.wd", (INT32, 8), [(INT16, 16)] * 2),
    ("x86-64", X86 + "sse2.pmadd.wd", (INT32, 4), [(INT16, 8)] * 2),
    ("x86-avx2", X86 + "avx2.pmul.hr.sw", (INT16, 16), [(INT16, 16)] * 2),
    ("x86-avx2", X86 + "avx2.pmulh.w", (INT16, 16), [(INT16, 16)] * 2),
    ("x86-avx2", X86 + "avx2.packssdw", (INT16, 16), [(INT32, 8)] * 2),
    ("x86-avx2", X86 + "avx2.packusdw", (INT16, 16), [(INT32, 8)] * 2),
    ("x86-avx2", X86 + "avx2.packuswb", (INT8, 32), [(INT16, 16)] * 2),
    ("x86-avx2", X86 + "avx2.packsswb", (INT8, 32), [(INT16, 16)] * 2),
    ("x86-avx2", X86 + "avx2.permd", (INT32, 8), [(INT32, 8)] * 2),
    ("x86-avx2", X86 + "avx2.pshuf.b", (INT8, 32), [(INT8, 32)] * 2),
    ("jetson-orin-cpu", NEON + "sdot.v4i32.v16i8", (INT32, 4), [(INT32, 4), *[(INT8, 16)] * 2]),
    ("jetson-orin-cpu", NEON + "udot.v4i32.v16i8", (INT32, 4), [(INT32, 4), *[(INT8, 16)] * 2]),
    ("graviton3", NEON + "smmla.v4i32.v16i8", (INT32, 4), [(INT32, 4), *[(INT8, 16)] * 2]),
    ("graviton3", NEON + "usmmla.v4i32.v16i8", (INT32, 4), [(INT32, 4), *[(INT8, 16)] * 2]),
    ("rpi4", NEON + "sqrdmulh.v8i16", (INT16, 8), [(INT16, 8)] * 2),
    ("rpi4", NEON + "srshl.v8i16", (INT16, 8), [(INT16, 8)] * 2),
    ("rpi4", NEON + "uaddlp.v8i16.v16i8", (INT16, 8), [(INT8, 16)]),
    ("rpi4", NEON + "uaddlp.v4i32.v8i16", (INT32, 4), [(INT16, 8)]),
    ("rpi4", NEON + "saddlp.v4i32.v8i16", (INT32, 4), [(INT16, 8)]),
    *(
        (target, f"llvm.vector.reduce.{what}", (dtype, 1), [(dtype, 8)])
        for target in ("x86-avx2", "rpi4")
        for what in ("add", "smax", "smin")
        for dtype in (INT32, "int64")
    ),
]
TIMES = 40


def corner_codes(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Any:
    """Any codes, and many at the ends, where instructions saturate and wrap."""
    info = np.iinfo(dtype)
    ends = np.array([info.min, info.min + 1, -1, 0, 1, info.max - 1, info.max], dtype)
    codes = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return np.where(rng.random(shape) < 0.5, rng.choice(ends, shape), codes).astype(dtype)


@pytest.mark.parametrize(
    ("target", "name", "result", "operands"), INSTRUCTIONS, ids=lambda v: str(v)[:40]
)
def test_an_instruction_is_the_processors(
    target: str, name: str, result: tuple[str, int], operands: list[tuple[str, int]]
) -> None:
    def body(*buffers: Any) -> None:
        *inputs, out = buffers
        with serial(TIMES) as i:
            registers = [
                load(x, i, 0, lanes=lanes) for x, (_, lanes) in zip(inputs, operands, strict=True)
            ]
            called = T.call_llvm_pure_intrin(typed(*result), name, *registers)
            store(out, called, i, 0)

    types = [TensorType((TIMES, lanes), dtype) for dtype, lanes in operands]
    out = TensorType((TIMES, result[1]), result[0])
    func = build("one", types, out, body)
    rng = np.random.default_rng(0)
    inputs = [corner_codes(rng, t.dtype, t.shape) for t in types]
    if "srshl" in name:
        inputs[1] = rng.integers(-17, 17, inputs[1].shape).astype(INT16)
    features = next(f for f, entry in ENTRIES.items() if entry.name == target)
    found = run_kernel(func, inputs, np.zeros(out.shape, out.dtype))
    np.testing.assert_array_equal(found, natively(func, features, inputs, found))


def natively(func: Any, features: Any, inputs: list[Any], like: Any) -> Any:
    """What the processor says, or qemu."""
    if not is_executed(features):
        pytest.skip(f"neither this processor nor qemu is {ENTRIES[features].name}")
    function = executed(func, features)
    out = tvm.runtime.tensor(np.full_like(like, 77))
    function(*(tvm.runtime.tensor(np.ascontiguousarray(x)) for x in inputs), out)
    return out.numpy()


def test_every_instruction_is_tested() -> None:
    tested = {name for _, name, *_ in INSTRUCTIONS}
    for name in instructions.INSTRUCTIONS:
        assert any(found == name or found.startswith(f"{name}.v") for found in tested), name


FAMILIES: dict[str, Callable[[Any], None]] = {
    "linear": lambda f: test_gemm.test_linear(test_gemm.CASES[4], f),
    "linear of bytes": lambda f: test_gemm.test_linear(test_gemm.CASES[5], f),
    "linear of few bits": lambda f: test_narrow.test_linear(3, f),
    "linear and gelu": lambda f: test_gemm.test_linear_gelu(test_gemm.FUSED_CASES[0], f),
    "linear and add": lambda f: test_gemm.test_linear_add(
        test_gemm.FUSED_CASES[1], ("uint16", "uint8"), f
    ),
    "patches": lambda f: test_gemm.test_patch_embed(2, 12, 4, f),
    "products": lambda f: test_gemm.test_matmul((3, 5, 7, 9), ("int8", "uint8"), f),
    "normalized products": lambda f: test_attention.test_normalized_matmul(
        (1, 6, 7, 12), "uint8", f
    ),
    "softmax codes": lambda f: test_attention.test_shiftmax_codes(16, 3e-4, f),
    "softmax": lambda f: test_attention.test_shiftmax("int8", f),
    "attention": lambda f: test_attention.test_attention((1, 19, 3, 2, 16), 3e-4, f),
    "attention with log codes": lambda f: test_attention.test_attention_with_log_codes(
        2, 16, True, (1, 19, 3, 2, 16), f
    ),
    "attention with twin codes": lambda f: test_attention.test_attention_with_twin_codes(
        (2, 5), 3e-4, f
    ),
    "attention with constants": lambda f: test_attention.test_attention_with_constants(
        (4, 5, 3, 1, 12), 1e-3, f
    ),
    "constants": lambda f: test_elementwise.test_offset((3, 1, 9, 37), "int8", f),
    "rows": lambda f: test_elementwise.test_gather_rows(True, "int16", 6, f),
    "linear of moved rows": lambda f: test_gemm.test_rows_are_read_through_a_table(
        7, 21, "int8", f
    ),
    "layernorm": lambda f: test_layernorm.test_layernorm(33, "int16", f),
    "add": lambda f: test_elementwise.test_add((9, 37), "int8", f),
    "requantize": lambda f: test_elementwise.test_requantize(45, "int32", f),
    "table": lambda f: test_elementwise.test_lut_of_signed_codes("last axis", 200, f),
    "product": lambda f: test_elementwise.test_multiply(
        test_elementwise.PAIRS[1], ("int16", "int16"), f
    ),
    "gelu": lambda f: test_elementwise.test_shiftgelu("int8", 0.05, -20, f),
    "mean": lambda f: test_elementwise.test_mean(21, f),
    "I-ViT's softmax": lambda f: test_ivit.test_shiftmax((2, 31), "int8", f),
    "I-ViT's gelu": lambda f: test_ivit.test_every_code_in_one_row("uint8", f),
}


@pytest.mark.parametrize("features", list(filter(is_executed, ENTRIES)), ids=lambda f: f.dot)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_kernel_has_the_processors_integers(
    family: str, features: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each test runs a kernel of the family twice; its own assertion is `numerics`'."""
    runs = []

    class Both:
        def __init__(self, func: Any, native: Any) -> None:
            self.func, self.native = func, native

        def __call__(self, *tensors: Any) -> None:
            *inputs, out = (tensor.numpy() for tensor in tensors)
            found = run_kernel(self.func, inputs, out)
            self.native(*tensors)
            np.testing.assert_array_equal(found, tensors[-1].numpy())
            runs.append(found)

    def both(func: Any, features: Any) -> Both:
        return Both(func, executed(func, features))

    monkeypatch.setattr(util, "compile_function", both)
    FAMILIES[family](features)
    assert runs


def scalars(body: Body, size: int = 8) -> Any:
    """A kernel on int32 values."""
    tensor = TensorType((size,), INT32)
    func = build("one", [tensor], tensor, body)
    return lambda: run_kernel(func, [np.arange(size, dtype=INT32)], np.zeros(size, INT32))


def copied(offset: int, lanes: int) -> Body:
    def body(x: Any, out: Any) -> None:
        with serial(2) as i:
            store(out, load(x, i * lanes + offset, lanes=lanes), i * lanes)

    return body


@pytest.mark.parametrize(("offset", "lanes"), [(1, 4), (-1, 4), (7, 1), (-1, 1)])
def test_an_index_outside_is_refused(offset: int, lanes: int) -> None:
    assert scalars(copied(0, 4))().tolist() == list(range(8))
    with pytest.raises(EmulationError, match=r"x0 has \(8,\) elements: .* outside"):
        scalars(copied(offset, lanes))()


def test_a_store_outside_is_refused() -> None:
    def body(x: Any, out: Any) -> None:
        with serial(3) as i:
            store(out, load(x, 0, lanes=4), i * 4)

    with pytest.raises(EmulationError, match=r"out has \(8,\) elements: 4 elements from \[8\]"):
        scalars(body)()


def test_what_is_not_written_is_noise() -> None:
    def body(x: Any, out: Any) -> None:
        scratch = alloc((4,), INT32)
        store(scratch, load(x, 0, lanes=2), 0)
        store(out, load(scratch, 0, lanes=4), 0)

    found = scalars(body)()
    assert found[:2].tolist() == [0, 1]
    assert np.all(np.abs(found[2:].astype(np.int64)) > 1000)


def test_parallel_iterations_come_in_any_order() -> None:
    """A sum over iterations that overwrite each other is not the last one's."""

    def body(x: Any, out: Any) -> None:
        with parallel(8) as i:
            store(out, load(x, i), 0)

    assert scalars(body)()[0] != 7


@pytest.mark.parametrize("by", [-1, 32])
def test_a_shift_by_the_width_is_refused(by: int) -> None:
    def body(x: Any, out: Any) -> None:
        value = load(x, 0, lanes=8)
        store(out, value << (value + const(by - 7, INT32, 8)), 0)

    with pytest.raises(EmulationError, match="a shift of 32 bits"):
        scalars(body)()


def test_lanes_wrap_like_registers() -> None:
    def body(x: Any, out: Any) -> None:
        value = load(x, 0, lanes=8)
        store(out, value * const(2**30, INT32, 8) + const(2**31 - 1, INT32, 8), 0)

    exact = [(v * 2**30 + 2**31 - 1 + 2**31) % 2**32 - 2**31 for v in range(8)]
    assert scalars(body)().tolist() == exact


def test_what_is_unknown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(x: Any, out: Any) -> None:
        name = X86 + "avx2.phadd.d"
        value = load(x, 0, lanes=8)
        store(out, T.call_llvm_pure_intrin("int32x8", name, value, value), 0)

    with pytest.raises(EmulationError, match=r"does not know llvm\.x86\.avx2\.phadd\.d"):
        scalars(body)()

    def vectorized(x: Any, out: Any) -> None:
        with T.vectorized(0, 8) as i:
            store(out, load(x, i), i)

    with pytest.raises(EmulationError, match="loops of kind"):
        scalars(vectorized)()


def test_arrays_of_other_shapes_are_refused() -> None:
    func = build("one", [TensorType((4,), INT32)], TensorType((4,), INT32), copied(0, 2))
    with pytest.raises(EmulationError, match=r"x0 must be int32 \(4,\)"):
        run_kernel(func, [np.zeros(5, INT32)], np.zeros(4, INT32))


def test_every_primitive_is_checked_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the processor has none of them."""
    monkeypatch.setattr(util.host, "host_flags", set)
    for features in util.CPU_FEATURES:
        if ENTRIES[features].name != "x86-64":
            test_gemm.test_linear_of_extremes("int8", features)
