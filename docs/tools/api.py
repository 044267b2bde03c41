"""Say which names of ``import vitq`` the reference shows, and in which order."""

import ast
from pathlib import Path

from docs.tools.tables import ROOT

PACKAGE = ROOT / "vitq" / "__init__.py"
FIRST = ("quantize", "Quantized", "compile", "load", "Library", "deploy")
"""The names of the first example, in its order; the others follow by the alphabet."""


def public_names(path: Path = PACKAGE) -> list[str]:
    """Read ``__all__`` without importing the package."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def reference() -> str:
    """Ask `mkdocstrings` for every public name."""
    names = public_names()
    ordered = [name for name in FIRST if name in names]
    ordered += [name for name in sorted(names, key=str.lower) if name not in FIRST]
    return "\n\n".join(f"::: vitq.{name}" for name in ordered)
