"""PTQ4ViT's twin ranges behind Softmax and GELU, in the CUDA text that TVM emits."""

from pathlib import Path

import numpy as np

from tests.compiler.cuda.compilers import needs_compiler
from tests.compiler.cuda.emitted import EmittedKernels
from tests.compiler.cuda.emulated_model import lower, run_model
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.stages.export import export
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.target.choice import get_target
from vitq.numerics.twin_codes import ONE_RANGE
from vitq.quantization.graph import artifact as storage
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.plan.attention_codes import twin_codes_of
from vitq.quantization.plan.twin_ranges import twin_of
from vitq.quantization.run.reference import IntegerReference


@needs_compiler
def test_the_embedded_model_with_twin_ranges_is_exact(tmp_path: Path) -> None:
    artifact = quantize(QuantizeOptions.parse(artifacts=tmp_path, recipe="w6a6", method="ptq4vit"))
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
