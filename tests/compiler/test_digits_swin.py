"""The embedded Swin on every target: integers near the float model's answers, kernels bit for bit.

The library of this machine runs whole. For every other target each kernel of the model runs alone,
on random and extreme codes, where its processor is: here, under qemu, or in NumPy; a GPU's, thread
by thread. Windows, masks, biases and patch merging are in all of them.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.compiler.each_target import assert_kernels_exact
from tests.sharing import made_once, session_folder
from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.codegen.importing import ImportedModel, Meaning, import_model
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.export import export
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.verify import verify
from vitq.compiler.support.artifacts import Artifact
from vitq.models.digits_vit import MEAN, STD
from vitq.models.digits_vit.data import eval_images, load_digits_split
from vitq.models.digits_vit.train import evaluate
from vitq.quantization.graph import artifact as storage
from vitq.quantization.model.models import load_model
from vitq.quantization.run.reference import IntegerReference
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import MAIN, bindings_of, op_name

MODEL = "digits_swin"
TARGETS = ("x86-vnni", "x86-avx2", "rpi5", "rpi4", "graviton3", "cuda")
PERCENT = 100
LOST = {"w8a8": 0.5, "w4a8": 1.5}
"""Points of accuracy that the integers may cost."""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Quantized at each recipe, and exported."""

    def make(folder: Path) -> None:
        for recipe in LOST:
            export(quantize(QuantizeOptions.parse(model=MODEL, recipe=recipe, artifacts=folder)))

    made = made_once(session_folder(tmp_path_factory) / MODEL, make)
    return {
        recipe: QuantizeOptions.parse(model=MODEL, recipe=recipe, artifacts=made).artifact
        for recipe in LOST
    }


@pytest.fixture(scope="module")
def imported(artifacts: dict[str, Artifact]) -> ImportedModel:
    return import_model(artifacts["w8a8"].onnx, Meaning(1, MEAN, STD, None))


@pytest.mark.parametrize("recipe", LOST)
def test_integers_answer_like_the_float_model(artifacts: dict[str, Artifact], recipe: str) -> None:
    pixels, labels = eval_images()
    codes = IntegerReference(storage.load(artifacts[recipe].folder).graph)(np.array(pixels))
    accuracy = float((codes.argmax(1) == labels).mean())
    exact = evaluate(load_model(MODEL).module, load_digits_split().test)
    assert PERCENT * (exact - accuracy) <= LOST[recipe]


def test_the_library_computes_the_integers(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    folder = compile_model(artifacts["w8a8"].folder, CompileOptions(batch=2))
    assert open_compiled(folder).metadata["float_islands"] == []
    checks = verify(folder, count=8, keep=False)
    assert {check.name for check in checks} >= {"golden", "real", "random", "all 0", "all 255"}
    assert [check.different for check in checks] == [0] * len(checks)


def test_windows_are_places_that_products_read_and_write(imported: ImportedModel) -> None:
    """No kernel moves data: roll, partition and merging are tables of the linear layers."""
    found = {op_name(binding.value) for binding in bindings_of(imported.integer.mod[MAIN])}
    layout = {name for name in found if name and name.startswith("relax.")}
    assert layout <= {"relax.reshape"}
    assert names.ATTENTION not in found  # every block has a bias at least


@pytest.mark.parametrize("name", TARGETS)
def test_kernels_of_every_target(imported: ImportedModel, name: str) -> None:
    assert_kernels_exact(imported, name, least=15)
