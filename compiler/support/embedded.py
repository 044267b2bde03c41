"""The names of what comes with the project: models, and where calibration pictures come from."""

from vitq.models import DIGITS, EMBEDDED_MODELS, SCENES, own_pictures

EMBEDDED_MODEL = EMBEDDED_MODELS[0]
EMBEDDED_PICTURES = (DIGITS, SCENES)
GENERATED = ("psaq", "psaq2", "noise")
"""Names of `quantization.datafree.sources.SOURCES`; a folder of that name is given as ./psaq."""

__all__ = [
    "EMBEDDED_MODEL",
    "EMBEDDED_MODELS",
    "EMBEDDED_PICTURES",
    "GENERATED",
    "own_pictures",
]
