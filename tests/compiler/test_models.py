"""Whole models of other structures, and real DeiT-Tiny where its weights are at hand."""

from pathlib import Path

import numpy as np
import pytest

from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.evaluate import evaluate
from vitq.compiler.stages.export import export
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.verify import verify
from vitq.compiler.support.artifacts import Artifact
from vitq.relay_passes.dialect import names


@pytest.mark.parametrize(
    ("factory", "batch"), [("plain", 3), ("pooled", 1), ("layer_scale", 3), ("distilled", 1)]
)
def test_structure_is_integer_only_and_exact(
    factory: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    pixels = np.random.default_rng(1).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "calib.npy", pixels)
    options = QuantizeOptions(
        model=f"tests.compiler.factories:{factory}",
        random_weights=3,
        calib=str(tmp_path / "calib.npy"),
        artifacts=tmp_path,
    )
    artifact = quantize(options)
    export(artifact)
    folder = compile_model(artifact.folder, CompileOptions(batch=batch))
    assert open_compiled(folder).metadata["float_islands"] == []
    checks = verify(folder, str(tmp_path / "calib.npy"), 6)
    assert all(check.different == 0 for check in checks)
    rows = {row.name: row for row in evaluate(folder, str(tmp_path / "calib.npy"))}
    assert rows["library"].mean_cosine > 0.98


def test_narrow_widths_are_exact_too(tmp_path: Path) -> None:
    artifact = quantize(QuantizeOptions.parse(recipe="w4a6", artifacts=tmp_path))
    export(artifact)
    folder = compile_model(artifact.folder, CompileOptions())
    assert all(check.different == 0 for check in verify(folder, count=8))


def test_ivit_forms_are_exact_too(tmp_path: Path) -> None:
    artifact = quantize(QuantizeOptions.parse(nonlinear="ivit", artifacts=tmp_path))
    export(artifact)
    folder = compile_model(artifact.folder, CompileOptions())
    operators = open_compiled(folder).metadata["integer_ops"]
    assert operators[names.IVIT_SHIFTMAX] == 4 and operators[names.IVIT_SHIFTGELU] == 4
    assert all(check.different == 0 for check in verify(folder, count=16))


def test_real_deit_tiny(real_data: Path, deit: Artifact) -> None:
    pictures = real_data / "imagenet300"
    folder = compile_model(deit.folder, CompileOptions())
    assert (folder / "model.so").stat().st_size < 8 * 2**20
    assert all(check.different == 0 for check in verify(folder, str(pictures / "eval"), 16))
    rows = evaluate(folder, str(pictures / "eval"), backends=("library",))
    library = rows[-1]
    assert library.top1 is not None and library.top1 >= 155
    assert library.agreement >= 0.95 and library.mean_cosine >= 0.985
