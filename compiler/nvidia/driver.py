"""Which GPU is here, and TVM's CUDA runtime on machines without one.

Without NVIDIA's driver library TVM's CUDA runtime does not load, and its code generator then
embeds CUDA text instead of machine code. On such a machine, and only there, a stub stands in for
the driver (``compiler/nvidia/native/libcuda_stub.c``): enough to compile, nothing runs.
"""

import ctypes
import hashlib
import subprocess
import tempfile
from pathlib import Path

from vitq.compiler.nvidia.places import nvidia_packages
from vitq.compiler.support.folders import cache_folder, resource
from vitq.compiler.target.choice import get_target
from vitq.compiler.target.gpus import ARCHITECTURES, Gpu
from vitq.compiler.target.tools import find_compiler
from vitq.numerics.errors import VitqError

DRIVER = "libcuda.so.1"
RUNTIME = "libcudart.so.13"
STUB_SOURCE = resource("vitq.compiler.nvidia", "native/libcuda_stub.c")
CREATE = "ffi.Module.create.cuda"
ATTRIBUTE_MAJOR, ATTRIBUTE_MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


def load_runtime() -> None:
    """Load TVM's CUDA runtime, with the stub where there is no driver.

    Raises:
        VitqError: if CUDA's own runtime library is missing, too.
    """
    import tvm

    if tvm.get_global_func(CREATE, allow_missing=True) is not None:
        return
    if not has_driver():
        ctypes.CDLL(str(_stub()), ctypes.RTLD_GLOBAL)
    _load_cuda_runtime()
    path = Path(tvm.__file__).parent / "lib" / "libtvm_runtime_cuda.so"
    try:
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise VitqError(f"TVM's CUDA runtime does not load: {error}") from error


def has_driver() -> bool:
    """Whether NVIDIA's driver library is installed; the stub, once loaded, answers to its name."""
    try:
        return hasattr(ctypes.CDLL(DRIVER, ctypes.RTLD_GLOBAL), "cuInit")
    except OSError:
        return False


def why_not_here(gpu: Gpu) -> str | None:
    """Why code for some architectures cannot run here, in a few words; None if it can.

    Machine code runs on later chips of its own generation (sm_80 on sm_86); the newest
    architecture's PTX is compiled by the driver for every newer GPU with as much shared memory.
    """
    reason = why_no_gpu()
    if reason:
        return f"there is {reason}: run it on a machine with an NVIDIA GPU"
    here = capability()
    numbers = [int(name.removeprefix("sm_")) for name in gpu.architectures]
    names = ", ".join(gpu.architectures)
    if here < numbers[-1] and not any(n // 10 == here // 10 and n <= here for n in numbers):
        return f"this GPU is sm_{here}, and the code is for {names}"
    own = ARCHITECTURES.get(f"sm_{here}")
    if own is not None and own.shared_bytes < gpu.features.shared_bytes:
        return f"sm_{here} has less shared memory than code for {names}: give ARCH=sm_{here}"
    return None


def why_no_gpu() -> str | None:
    """Return what is missing here, in a few words; None if a GPU is here."""
    if not has_driver():
        return f"no NVIDIA driver here ({DRIVER} is not installed)"
    driver = ctypes.CDLL(DRIVER)
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
        return "no NVIDIA GPU here"
    return None


def capability() -> int:
    """Compute capability of the first GPU, such as 90."""
    driver, device = ctypes.CDLL(DRIVER), ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), 0)
    numbers = []
    for attribute in (ATTRIBUTE_MAJOR, ATTRIBUTE_MINOR):
        value = ctypes.c_int(0)
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        numbers.append(value.value)
    return 10 * numbers[0] + numbers[1]


def _load_cuda_runtime() -> None:
    """CUDA's runtime library, the system's or that of pip's ``nvidia-cuda-runtime``."""
    places = [RUNTIME, *(str(folder / "lib" / RUNTIME) for folder in nvidia_packages())]
    for place in places:
        try:
            ctypes.CDLL(place, ctypes.RTLD_GLOBAL)
            return
        except OSError:
            continue
    raise VitqError(
        f"{RUNTIME} is missing, which TVM's CUDA runtime needs: install CUDA 13, "
        "or pip install nvidia-cuda-runtime"
    )


def _stub() -> Path:
    """Return the stub library, compiled once."""
    source = STUB_SOURCE.read_bytes()
    folder = cache_folder() / f"libcuda-stub-{hashlib.sha256(source).hexdigest()[:12]}"
    path = folder / DRIVER
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / DRIVER
        command = [find_compiler(get_target("cpu")), "-x", "c", "-shared", "-fPIC"]
        command += [f"-Wl,-soname,{DRIVER}", "-o", str(made), str(STUB_SOURCE)]
        subprocess.run(command, check=True, capture_output=True)
        made.replace(path)
    return path
