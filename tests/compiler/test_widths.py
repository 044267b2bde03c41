"""Narrow widths, mixed recipes, log codes and twin ranges in the library: the embedded model."""

import json
from pathlib import Path

import pytest

from vitq.compiler.deploy.bundle import DeployOptions
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.deploy import deploy
from vitq.compiler.stages.export import export
from vitq.compiler.stages.inspect import inspect
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.verify import verify
from vitq.compiler.support.artifacts import Artifact
from vitq.quantization.graph import artifact as storage
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.plan.attention_codes import use_codes
from vitq.quantization.plan.methods import AttentionForm
from vitq.quantization.plan.recipe import LayerBits, Recipe

CASES = {
    ("w6a6-first6-last4", AttentionForm.UNIFORM): ("uniform", "uniform"),
    ("w4a8", AttentionForm.LOG_SQRT2): ("log sqrt 2, 256 codes and zero", "log sqrt 2, 17 weights"),
    ("w4a4", AttentionForm.LOG2): ("log2, 16 codes", "log2, 10 weights"),
    ("w4a6", AttentionForm.TWIN): ("twin, steps of 4 and 8", "twin, steps of 4 and 8"),
    ("w4a4", AttentionForm.TWIN): ("twin, steps of 16 and 32", "twin, steps of 16 and 32"),
    ("w3a4", AttentionForm.LOG_SQRT2): ("log sqrt 2, 16 codes and zero", "log sqrt 2, 17 weights"),
    ("mixed", AttentionForm.UNIFORM): ("uniform", "uniform"),
}
"""Recipe and form -> what the artifact and the library say of attention's codes."""


def mixed_recipe(folder: Path) -> str:
    """A file with layers of 2 to 8 bits."""
    options = QuantizeOptions.parse(artifacts=folder, method="minmax")
    graph = storage.load(quantize(options).folder).graph
    names = [node.name for node in graph if node.op is OpKind.LINEAR]
    layers = [LayerBits(name, 2 + i % 7, 8 - i % 5) for i, name in enumerate(names[:-1])]
    path = folder / "spread.json"
    path.write_text(json.dumps(Recipe(4, 6, layers=tuple(layers)).to_json()))
    return str(path)


def with_codes(artifact: Artifact, form: AttentionForm, twin: bool) -> None:
    """Change the artifact's attention weights, and give its GELUs two ranges."""
    model = storage.load(artifact.folder)
    recipe = {k: v for k, v in model.provenance["recipe"].items() if k not in ("name", "layers")}
    use_codes(model.graph, form, Recipe(**recipe), zero=form is AttentionForm.LOG_SQRT2)
    for node in model.graph:
        if twin and node.op is OpKind.GELU:
            assert node.out is not None
            node.attrs.update(twin_shift=2, twin_split=int(node.out.zero_point) + 2)
    storage.save(artifact.folder, model)


@pytest.mark.parametrize(("recipe", "form"), CASES)
def test_every_width_is_exact(recipe: str, form: AttentionForm, tmp_path: Path) -> None:
    said, compiled = CASES[recipe, form]
    name = mixed_recipe(tmp_path) if recipe == "mixed" else recipe
    options = QuantizeOptions.parse(artifacts=tmp_path, recipe=name, method="minmax")
    artifact = quantize(options)
    assert artifact.folder.name == f"{Path(name).stem}-minmax"
    twin = recipe in ("w6a6-first6-last4", "w4a4")
    with_codes(artifact, form, twin)
    export(artifact)
    folder = compile_model(artifact.folder, CompileOptions())
    checks = verify(folder, count=32)
    assert sum(check.values for check in checks) > 400
    assert all(check.different == 0 for check in checks)

    if recipe == "w3a4":
        bundle = deploy(folder, DeployOptions(out=tmp_path / "bundle", flavour="static"))
        assert bundle.measured.verified == "here"

    content = inspect(folder)
    target = content["targets"]["cpu"]
    assert target["float_islands"] == []
    codes = {layer["what"] for layer in content["layers"] if layer["op"] == "exp"}
    weights = set(target["attention_codes"].values())
    assert (codes, weights) == ({said}, {compiled})
    ranges = {layer["what"] for layer in content["layers"] if layer["op"] == "gelu"}
    assert (ranges != set()) == twin
    widths = {layer["what"] for layer in content["layers"] if layer["op"] == "linear"}
    assert len(widths) > 2 if recipe == "mixed" else len(widths) <= 2
