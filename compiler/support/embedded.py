"""The names of what comes with the project: a model, and where calibration pictures come from."""

EMBEDDED_MODEL = "digits_vit"
EMBEDDED_CALIBRATION = "digits"
GENERATED = ("psaq", "psaq2", "noise")
"""Names of `quantization.datafree.sources.SOURCES`; a folder of that name is given as ./psaq."""
