"""Mistakes on the command line that other tests do not make: each is one line with the remedy."""

from pathlib import Path

import pytest

from tests.compiler.test_cli import call
from vitq.compiler.stages.compile import CompileOptions
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.artifacts import read_json
from vitq.numerics.errors import VitqError
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe

LINES = {
    "--flavour 'dynamic': choose vm or static": [
        "deploy", "FOLDER", "--out", "b", "--flavour", "dynamic",
    ],
    "--backend 'libary' (did you mean library?): choose": [
        "compare-methods", "--backend", "libary",
    ],
    "give --untuned or --tuning-log, not both": [
        "compile", "FOLDER", "--untuned", "--tuning-log", "x",
    ],
    "give --all or --backends, not both": ["evaluate", "FOLDER", "--all", "--backends", "float"],
    "write whole numbers with commas": ["sensitivity", "--widths", "3,x"],
    "write numbers with commas": ["quantize", "--mean", "x"],
    "contestant 'onxruntime' is unknown (did you mean onnxruntime-fp32?): choose": [
        "benchmark", "FOLDER", "--contestants", "onxruntime",
    ],
    "--rounds 0: give at least 1": ["benchmark", "FOLDER", "--rounds", "0"],
    "is not quantized: run quantize first": ["export", "ONNX"],
    "has no model.onnx: run export first": ["compile", "QUANTIZED"],
    "QUANTIZED has no model.onnx: run export first": ["tune", "QUANTIZED", "--trials", "1"],
    "is no artifact: run quantize first": ["inspect", "FOLDER"],
    "holds no compiled library: run compile first": ["verify", "FOLDER"],
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_one_line(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, file in (("ONNX", "model.onnx"), ("QUANTIZED", "quantize.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
    (tmp_path / "FOLDER").mkdir()
    monkeypatch.chdir(tmp_path)
    assert call(LINES[line], monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("vitq: ") and error.count("\n") == 1 and line in error


def test_names_in_python() -> None:
    with pytest.raises(VitqError, match=r"method 'rep' is unknown \(did you mean repq\?\): choose"):
        get_method("rep")
    with pytest.raises(VitqError, match=r"recipe 'w8' is unknown \(did you mean w8a8\?\): write"):
        Recipe.parse("w8")
    with pytest.raises(VitqError, match=r"give --weights or --random-weights, not both"):
        QuantizeOptions(weights=Path("a"), random_weights=0)
    with pytest.raises(VitqError, match=r"batch 0: give 1 to 65536"):
        CompileOptions(batch=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "cannot be read as JSON: Expecting value"),
        ("[1]", "holds a JSON list and no object: run its stage again"),
    ],
)
def test_json_that_is_none(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(VitqError, match=rf"a\.json {said}"):
        read_json(path)
