"""TVM's runtime libraries for a device, of exactly the installed versions.

For this machine's architecture they are those of the installed packages. For another they come
from that architecture's wheels of the same versions, fetched once by pip into a cache
(``$XDG_CACHE_HOME/vitq``), together with their hashes.
"""

import logging
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

from vitq.compiler.support.artifacts import file_hash, read_json, write_json
from vitq.compiler.support.folders import cache_folder
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)

PACKAGES = ("apache-tvm", "apache-tvm-ffi")
LIBRARIES = {
    "lib/libtvm_runtime.so": "tvm/lib/libtvm_runtime.so",
    "lib/libtvm_ffi.so": "tvm_ffi/lib/libtvm_ffi.so",
}
CUDA_LIBRARIES = {"lib/libtvm_runtime_cuda.so": "tvm/lib/libtvm_runtime_cuda.so"}
LICENCES = {
    "licenses/apache-tvm.LICENSE": "tvm/LICENSE",
    "licenses/apache-tvm.NOTICE": "tvm/NOTICE",
    "licenses/libbacktrace.LICENSE": "tvm_ffi/3rdparty/libbacktrace/LICENSE",
}
FFI_LICENCES = {
    "licenses/apache-tvm-ffi.LICENSE": "licenses/LICENSE",
    "licenses/apache-tvm-ffi.NOTICE": "licenses/NOTICE",
}
HEADERS = {
    "src/include/tvm/ffi/c_api.h": "tvm_ffi/include/tvm/ffi/c_api.h",
    "src/include/dlpack/dlpack.h": "tvm_ffi/include/dlpack/dlpack.h",
}
INDEX_NAME = "runtime.json"
PLATFORM = "manylinux_2_28"


def runtime_files(architecture: str, cuda: bool = False) -> dict[str, Path]:
    """Return the files that a bundle of the VM's flavour needs of TVM.

    Args:
        architecture: of the device, ``x86_64`` or ``aarch64``.
        cuda: whether the model runs on a GPU.

    Returns:
        For each path inside the bundle the file: libraries, licences, headers of the C interface.

    Raises:
        VitqError: not installed, or not to be fetched.
    """
    root = _site_packages()
    if architecture != platform.machine():
        root = _cached(architecture, cuda)
    ffi = f"apache_tvm_ffi-{distribution('apache-tvm-ffi').version}.dist-info"
    wanted = LIBRARIES | (CUDA_LIBRARIES if cuda else {}) | LICENCES
    wanted |= {name: f"{ffi}/{path}" for name, path in FFI_LICENCES.items()}
    files = {name: root / path for name, path in wanted.items()}
    files |= {name: _site_packages() / path for name, path in HEADERS.items()}
    missing = [path for path in files.values() if not path.is_file()]
    if missing:
        raise VitqError(f"{missing[0]} does not exist: install apache-tvm again")
    return files


def include_folder() -> Path:
    """Return the headers of TVM's C interface."""
    return _site_packages() / "tvm_ffi" / "include"


def _site_packages() -> Path:
    return Path(str(distribution("apache-tvm-ffi").locate_file("")))


def _cached(architecture: str, cuda: bool) -> Path:
    """Return the unpacked wheels of another architecture; fetched if they are not there or damaged.

    What an earlier release fetched lacks CUDA's library.
    """
    versions = [distribution(name).version for name in PACKAGES]
    folder = cache_folder() / "-".join(("runtime", architecture, *versions))
    needed = set(CUDA_LIBRARIES.values()) if cuda else set()
    if _is_intact(folder, needed):
        return folder
    requirements = [f"{name}=={version}" for name, version in zip(PACKAGES, versions, strict=True)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch.") as temporary:
        wheels, unpacked = Path(temporary) / "wheels", Path(temporary) / "unpacked"
        _download(requirements, architecture, wheels)
        _unpack(sorted(wheels.glob("*.whl")), unpacked)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)
    return folder


def _is_intact(folder: Path, needed: set[str]) -> bool:
    index = folder / INDEX_NAME
    if not index.is_file():
        return False
    files: dict[str, str] = read_json(index)["files"]
    whole = all((folder / p).is_file() and file_hash(folder / p) == h for p, h in files.items())
    return whole and needed <= set(files)


def _download(requirements: list[str], architecture: str, folder: Path) -> None:
    """Let pip fetch (and check) the wheels."""
    logger.info("deploy: fetching %s for %s, once", ", ".join(requirements), architecture)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--platform", f"{PLATFORM}_{architecture}", "--implementation", "cp",
        "--python-version", version, "--dest", str(folder), *requirements,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise VitqError(
            f"the runtime libraries for {architecture} are not in {cache_folder()} and pip cannot "
            f"fetch {' '.join(requirements)}: connect once, or use --flavour static ({line})"
        )


def _unpack(wheels: list[Path], folder: Path) -> None:
    """Keep the libraries and licences of the wheels, and all hashes."""
    wanted = {*LIBRARIES.values(), *CUDA_LIBRARIES.values(), *LICENCES.values()}
    hashes = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name in wanted or name.endswith(tuple(FFI_LICENCES.values())):
                    archive.extract(name, folder)
                    hashes[name] = file_hash(folder / name)
    content = {"wheels": {wheel.name: file_hash(wheel) for wheel in wheels}, "files": hashes}
    write_json(folder / INDEX_NAME, content)
