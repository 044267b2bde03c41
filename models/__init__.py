"""Small reference models that ship with the repository, weights and data included.

Each is a package that is called like its function, which builds it: `digits_vit.digits_vit`. Beside
that stand ``CHECKPOINT``, ``IMAGE_SIZE``, ``MEAN``, ``STD`` and ``NUM_CLASSES``. Nothing here loads
torch.
"""

import importlib
from types import ModuleType

EMBEDDED_MODELS = ("digits_vit", "digits_swin", "scenes_swin", "scenes_yolos")
"""The first is the default of all commands."""
DIGITS, SCENES = "digits", "scenes"


def own_pictures(name: str) -> str:
    """Return what calibrates and evaluates one of `EMBEDDED_MODELS`."""
    return SCENES if name.startswith(SCENES) else DIGITS


def embedded(name: str) -> ModuleType:
    """Return the package of one of `EMBEDDED_MODELS`."""
    return importlib.import_module(f"vitq.models.{name}")
