"""Names are read once, when the options are made; what travels on are values."""

import json
from pathlib import Path
from typing import Any

import pytest

from vitq.compiler.stages import quantize as quantize_stage
from vitq.compiler.stages.identity import quantize_fingerprint
from vitq.compiler.stages.inspect import inspect
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe


def test_a_recipe_that_is_edited_amid_a_run_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(Recipe(4, 8).to_json()))
    options = QuantizeOptions.parse(
        recipe=str(path), method="minmax", calib_count=2, artifacts=tmp_path / "out"
    )
    prepare = quantize_stage.prepare

    def prepare_while_it_is_edited(given: QuantizeOptions, *rest: Any) -> Any:
        path.write_text(json.dumps(Recipe(2, 8).to_json()))
        return prepare(given, *rest)

    monkeypatch.setattr(quantize_stage, "prepare", prepare_while_it_is_edited)
    content = inspect(quantize(options).folder)
    assert content["provenance"]["recipe"]["weight_bits"] == 4
    called = {row["name"]: row["module"] for row in content["layers"] + content["quantizers"]}
    assert (called["linear_4"], called["add_2"]) == ("blocks.1.attn.qkv", "blocks.0: add")
    assert {row["what"] for row in content["layers"] if "weights" in row["what"]} == {
        "4-bit weights",
        "8-bit weights",
    }
    edited = QuantizeOptions.parse(
        recipe=str(path), method="minmax", calib_count=2, artifacts=tmp_path / "out"
    )
    assert quantize_fingerprint(options) == content["provenance"]["fingerprint"]
    assert quantize_fingerprint(edited) != content["provenance"]["fingerprint"]


def test_options_are_values_behind_names() -> None:
    options = QuantizeOptions.parse(recipe="w4a6-last4", method="best", nonlinear="ivit")
    wanted = Recipe(4, 6, last_bits=4, nonlinear=Nonlinear.IVIT)
    assert (options.recipe, options.method) == (wanted, get_method("best"))
    assert QuantizeOptions.parse() == QuantizeOptions()
    for wrong in ({"recipe": "int8"}, {"method": "magic"}, {"nonlinear": "float"}):
        with pytest.raises(VitqError):
            QuantizeOptions.parse(**wrong)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weights_key": "model_ema"}, "--weights-key chooses in a file: give --weights, too"),
        ({"num_classes": -1}, "the number of classes is -1"),
        ({"mean": (0.5, 0.5), "std": (0.5,)}, "2 numbers of mean beside 1 of std"),
        ({"calib": "psaq", "calib_count": 10**6}, "the number of calibration pictures is 1000000"),
        ({"model_kwargs": (("norm_layer", object()),)}, "model_kwargs: give numbers, texts"),
    ],
)
def test_options_of_weights_that_do_not_go_together(given: dict[str, Any], said: str) -> None:
    with pytest.raises(VitqError, match=said):
        QuantizeOptions(model="vit_tiny_patch16_224", **given)


def test_a_command_without_options_asks_for_the_default() -> None:
    """What the command line gives where the user says nothing, read as it reads it."""
    from vitq.compiler.cli.quantizing import SHARED, quantize_options

    asked = {name: parameter.default for name, parameter in SHARED.items()}
    assert quantize_options(**asked) == QuantizeOptions()
    texts = [name for name, default in asked.items() if default == ()]
    assert not texts, "typer would make the text '()' of it"
