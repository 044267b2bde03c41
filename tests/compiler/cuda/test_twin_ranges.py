"""PTQ4ViT's twin ranges behind Softmax and GELU, in the CUDA text that TVM emits."""

from pathlib import Path

import numpy as np

from compiler.export import export
from compiler.importing import Meaning, import_model
from compiler.quantize import QuantizeOptions, quantize
from compiler.targets import get_target
from numerics.twin_codes import ONE_RANGE
from quantization import artifact as storage
from quantization.attention_codes import twin_codes_of
from quantization.graph import OpKind
from quantization.reference import IntegerReference
from quantization.twin_ranges import twin_of
from tests.compiler.cuda.compilers import needs_compiler
from tests.compiler.cuda.emitted import EmittedKernels
from tests.compiler.cuda.emulated_model import lower, run_model


@needs_compiler
def test_the_embedded_model_with_twin_ranges_is_exact(tmp_path: Path) -> None:
    artifact = quantize(QuantizeOptions(artifacts=tmp_path, recipe="w6a6", method="ptq4vit"))
    graph = storage.load(artifact.folder).graph
    twins = {twin_codes_of(node) for node in graph if node.op is OpKind.EXP}
    assert twins and ONE_RANGE not in twins
    assert all(twin_of(node) for node in graph if node.op is OpKind.GELU)
    export(artifact)
    model, target = import_model(artifact.onnx, Meaning(1, None, None, None), None), "cuda"
    lowered = lower(model.integer.mod, get_target(target))
    kernels = EmittedKernels(lowered, get_target(target), tmp_path)
    pixels = np.random.default_rng(2).integers(0, 256, model.shape, dtype=np.uint8)
    found = run_model(lowered, pixels, kernels.run)
    np.testing.assert_array_equal(found, IntegerReference(graph)(pixels))
