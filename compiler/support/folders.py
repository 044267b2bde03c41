"""Where the project's files lie, and where it may write: caches and tuning logs of a user."""

from importlib.resources import files
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

PROJECT = "vitq"
ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds ``compiler/``: the repository, or the installed package."""


def is_checkout() -> bool:
    """Whether this is a repository, whose own files may be written, and not an installed wheel."""
    return (ROOT / "pyproject.toml").is_file()


def cache_folder() -> Path:
    """Return the user's folder for what can be made or fetched again (``$XDG_CACHE_HOME/vitq``)."""
    return user_cache_path(PROJECT)


def data_folder() -> Path:
    """Return the user's folder for what is kept (``$XDG_DATA_HOME/vitq``)."""
    return user_data_path(PROJECT)


def resource(package: str, name: str) -> Path:
    """Find a file or folder that comes with a package.

    Args:
        package: dotted name, such as ``vitq.compiler.deploy``.
        name: inside of it.
    """
    return Path(str(files(package) / name)).resolve()
