"""Packages that only some commands need."""

from importlib.metadata import PackageNotFoundError, version

from vitq.numerics.errors import VitqError


def installed(package: str) -> str | None:
    """Return the version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def need_extra(package: str, what: str) -> None:
    """Refuse where a package of the optional extra is absent.

    Raises:
        VitqError: naming the extra.
    """
    if installed(package) is None:
        raise VitqError(f"{what} needs {package}: pip install 'vitq[{EXTRA}]'")


EXTRA = "benchmark"
