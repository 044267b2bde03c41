"""How a cell of a comparison computes logits: three ways to run one quantized model."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compiler.artifacts import Artifact
from compiler.evaluate import BATCH
from numerics.arrays import FloatArray, UInt8Array

if TYPE_CHECKING:
    from quantization.artifact import QuantizedModel

logger = logging.getLogger(__name__)

Logits = Callable[[UInt8Array], FloatArray]
TARGET = "cpu"
FOLDER_PREFIX = "vitq-compare."
VERIFIED = 8
"""Real pictures of which every integer is compared; golden, random and extreme ones come on top."""


def _fake(model: "QuantizedModel", _: str) -> Logits:
    """Quantizers simulated around float operators."""
    import torch

    from quantization.fake_quantize import GraphModule

    module = GraphModule(model.graph, simulate=True)
    return lambda x: module(torch.from_numpy(x.copy())).numpy()


def _reference(model: "QuantizedModel", _: str) -> Logits:
    """The integers that a library computes, in NumPy."""
    from quantization.reference import IntegerReference

    reference = IntegerReference(model.graph)
    return lambda x: (reference(x) * reference.output_scale).astype(np.float32)


def _library(model: "QuantizedModel", pictures: str) -> Logits:
    """The compiled library, verified; its files are gone when it is loaded."""
    from compiler.compile import CompileOptions, compile_model
    from compiler.export import export
    from compiler.run import open_compiled
    from compiler.verify import verify
    from quantization import artifact as storage

    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX) as folder:
        artifact = Artifact(Path(folder))
        storage.save(artifact.folder, model)
        export(artifact)
        path = compile_model(artifact.folder, CompileOptions(TARGET, BATCH))
        checks = verify(path, pictures, VERIFIED)
        logger.info("compare: 0 of %d integers differ", sum(check.values for check in checks))
        compiled = open_compiled(path)
        library = compiled.library()
    return lambda x: compiled.logits(library(x))


BACKENDS: dict[str, Callable[["QuantizedModel", str], Logits]] = {
    "fake": _fake,
    "reference": _reference,
    "library": _library,
}
"""Name -> function of a quantized model and the pictures to evaluate on."""
