"""Factories of models, ``package.module:factory``: how they are imported, and from which files.

The module may be installed or lie in the current folder, where one of its name comes first.
Whatever else is imported meanwhile is looked for in the current folder last: a file there that
happens to be called ``numpy.py`` breaks nothing. Nothing here loads torch.
"""

import ast
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import chdir, contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from vitq.models.timm_compat import MISSING, repaired, with_repair
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.user_code import INSTALLED, explained, prints_aside, user_code

PROJECT = "vitq"
"""Its sources are in every fingerprint already."""


def call_factory(model: str) -> object:
    """Import a factory and call it.

    Args:
        model: ``package.module:factory``.

    Returns:
        What it returns.

    Raises:
        VitqError: there is no such module or attribute, or its code raised an exception.
    """
    module_name, _, attribute = model.partition(":")
    # A factory that moves to its weights' folder would take all relative paths along, and what it
    # prints does not belong to a command's answer.
    with _importable(module_name), chdir(os.curdir), prints_aside():
        factory = with_repair(lambda: _imported(model, module_name, attribute))
        with user_code(f"model {model!r} raised an error"):
            return with_repair(factory)


def _imported(model: str, module_name: str, attribute: str) -> Callable[[], object]:
    """Return the factory of a module.

    Raises:
        VitqError: not there, or the module's own code failed.
        RuntimeError: what `with_repair` can mend.
    """
    try:
        factory: Callable[[], object] = getattr(importlib.import_module(module_name), attribute)
    except VitqError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, RuntimeError) and MISSING in str(error) and not repaired():
            raise
        raise explained(
            f"model {model!r} cannot be imported (looked in {Path.cwd()} and in what is installed)",
            error,
        ) from error
    if not callable(factory):
        raise VitqError(
            f"model {model!r} is a {type(factory).__name__}: give a function without arguments "
            "that returns the model"
        )
    return factory


class _OneName:
    """Finds one top-level module in a folder; for `sys.meta_path`."""

    def __init__(self, name: str, folder: str) -> None:
        self._name, self._folder = name, folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's spec; None for any other name."""
        return PathFinder.find_spec(fullname, [self._folder]) if fullname == self._name else None


@contextmanager
def _importable(module_name: str) -> Iterator[None]:
    """Let a module be imported from the current folder, and last of all what it imports.

    Raises:
        VitqError: the folder has it, but another module of its name is loaded.
    """
    folder = str(Path.cwd())
    finders: list[Any] = []
    parts = module_name.split(".")
    if not all(part.isidentifier() for part in parts) or (parts[1:] and parts[-1] == "py"):
        raise VitqError(
            f"model {module_name!r}: a module is wanted, and no file: of my_models/vit.py write "
            "my_models.vit:FUNCTION"
        )
    if _own_file(module_name, folder) is not None:
        _require_free(module_name, folder)
        finders.append(_OneName(module_name.partition(".")[0], folder))
    sys.meta_path[:0] = finders
    sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = [entry for entry in sys.path if entry is not folder]
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in finders]


def _own_file(module_name: str, folder: str) -> Path | None:
    """Return the module's file, if that folder has it."""
    place = Path(folder, *module_name.split("."))
    files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((file for file in files if file.is_file()), None)


def _require_free(module_name: str, folder: str) -> None:
    """Refuse a name under which a module from elsewhere is loaded."""
    top = module_name.partition(".")[0]
    loaded = sys.modules.get(top)
    if loaded is None:
        return
    places = [*getattr(loaded, "__path__", ()), getattr(loaded, "__file__", None)]
    here = Path(folder).resolve()
    if not any(Path(place).resolve().is_relative_to(here) for place in places if place):
        raise VitqError(
            f"model {module_name}: {_own_file(module_name, folder)} has the name of a module that "
            "is in use: rename it"
        )


def factory_files(model: str) -> dict[str, Path]:
    """Find the source files that a factory is made of by reading imports, without importing.

    Args:
        model: ``package.module:factory``.

    Returns:
        Module name -> file: the factory's module, the rest of its top-level package as far as it is
        imported, and what is imported from outside of installed packages; empty if there is none.

    Raises:
        VitqError: see `call_factory`.
    """
    name = model.partition(":")[0]
    found: dict[str, Path] = {}
    with _importable(name):
        waiting = [name]
        while waiting:
            for spec in _specs(waiting.pop()):
                file = None if spec.origin is None else Path(spec.origin)
                if spec.name not in found and file and _is_own(spec.name, file, model):
                    found[spec.name] = file
                    waiting += _imports(spec, file)
    return dict(sorted(found.items()))


def loaded_files(model: str, before: Iterable[str]) -> dict[str, Path]:
    """As `factory_files`, but what was loaded: imports that no reader can see are among them.

    Args:
        model: ``package.module:factory``.
        before: names of modules that were loaded before the factory was.
    """
    new = {name: sys.modules[name] for name in set(sys.modules).difference(before)}
    files = {name: getattr(module, "__file__", None) for name, module in sorted(new.items())}
    return {n: Path(file) for n, file in files.items() if file and _is_own(n, Path(file), model)}


def _is_own(name: str, file: Path, model: str) -> bool:
    """Whether a module is the user's: part of the factory's package, or of no installed one."""
    top = name.partition(".")[0]
    if top == PROJECT or not file.is_file():
        return False
    if top == model.partition(":")[0].partition(".")[0]:
        return True
    return top not in sys.stdlib_module_names and not INSTALLED.intersection(file.parts)


def _specs(name: str) -> Iterator[ModuleSpec]:
    """Specs of the packages around a module and of itself, as far as there are any."""
    parts = name.split(".")
    try:
        spec = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        return
    for end in range(2, len(parts) + 2):
        if spec is None:
            return
        yield spec
        places = spec.submodule_search_locations
        if places is None or end > len(parts):
            return
        spec = _inside(".".join(parts[:end]), places)


def _inside(name: str, places: Iterable[str]) -> ModuleSpec | None:
    """Find a module in its package's folders.

    Python's own finder asks the packages around it, which are not loaded, where they are folders
    without ``__init__.py``.
    """
    finders = (pkgutil.get_importer(place) for place in places)
    found = [spec for finder in finders if finder and (spec := finder.find_spec(name)) is not None]
    return next((spec for spec in found if spec.loader is not None), found[0] if found else None)


def _imports(spec: ModuleSpec, file: Path) -> list[str]:
    """Names that a module may import; of ``from a import b`` both a and a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []  # no Python; importing it will tell
    package = spec.name if spec.submodule_search_locations is not None else spec.parent
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package or "")
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
    return names


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """Return the module that is imported from; empty if a relative import leaves the package."""
    if node.level == 0:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base) if base else ""
