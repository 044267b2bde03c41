"""TVM's C interface through ctypes: functions, tensors, modules.

The layouts are those of ``tvm/ffi/c_api.h`` and ``dlpack.h`` of the pinned release.
"""

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NONE, INT, BOOL, OPAQUE, DL_TENSOR, RAW_STRING = 0, 1, 2, 4, 7, 8
FUNCTION, TENSOR, MODULE = 68, 70, 73
FIRST_OBJECT = 64
CPU, CUDA = 1, 2
OBJECT_HEADER_BYTES = 24
TYPE_CODES = {"i": 0, "u": 1, "f": 2}
CAPSULE, USED_CAPSULE = b"dltensor", b"used_dltensor"


class Any16(ctypes.Structure):
    """TVMFFIAny."""

    _fields_ = (
        ("type_index", ctypes.c_int32),
        ("padding", ctypes.c_uint32),
        ("value", ctypes.c_int64),
    )


class ByteArray(ctypes.Structure):
    """TVMFFIByteArray."""

    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_size_t))


class DLTensor(ctypes.Structure):
    """DLPack's tensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class RuntimeFailedError(Exception):
    """A library is missing, or a call failed; one line."""


def tensor_at(
    data: int, shape: Sequence[int], kind: str, bits: int, device: int
) -> tuple[DLTensor, Any]:
    """Describe a contiguous tensor at an address, and what must stay alive with it."""
    extents = (ctypes.c_int64 * len(shape))(*shape)
    pointer = ctypes.cast(extents, ctypes.POINTER(ctypes.c_int64))
    code = TYPE_CODES[kind]
    return DLTensor(data, device, 0, len(shape), code, bits, 1, pointer, None, 0), extents


class Object:
    """A reference to one of the runtime's objects."""

    def __init__(self, runtime: "Runtime", handle: int, kind: int) -> None:
        self.runtime, self.handle, self.kind = runtime, handle, kind

    def __del__(self) -> None:
        self.runtime.release(self.handle)

    def __call__(self, *args: Any) -> Any:
        """Call a function object."""
        return self.runtime.call(self.handle, args)

    @property
    def dl(self) -> DLTensor:
        """The DLTensor of a tensor object."""
        return DLTensor.from_address(self.handle + OBJECT_HEADER_BYTES)


class Runtime:
    """TVM's libraries in a folder.

    Args:
        folder: with ``libtvm_ffi.so``, ``libtvm_runtime.so``, and for GPUs
            ``libtvm_runtime_cuda.so``.
        cuda: whether the last one is loaded.

    Raises:
        RuntimeFailedError: one of them does not load, or TVM's Python package is loaded.
    """

    def __init__(self, folder: Path, cuda: bool) -> None:
        if "tvm_ffi" in sys.modules:
            raise RuntimeFailedError("TVM is loaded in this process: a second copy cannot be")
        self.ffi = load_library(folder / "libtvm_ffi.so")
        load_library(folder / "libtvm_runtime.so")
        self.device = CUDA if cuda else CPU
        if cuda:
            load_cuda()
            load_library(folder / "libtvm_runtime_cuda.so")

    def release(self, handle: int) -> None:
        """Drop a reference."""
        self.ffi.TVMFFIObjectDecRef(ctypes.c_void_p(handle))

    def function(self, name: str) -> Object:
        """Find a global function."""
        text = name.encode()
        key, handle = ByteArray(text, len(text)), ctypes.c_void_p()
        if self.ffi.TVMFFIFunctionGetGlobal(ctypes.byref(key), ctypes.byref(handle)):
            raise RuntimeFailedError(self._raised())
        if not handle.value:
            raise RuntimeFailedError(f"the runtime has no function {name}")
        return Object(self, handle.value, FUNCTION)

    def load(self, path: Path) -> Object:
        """Load a compiled library."""
        module: Object = self.function("ffi.ModuleLoadFromFile")(str(path.resolve()))
        return module

    def method(self, module: Object, name: str) -> Object:
        """Find a function of a module or of what it imports."""
        found = self.function("ffi.ModuleGetFunction")(module, name, True)
        if found is None:
            raise RuntimeFailedError(f"the library has no function {name}")
        result: Object = found
        return result

    def call(self, handle: int, args: Sequence[Any]) -> Any:
        """Call a function with integers, texts, tensors, addresses and objects."""
        values = (Any16 * max(len(args), 1))()
        keep = [_fill(value, arg) for value, arg in zip(values, args, strict=False)]
        result = Any16()
        failed = self.ffi.TVMFFIFunctionCall(
            ctypes.c_void_p(handle), values, len(args), ctypes.byref(result)
        )
        del keep
        if failed:
            raise RuntimeFailedError(self._raised())
        if result.type_index >= FIRST_OBJECT:
            return Object(self, result.value, result.type_index)
        return None if result.type_index == NONE else result.value

    def from_dlpack(self, source: Any) -> Object:
        """Make a tensor object over the memory of any array with ``__dlpack__``."""
        capsule = source.__dlpack__()
        api = ctypes.pythonapi
        api.PyCapsule_GetPointer.restype = ctypes.c_void_p
        api.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
        api.PyCapsule_SetName.argtypes = (ctypes.py_object, ctypes.c_char_p)
        managed = api.PyCapsule_GetPointer(capsule, CAPSULE)
        handle = ctypes.c_void_p()
        if self.ffi.TVMFFITensorFromDLPack(ctypes.c_void_p(managed), 0, 0, ctypes.byref(handle)):
            raise RuntimeFailedError(self._raised())
        api.PyCapsule_SetName(capsule, USED_CAPSULE)
        assert handle.value is not None
        return Object(self, handle.value, TENSOR)

    def to_dlpack(self, tensor: Object) -> Any:
        """Make a capsule that ``from_dlpack`` of NumPy or PyTorch takes."""
        managed = ctypes.c_void_p()
        if self.ffi.TVMFFITensorToDLPack(ctypes.c_void_p(tensor.handle), ctypes.byref(managed)):
            raise RuntimeFailedError(self._raised())
        api = ctypes.pythonapi
        api.PyCapsule_New.restype = ctypes.py_object
        api.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return api.PyCapsule_New(managed, CAPSULE, None)

    def _raised(self) -> str:
        """Return the first line of the last error."""
        handle = ctypes.c_void_p()
        self.ffi.TVMFFIErrorMoveFromRaised(ctypes.byref(handle))
        if not handle.value:
            return "the runtime failed"
        # An error's cell: kind, then message.
        message = ByteArray.from_address(
            handle.value + OBJECT_HEADER_BYTES + ctypes.sizeof(ByteArray)
        )
        text = ctypes.string_at(message.data, message.size).decode(errors="replace")
        self.release(handle.value)
        return text.splitlines()[0] if text else "the runtime failed"


def _fill(value: Any16, arg: Any) -> Any:
    """Write an argument; returns what must stay alive during the call."""
    if isinstance(arg, bool):
        value.type_index, value.value = BOOL, int(arg)
    elif isinstance(arg, int):
        value.type_index, value.value = INT, arg
    elif isinstance(arg, str):
        text = ctypes.create_string_buffer(arg.encode())
        value.type_index, value.value = RAW_STRING, ctypes.addressof(text)
        return text
    elif isinstance(arg, DLTensor):
        value.type_index, value.value = DL_TENSOR, ctypes.addressof(arg)
    elif isinstance(arg, ctypes.c_void_p):
        value.type_index, value.value = OPAQUE, arg.value or 0
    else:
        value.type_index, value.value = arg.kind, arg.handle
    return arg


def load_library(path: Path) -> Any:
    """Load a library by its path, for all that is loaded later, too."""
    try:
        return ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise RuntimeFailedError(f"{path} cannot be loaded: {error}") from error


def load_cuda() -> Any:
    """CUDA's runtime library: the system's, or that of pip's packages (PyTorch brings one)."""
    name = "libcudart.so.13"
    folders = [folder for root in sys.path if root for folder in Path(root).glob("nvidia/cu13/lib")]
    for place in (name, *(str(folder / name) for folder in folders)):
        try:
            return ctypes.CDLL(place, ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    raise RuntimeFailedError(
        f"{name} is missing: install CUDA 13, or pip install nvidia-cuda-runtime"
    )
