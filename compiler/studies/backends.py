"""How a cell of a comparison computes logits: three ways to run one quantized model."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vitq.compiler.stages.evaluate import BATCH
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.target.choice import get_target
from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.quantization.pictures.given import GivenPictures

if TYPE_CHECKING:
    from vitq.quantization.graph.artifact import QuantizedModel

logger = logging.getLogger(__name__)

Source = str | GivenPictures
Logits = Callable[[UInt8Array], FloatArray]
TARGET = "cpu"
FOLDER_PREFIX = "vitq-compare."
VERIFIED = 8
"""Real pictures of which every integer is compared; golden, random and extreme ones come on top."""


def _fake(model: "QuantizedModel", _: Source) -> Logits:
    """Quantizers simulated around float operators."""
    import torch

    from vitq.quantization.run.fake_quantize import GraphModule

    module = GraphModule(model.graph, simulate=True)
    return lambda x: module(torch.from_numpy(x.copy())).numpy()


def _reference(model: "QuantizedModel", _: Source) -> Logits:
    """Return the integers that a library computes, in NumPy."""
    from vitq.quantization.run.reference import IntegerReference

    reference = IntegerReference(model.graph)
    return lambda x: reference.real(reference(x))


def _library(model: "QuantizedModel", pictures: Source) -> Logits:
    """Return the compiled library, verified; its files are gone when it is loaded."""
    from vitq.compiler.codegen.compiled import open_compiled
    from vitq.compiler.stages.compile import CompileOptions, compile_model
    from vitq.compiler.stages.export import export
    from vitq.compiler.stages.verify import verify
    from vitq.quantization.graph import artifact as storage

    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX) as folder:
        artifact = Artifact(Path(folder))
        storage.save(artifact.folder, model)
        export(artifact)
        path = compile_model(
            artifact.folder, CompileOptions(target=get_target(TARGET), batch=BATCH)
        )
        checks = verify(path, pictures, VERIFIED)
        logger.info("compare: 0 of %d integers differ", sum(check.values for check in checks))
        compiled = open_compiled(path)
        library = compiled.library()
    return lambda x: compiled.logits(library(x))


BACKENDS: dict[str, Callable[["QuantizedModel", Source], Logits]] = {
    "fake": _fake,
    "reference": _reference,
    "library": _library,
}
"""Name -> function of a quantized model and the pictures to evaluate on."""
