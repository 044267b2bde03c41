"""The names of what comes with the project: models, and where calibration pictures come from."""

from vitq.models import EMBEDDED_MODELS

EMBEDDED_MODEL = EMBEDDED_MODELS[0]
EMBEDDED_CALIBRATION = "digits"
GENERATED = ("psaq", "psaq2", "noise")
"""Names of `quantization.datafree.sources.SOURCES`; a folder of that name is given as ./psaq."""

__all__ = ["EMBEDDED_CALIBRATION", "EMBEDDED_MODEL", "EMBEDDED_MODELS", "GENERATED"]
