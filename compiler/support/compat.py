"""Work-arounds for the pinned TVM; the test of each says when it can go."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from vitq.numerics.errors import VitqError

TVM_VERSION = "0.27.0.post1"
FFI_VERSION = "0.1.14.post0"


def check_versions() -> None:
    """Refuse a TVM other than the pinned pair.

    With apache-tvm-ffi 0.1.15, which pip would choose for apache-tvm 0.27.0.post1 on its own,
    ``Schedule.tensorize`` crashes the process.

    Raises:
        VitqError: naming what to install.
    """
    for package, wanted in (("apache-tvm", TVM_VERSION), ("apache-tvm-ffi", FFI_VERSION)):
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "not installed"
        if found != wanted:
            raise VitqError(
                f"{package} is {found}, this release needs {wanted}: "
                f"pip install {package}=={wanted}"
            )


@contextmanager
def no_tensor_intrinsics() -> Iterator[None]:
    """MetaSchedule without its tensor intrinsics.

    A tuning context imports all of them, which takes 40 s, most of it for CUDA's; our
    kernels use none.
    """
    name = "tvm.s_tir.tensor_intrin"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]
