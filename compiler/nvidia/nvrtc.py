"""CUDA's run-time compiler as a compiler: what ``pip install nvidia-cuda-nvrtc`` brings.

It needs no C++ compiler and no headers; one program becomes machine code for one architecture.
Several, or PTX beside it, are put together by ``nvidia-nvfatbin``.
"""

import ctypes
from typing import Any

from vitq.compiler.nvidia.places import nvidia_packages
from vitq.compiler.target.gpus import SPECIFIC
from vitq.numerics.errors import VitqError, plain

LIBRARIES = ("libnvrtc.so.13", "libnvrtc.so")
FATBIN_LIBRARIES = ("libnvfatbin.so.13", "libnvfatbin.so")
OPTIONS = ("--std=c++17", "--diag-suppress=177", "-default-device", "-DVITQ_NVRTC=1")
INTEGERS = (
    "int8_t signed char, uint8_t unsigned char, int16_t short, uint16_t unsigned short, "
    "int32_t int, uint32_t unsigned int, int64_t long long, uint64_t unsigned long long"
)
TRAITS = "is_same is_same_v is_integral is_signed is_unsigned is_floating_point enable_if"


def version() -> str | None:
    """Name and version of the library; None if there is none."""
    library = _load(LIBRARIES)
    if library is None:
        return None
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"nvrtc {major.value}.{minor.value}"


def compile_text(code: str, architectures: tuple[str, ...]) -> bytes:
    """Make a fat binary; plain machine code for one architecture where nvfatbin is missing.

    Raises:
        VitqError: with the compiler's words, or several architectures without nvfatbin.
    """
    library, fatbin = _load(LIBRARIES), _load(FATBIN_LIBRARIES)
    assert library is not None
    names = [SPECIFIC.get(name, name) for name in architectures]
    binaries = [_compile(library, code, name, "CUBIN") for name in names]
    if fatbin is None:
        if len(architectures) > 1:
            raise VitqError(
                "NVRTC needs nvfatbin for several architectures: pip install nvidia-nvfatbin"
            )
        return binaries[0]
    newest = architectures[-1].removeprefix("sm_")
    ptx = _compile(library, code, f"compute_{newest}", "PTX")
    return _join(fatbin, dict(zip(names, binaries, strict=True)), newest, ptx)


def _load(names: tuple[str, ...]) -> Any:
    """Return the first library found: the system's, or that of pip's packages."""
    folders = [folder / "lib" for folder in nvidia_packages()]
    for path in [p for folder in folders for p in folder.glob("libnvrtc-builtins.so*")]:
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)  # NVRTC looks for it by name only
    for name in names:
        for place in (name, *(str(folder / name) for folder in folders)):
            try:
                return ctypes.CDLL(place)
            except OSError:
                continue
    return None


def _headers() -> dict[str, str]:
    """Return what TVM's preamble includes, as far as integer kernels need it."""
    pairs = [pair.split(" ", 1) for pair in INTEGERS.split(", ")]
    types = " ".join(f"typedef {kind} {name};" for name, kind in pairs)
    traits = []
    for name in TRAITS.split():
        if name.endswith("_v"):
            traits.append(f"template <class A, class B> constexpr bool {name} = false;")
        else:
            traits.append(f"template <class... A> struct {name};")
    traits.append("template <bool B, class T, class F> struct conditional;")
    return {
        "cuda/std/cstdint": f"namespace cuda {{ namespace std {{ {types} }} }}",
        "cuda/std/type_traits": f"namespace cuda {{ namespace std {{ {' '.join(traits)} }} }}",
    }


def _compile(library: Any, code: str, architecture: str, kind: str) -> bytes:
    """Machine code or PTX."""
    program = ctypes.c_void_p()
    headers = _headers()
    names = (ctypes.c_char_p * len(headers))(*(name.encode() for name in headers))
    texts = (ctypes.c_char_p * len(headers))(*(text.encode() for text in headers.values()))
    _check(library, library.nvrtcCreateProgram(
        ctypes.byref(program), code.encode(), b"kernels.cu", len(headers), texts, names
    ))  # fmt: skip
    options = [f"--gpu-architecture={architecture}", *OPTIONS]
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    try:
        if library.nvrtcCompileProgram(program, len(options), array):
            raise VitqError(
                f"NVRTC failed: {plain(_text(library, program, 'ProgramLog').decode())}"
            )
        return _text(library, program, kind)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(library: Any, program: ctypes.c_void_p, what: str) -> bytes:
    """One of a program's results."""
    size = ctypes.c_size_t(0)
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(library: Any, code: int) -> None:
    if code:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise VitqError(f"NVRTC said {library.nvrtcGetErrorString(code).decode()}: install it anew")


def _join(fatbin: Any, binaries: dict[str, bytes], newest: str, ptx: bytes) -> bytes:
    """Machine code of several architectures and PTX as one binary."""
    handle, size = ctypes.c_void_p(), ctypes.c_size_t(0)
    codes = [fatbin.nvFatbinCreate(ctypes.byref(handle), None, 0)]
    for name, binary in binaries.items():
        number = name.removeprefix("sm_").encode()
        codes.append(
            fatbin.nvFatbinAddCubin(handle, binary, ctypes.c_size_t(len(binary)), number, b"vitq")
        )
    codes.append(
        fatbin.nvFatbinAddPTX(handle, ptx, ctypes.c_size_t(len(ptx)), newest.encode(), b"vitq", b"")
    )
    codes.append(fatbin.nvFatbinSize(handle, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    codes.append(fatbin.nvFatbinGet(handle, buffer))
    fatbin.nvFatbinDestroy(ctypes.byref(handle))
    if any(codes):
        raise VitqError(f"nvfatbin failed with {codes}")
    return buffer.raw
