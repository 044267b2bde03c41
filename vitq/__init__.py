"""Integer-only Vision Transformers, from PyTorch to the edge.

    import vitq

    q = vitq.quantize(model, calibration, recipe="w8a8", method="repq")
    lib = vitq.compile(q, target="cpu", batch=8)
    logits = lib(pixels)                     # uint8 (N, C, H, W), any N -> float32 (N, classes)

The functions have the names of the commands (``vitq --help``) and are the same code. Nothing is
written unless it is asked for: `Quantized.save`, `Quantized.export`, `Library.save`, `deploy`,
`kit`, and `tune`, which adds to a tuning log. Whatever a caller did wrong is a `VitqError`: one
line that says what, where, and what to do.

Importing this module loads none of torch, TVM and NumPy; the first use of a name does.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitq.api.compile import compile, load
    from vitq.api.deploy import deploy
    from vitq.api.explain import explain
    from vitq.api.facts import doctor, inspect, report, targets
    from vitq.api.library import Library
    from vitq.api.measure import benchmark, kit, tune
    from vitq.api.quantize import Quantized, quantize
    from vitq.api.study import compare_methods, sensitivity
    from vitq.api.zoo import zoo
    from vitq.compiler.stages.doctor import Finding
    from vitq.compiler.stages.run import Integers
    from vitq.compiler.stages.verify import IntegersDifferError
    from vitq.numerics.errors import VitqError

__all__ = [
    "Finding",
    "Integers",
    "IntegersDifferError",
    "Library",
    "Quantized",
    "VitqError",
    "benchmark",
    "compare_methods",
    "compile",
    "deploy",
    "doctor",
    "explain",
    "inspect",
    "kit",
    "load",
    "quantize",
    "report",
    "sensitivity",
    "targets",
    "tune",
    "zoo",
]

_HOMES = {
    "Finding": "vitq.compiler.stages.doctor",
    "Integers": "vitq.compiler.stages.run",
    "IntegersDifferError": "vitq.compiler.stages.verify",
    "Library": "vitq.api.library",
    "Quantized": "vitq.api.quantize",
    "VitqError": "vitq.numerics.errors",
    "benchmark": "vitq.api.measure",
    "compare_methods": "vitq.api.study",
    "compile": "vitq.api.compile",
    "deploy": "vitq.api.deploy",
    "doctor": "vitq.api.facts",
    "explain": "vitq.api.explain",
    "inspect": "vitq.api.facts",
    "kit": "vitq.api.measure",
    "load": "vitq.api.compile",
    "quantize": "vitq.api.quantize",
    "report": "vitq.api.facts",
    "sensitivity": "vitq.api.study",
    "targets": "vitq.api.facts",
    "tune": "vitq.api.measure",
    "zoo": "vitq.api.zoo",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'vitq' has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(home), name)
    return found


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *__all__})
