"""Work-arounds for the pinned TVM; the test of each says when it can go."""

from importlib.metadata import PackageNotFoundError, version

from numerics.errors import VitqError

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
