"""What is in a CUDA library, on machines with and without a GPU."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tvm import IRModule, relax
from tvm.target import Target as TvmTarget

from tests.compiler.cuda.compilers import needs_compiler
from tests.compiler.cuda.emitted import EmittedKernels
from tests.compiler.cuda.emulated_model import emulator, lower, run_model
from vitq.compiler.codegen import launches
from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.codegen.importing import ImportedModel, Meaning, import_model
from vitq.compiler.codegen.lower_kernels import Choose, lower_kernels, untuned
from vitq.compiler.kernels.cuda.tile import KNOBS, Tile
from vitq.compiler.kernels.kernel import Kernel, Schedule
from vitq.compiler.nvidia import driver, fatbin, nvrtc, toolchain
from vitq.compiler.nvidia.build import build_executable, require_machine_code
from vitq.compiler.nvidia.pipeline import DEPENDENT_TAG
from vitq.compiler.nvidia.places import find_tool
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.run import run
from vitq.compiler.stages.verify import verify
from vitq.compiler.support.artifacts import LIBRARY_NAME, METADATA_NAME, Artifact, read_json
from vitq.compiler.target.choice import get_target
from vitq.compiler.target.gpus import SPECIFIC
from vitq.compiler.target.table import Target
from vitq.compiler.target.tools import find_compiler
from vitq.numerics.errors import VitqError
from vitq.relay_passes.interpreter.interpreter import interpret

BLOCKS = 4
"""Of the embedded model."""
LAUNCHES_OF_A_BLOCK = 8
FLOAT_SASS = re.compile(r"\b([FD](ADD|MUL|FMA)|I2F\w*|F2I|MUFU)\b")
"""HFMA2 is not among them: the assembler moves constants with it."""
FLOAT_PTX = re.compile(r"\.(f16|f32|f64|bf16)\b")


@pytest.fixture(scope="module")
def digits(artifact: Artifact) -> ImportedModel:
    """The embedded model's integer module."""
    return import_model(artifact.onnx, Meaning(1, None, None, None), None)


def texts_of(lowered: IRModule, target: Target) -> list[str]:
    """The CUDA text that a module becomes."""
    texts: list[str] = []
    assert target.gpu is not None
    build_executable(lowered, TvmTarget(target.tvm_config()), target.gpu, texts)
    return texts


def assembly(text: str, architecture: str) -> tuple[str, str]:
    """Machine code by function where a disassembler is found, else PTX; and which it is."""
    binary = toolchain.compile_cuda(text, (architecture,))
    tool = find_tool("cuobjdump")
    if tool is not None:
        path = Path(toolchain.cache_folder()) / "cuda" / "test.fatbin"
        path.write_bytes(binary)
        done = subprocess.run([tool, "-sass", path], capture_output=True, text=True, check=True)
        return done.stdout, "sass"
    nvcc = find_tool("nvcc")
    if nvcc is None:
        pytest.skip("neither cuobjdump nor nvcc: nothing to look at")
    number = SPECIFIC.get(architecture, architecture).removeprefix("sm_")
    done = subprocess.run(
        [nvcc, "-x", "cu", "-ptx", f"-arch=compute_{number}", "-o", "-", "-"],
        input=text, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout, "ptx"


def by_function(text: str, kind: str) -> dict[str, str]:
    """The assembly of each kernel."""
    mark = r"Function : (\w+)" if kind == "sass" else r"\.visible \.entry (\w+)\("
    parts = re.split(mark, text)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def together(kernel: Kernel) -> Schedule:
    """Products by ``wgmma``."""
    if set(kernel.knobs()) != set(KNOBS):
        return {}
    return vars(Tile(16, 64, 4, 1, 1, 64, 3, 1))


@needs_compiler
def test_a_library_has_machine_code_and_no_text(cuda_folder: Path) -> None:
    data = (cuda_folder / LIBRARY_NAME).read_bytes()
    assert set(fatbin.contents(data)) == {("elf", "sm_90"), ("ptx", "sm_90")}
    assert b"__global__" not in data and b"vitq_mma" not in data


def test_a_library_with_text_or_without_code_is_refused(tmp_path: Path) -> None:
    gpu = get_target("cuda").gpu
    assert gpu is not None
    path = tmp_path / "model.so"
    path.write_bytes(b"extern __global__ void kernel() {}")
    with pytest.raises(VitqError, match="no machine code for sm_90"):
        require_machine_code(path, gpu)


@needs_compiler
def test_at_most_eight_launches_for_a_block(cuda_folder: Path) -> None:
    import tvm

    driver.load_runtime()
    module = tvm.runtime.load_module(str((cuda_folder / LIBRARY_NAME).resolve()))
    calls = launches.kernel_calls(str(module["as_text"]()))
    assert read_json(cuda_folder / METADATA_NAME)["kernel_calls"] == len(calls)
    ends = [i for i, name in enumerate(calls) if name.startswith("attention")]
    assert len(ends) == BLOCKS
    assert max(np.diff(ends)) <= LAUNCHES_OF_A_BLOCK
    assert len(calls) <= BLOCKS * LAUNCHES_OF_A_BLOCK + 8, "patches, tokens, norm and head"
    assert "run_or_capture" in str(module["as_text"]()), "blocks are recorded as a CUDA graph"


@needs_compiler
def test_products_are_on_tensor_cores_and_nothing_is_float(digits: ImportedModel) -> None:
    target = get_target("cuda")
    lowered = lower_kernels(digits.integer.mod, target.features, TvmTarget(target.tvm_config()))
    (text,) = texts_of(lowered, target)
    code, kind = assembly(text, "sm_90")
    kernels = by_function(code, kind)
    wanted = "IMMA.16832" if kind == "sass" else "mma.sync.aligned.m16n8k32.row.col.s32"
    copies = "LDGSTS" if kind == "sass" else "cp.async.cg"
    products = [name for name in kernels if name.startswith(("linear", "attention", "patch"))]
    assert len(products) >= 6
    for name in products:
        assert wanted in kernels[name], name
        assert copies in kernels[name] or name.startswith("patch"), name
    for name, body in kernels.items():
        assert not (FLOAT_SASS if kind == "sass" else FLOAT_PTX).search(body), name


@needs_compiler
@pytest.mark.parametrize(("architectures", "dependent"), [("sm_90", True), ("sm_87,sm_90", False)])
def test_kernels_begin_while_the_one_in_front_ends(
    architectures: str, dependent: bool, digits: ImportedModel, tmp_path: Path
) -> None:
    """Where all GPUs can; and then no input is ``__restrict__``, so that no load is moved."""
    target = get_target("cuda").for_architectures(tuple(architectures.split(",")))
    assert target.gpu is not None
    tvm_target = TvmTarget(target.tvm_config())
    lowered = lower_kernels(digits.integer.mod, target.features, tvm_target)
    texts: list[str] = []
    executable = build_executable(lowered, tvm_target, target.gpu, texts)
    executable.export_library(str(tmp_path / "model.so"))
    signatures = set(re.findall(r"__global__ .*?(\w+)_kernel\((.*?)\)", texts[0]))
    ours = dict(s for s in signatures if s[0] in {v.name_hint for v in lowered.functions})
    assert len(ours) >= 8
    marked = (tmp_path / "model.so").read_bytes().count(DEPENDENT_TAG.encode())
    assert marked == (len(ours) if dependent else 0)
    for parameters in ours.values():
        inputs = [p for p in parameters.split(", ") if "out_ptr" not in p]
        assert ("__restrict__" in inputs[0]) is not dependent


@needs_compiler
@pytest.mark.parametrize(("name", "shape"), [("rtx2080ti", "8816"), ("jetson-orin", "16832")])
def test_other_architectures(name: str, shape: str, digits: ImportedModel) -> None:
    """One attention kernel and one product for each."""
    target = get_target(name)
    assert target.gpu is not None
    tvm_target = TvmTarget(target.tvm_config())
    lowered = lower_kernels(digits.integer.mod, target.features, tvm_target)
    builder = relax.BlockBuilder()
    for kernel in ("linear_0", "attention_0"):
        builder.add_func(lowered[kernel], kernel)
    x = relax.Var("x", relax.TensorType((1,), "int8"))
    with builder.function("main", [x]):
        builder.emit_func_output(x)
    (text,) = texts_of(builder.finalize(), target)
    code, kind = assembly(text, target.gpu.newest)
    for body in by_function(code, kind).values():
        assert (f"IMMA.{shape}" if kind == "sass" else "mma.sync.aligned.m") in body


@needs_compiler
def test_hopper_multiplies_with_four_warps_and_newer_gpus_without(digits: ImportedModel) -> None:
    """``wgmma`` in the machine code of sm_90a; the PTX for newer GPUs has ``mma`` in its place."""
    target = get_target("cuda")
    lowered = lower(digits.integer.mod, target, together)
    (text,) = texts_of(lowered, target)
    code, kind = assembly(text, "sm_90")
    wanted = "IGMMA.64x64x32.S8.S8" if kind == "sass" else "wgmma.mma_async.sync.aligned.m64n64k32"
    products = {n: body for n, body in by_function(code, kind).items() if n.startswith("linear")}
    assert products and all(wanted in body for body in products.values())
    newer, kind = assembly(text, "sm_100")
    assert "mma.sync" in newer or "IMMA" in newer
    assert "wgmma" not in newer and "IGMMA" not in newer


def test_the_embedded_model_is_exact_on_the_emulated_gpu(digits: ImportedModel) -> None:
    """Every kernel of a real network, from pixels to logits."""
    pixels = np.random.default_rng(0).integers(0, 256, digits.shape, dtype=np.uint8)
    lowered = lower(digits.integer.mod, get_target("cuda"))
    found = run_model(lowered, pixels, emulator(lowered))
    np.testing.assert_array_equal(found, interpret(digits.integer.mod, [pixels])[0])


@needs_compiler
@pytest.mark.parametrize("choose", [untuned, together], ids=["default", "wgmma"])
def test_the_emitted_text_is_exact_on_a_processor(
    digits: ImportedModel, tmp_path: Path, choose: Choose
) -> None:
    """What TVM's passes and code generator made of the kernels, not the kernels as written."""
    target = get_target("cuda")
    pixels = np.random.default_rng(1).integers(0, 256, digits.shape, dtype=np.uint8)
    lowered = lower(digits.integer.mod, target, choose)
    found = run_model(lowered, pixels, EmittedKernels(lowered, target, tmp_path).run)
    np.testing.assert_array_equal(found, interpret(digits.integer.mod, [pixels])[0])


@needs_compiler
@pytest.mark.skipif(driver.why_no_gpu() is not None, reason="no NVIDIA GPU here")
def test_the_library_is_exact_on_a_gpu(cuda_folder: Path) -> None:
    assert all(check.different == 0 for check in verify(cuda_folder, count=8))


@needs_compiler
def test_without_a_gpu_one_line_says_so(
    cuda_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "why_no_gpu", lambda: "no NVIDIA GPU here")
    for stage in (lambda: verify(cuda_folder), lambda: open_compiled(cuda_folder).library()):
        with pytest.raises(VitqError, match=r"compiled for cuda, but there is no NVIDIA GPU here"):
            stage()
    pixels = tmp_path / "x.npy"
    np.save(pixels, np.zeros((1, 3, 32, 32), np.uint8))
    with pytest.raises(VitqError, match="NVIDIA GPU"):
        run(cuda_folder, pixels, tmp_path / "y.npy")
    run(cuda_folder, pixels, tmp_path / "y.npy", backend="reference")


def test_code_for_another_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "why_no_gpu", lambda: None)
    cases: list[tuple[str, int, bool]] = [
        ("h200", 90, True), ("h200", 75, False), ("h200", 100, True), ("h200", 120, False),
        ("rtx2080ti", 90, True), ("jetson-orin", 86, False),
    ]  # fmt: skip
    for name, capability, fits in cases:
        monkeypatch.setattr(driver, "capability", lambda value=capability: value)
        reason = driver.why_not_here(get_target(name).gpu)  # type: ignore[arg-type]
        assert (reason is None) == fits, (name, capability, reason)


def test_the_stub_is_not_taken_for_a_driver() -> None:
    before = driver.why_no_gpu()
    driver.load_runtime()
    assert driver.why_no_gpu() == before


def test_no_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "find_tool", lambda name: None)
    monkeypatch.setattr(nvrtc, "_load", lambda names: None)
    with pytest.raises(VitqError, match=r"pip install nvidia-cuda-nvcc .* nvidia-cuda-nvrtc"):
        toolchain.compile_cuda("", ("sm_90",))


class FailingNvrtc:
    """A run-time compiler whose every call gives a code."""

    def __init__(self, **codes: int) -> None:
        self._codes = codes

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *arguments: self._codes.get(name, 0)


def test_what_nvrtc_says_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_text", lambda *arguments: b"kernels.cu(1): error:\n  no x\0")
    with pytest.raises(VitqError, match=r"^NVRTC failed: kernels.cu\(1\): error: no x$"):
        nvrtc._compile(FailingNvrtc(nvrtcCompileProgram=6), "", "sm_90", "CUBIN")

    def words(code: int) -> bytes:
        return b"NVRTC_ERROR_OUT_OF_MEMORY"

    library = SimpleNamespace(nvrtcGetErrorString=words)
    with pytest.raises(VitqError, match="NVRTC said NVRTC_ERROR_OUT_OF_MEMORY: install it anew"):
        nvrtc._check(library, 1)


def test_several_architectures_need_nvfatbin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_load", lambda names: names == nvrtc.LIBRARIES or None)
    monkeypatch.setattr(nvrtc, "_compile", lambda *arguments: b"machine code")
    assert nvrtc.compile_text("", ("sm_90",)) == b"machine code"
    with pytest.raises(VitqError, match=r"NVRTC needs nvfatbin for several .*: pip install"):
        nvrtc.compile_text("", ("sm_80", "sm_90"))


def test_a_runtime_that_does_not_load_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import tvm

    def missing(*arguments: object) -> None:
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(tvm, "get_global_func", lambda *arguments, **options: None)
    monkeypatch.setattr(driver, "has_driver", lambda: True)
    monkeypatch.setattr(driver, "_load_cuda_runtime", lambda: None)
    monkeypatch.setattr(driver.ctypes, "CDLL", missing)
    with pytest.raises(VitqError, match=r"CUDA runtime does not load: libcudart\.so\.13"):
        driver.load_runtime()


@needs_compiler
def test_a_second_compilation_comes_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = 'extern "C" __global__ void nothing() {}'
    first = toolchain.compile_cuda(text, ("sm_90",))
    assert fatbin.contents(first)
    monkeypatch.setattr(toolchain, "_nvcc", lambda *args: pytest.fail("compiled again"))
    monkeypatch.setattr(nvrtc, "compile_text", lambda *args: pytest.fail("compiled again"))
    assert toolchain.compile_cuda(text, ("sm_90",)) == first


def test_architectures_are_checked() -> None:
    with pytest.raises(VitqError, match=r"sm_12 .did you mean sm_120..: choose from sm_75"):
        get_target("cuda").for_architectures(("sm_90", "sm_12"))
    with pytest.raises(VitqError, match="has no GPU"):
        get_target("x86-64").for_architectures(("sm_90",))
    both = get_target("cuda").for_architectures(("sm_90", "sm_75"))
    assert both.gpu is not None and both.gpu.architectures == ("sm_75", "sm_90")
    assert both.features.shared_bytes == 64 * 1024  # type: ignore[union-attr]


@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-g++") is None, reason="no ARM cross compiler")
@needs_compiler
def test_a_jetson_library_is_for_its_processor(artifact: Artifact) -> None:
    target = get_target("jetson-orin")
    assert "aarch64" in find_compiler(target)
    folder = compile_model(artifact.folder, CompileOptions(target=get_target("jetson-orin")))
    data = (folder / LIBRARY_NAME).read_bytes()
    assert data[18:20] == b"\xb7\x00", "ELF for AArch64"
    assert ("elf", "sm_87") in fatbin.contents(data)
