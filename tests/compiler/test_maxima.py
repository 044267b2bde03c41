"""Maxima over tokens, compiled: they keep the codes, whatever computes them.

No kernel of ours does it: TVM makes one of ``relax.maximum`` of halves. This machine's library runs
whole; a GPU's kernels are executed thread by thread, the maxima between them in NumPy.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.compiler.cuda.emulated_model import emulator, lower, run_model
from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.export import export
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.verify import verify
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.target.choice import get_target
from vitq.numerics.arrays import UInt8Array
from vitq.quantization.graph import artifact as storage
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.run.reference import IntegerReference
from vitq.relay_passes.expressions import MAIN, bindings_of, dtype_of, op_name


@pytest.fixture(scope="module")
def pixels() -> UInt8Array:
    return np.random.default_rng(1).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, pixels: UInt8Array) -> Artifact:
    folder = tmp_path_factory.mktemp("maxima")
    np.save(folder / "calib.npy", pixels)
    options = QuantizeOptions(
        model="tests.compiler.factories:maxima",
        random_weights=3,
        calib=str(folder / "calib.npy"),
        artifacts=folder,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
        made = quantize(options)
    export(made)
    return made


def test_the_library_computes_the_integers(artifact: Artifact) -> None:
    folder = compile_model(artifact.folder, CompileOptions(batch=2))
    assert open_compiled(folder).metadata["float_islands"] == []
    checks = verify(folder, count=6, keep=False)
    assert [check.different for check in checks] == [0] * len(checks)


def test_a_gpu_computes_the_integers(artifact: Artifact, pixels: UInt8Array) -> None:
    graph = storage.load(artifact.folder).graph
    assert sum(node.op is OpKind.MAX for node in graph) == 2
    model = import_model(artifact.onnx, Meaning(2, None, None, None), None)
    lowered = lower(model.integer.mod, get_target("cuda"))
    pairs = [b.var for b in bindings_of(lowered[MAIN]) if op_name(b.value) == "relax.maximum"]
    assert len(pairs) == 4  # of four tokens, twice
    assert {dtype_of(var) for var in pairs} <= {"int8", "int16"}
    codes = run_model(lowered, pixels[:2], emulator(lowered))
    np.testing.assert_array_equal(codes, IntegerReference(graph)(pixels[:2]))
