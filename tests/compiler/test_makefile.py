"""The Makefile looks for artifacts where the stages put them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from vitq.compiler.cli import main as cli
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.quantization.plan.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
STUB = """#!/bin/sh
if [ "$1" = where ]; then exec "{python}" -m {cli} "$@"; fi
printf '%s %s\\n' "$1" "$2"
"""

RECIPES = [
    "w8a8",
    "w4a4-first8-last8",
    "w4a4-first8-last4",
    "w4a4-first4",
    "NAME.v2.json",
    "mixed BUDGET_BYTES=3000000",
    "mixed BUDGET_BYTES=3e6",
    "mixed BUDGET_BITOPS=5000000000",
]
FOLDER_RULES = {"export", "tune", "kit", "benchmark"}


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make with a vitq that prints its command and folder, all but ``where``."""
    stub, ready = folder / "vitq", folder / "ready"
    stub.write_text(STUB.format(python=sys.executable, cli=cli.__name__))
    stub.chmod(0o755)
    ready.touch()
    command = ["make", "--silent", *arguments, f"VITQ={stub}", f"READY={ready}"]
    command.append(f"ARTIFACTS={folder / 'out'}")
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def written(folder: Path, recipe: str) -> str:
    """What the quantizer is given: a file, where the recipe has one or gets one."""
    name, _, budget = recipe.partition(" BUDGET_")
    if name == "mixed":
        kind, _, number = budget.partition("=")
        name = f"mixed-{kind.lower()}{int(float(number))}.json"
    if not name.endswith(".json"):
        return name
    path = folder / "recipes" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(Recipe.parse("w4a8").to_json()))
    return str(path)


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_is_looked_for_where_it_was_written(recipe: str, tmp_path: Path) -> None:
    given = written(tmp_path, recipe)
    asked = recipe.split() if recipe.startswith("mixed") else [given]
    expected = QuantizeOptions.parse(recipe=given, artifacts=tmp_path / "out").artifact.folder
    found = make(tmp_path, "verify", f"RECIPE={asked[0]}", *asked[1:])
    assert (found.stdout, found.stderr) == (f"verify {expected / 'cpu'}\n", "")


def test_everything_else_that_is_in_a_folders_name(tmp_path: Path) -> None:
    model = "tests.compiler.factories:plain"
    options = QuantizeOptions.parse(
        model=model, method="minmax", nonlinear="ivit", max_drop=0.5, artifacts=tmp_path / "out"
    )
    names = (f"MODEL={model}", "METHOD=minmax", "NONLINEAR=ivit", "TARGET=rpi5", "BATCH=8")
    names += ("MAX_DROP=0.5",)
    folder = options.artifact.target_folder("rpi5", 8, tuned=False)
    assert make(tmp_path, "run", *names, "UNTUNED=1", "INPUT=x").stdout == f"run {folder}\n"


@pytest.mark.parametrize(
    "rule", ["export", "tune", "kit", "benchmark", "evaluate", "run", "deploy", "inspect"]
)
def test_each_rule_names_the_folder(rule: str, tmp_path: Path) -> None:
    expected = QuantizeOptions(artifacts=tmp_path / "out").artifact.folder
    expected = expected if rule in FOLDER_RULES else expected / "cpu"
    assert make(tmp_path, rule).stdout.splitlines()[-1] == f"{rule} {expected}"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["RECIPE=int8"], "recipe 'int8' is unknown"),
        (["RECIPE=mixed"], "--budget-bytes"),
        (["TARGET=toaster"], "toaster"),
        (["MODLE=deit_tiny_patch16_224"], "no rule reads MODLE; there are"),
        (["MODEL=x", "batch=8"], "no rule reads batch"),
    ],
)
def test_a_rule_stops_where_no_folder_is_meant(names: list[str], said: str, tmp_path: Path) -> None:
    found = make(tmp_path, "verify", *names)
    assert found.returncode != 0 and said in found.stderr and found.stdout == ""


def test_every_option_of_quantize_is_a_variable() -> None:
    text = (ROOT / "Makefile").read_text()
    command = typer.main.get_command(cli.app).commands["quantize"]  # type: ignore[attr-defined]
    flags = {option for parameter in command.params for option in parameter.opts}
    missing = [flag for flag in flags if not re.search(rf"[\s(,]{flag}[ ,]", text)]
    assert len(flags) > 20 and not missing


def test_arguments_of_a_model_are_given_one_by_one(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "-n", "quantize", "MODEL_KWARGS=a=1 b=2", "NUM_CLASSES=10", f"READY={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for said in ('--model-kwargs "a=1" ', '--model-kwargs "b=2"', '--num-classes "10"'):
        assert said in done.stdout


def test_where_loads_neither_torch_nor_tvm() -> None:
    code = (
        f"import sys; from {cli.__name__} import app;"
        "app(['where', '--recipe', 'mixed', '--budget-bytes', '9', '--target', 'cpu'], "
        "standalone_mode=False);"
        "print([m for m in ('torch', 'tvm', 'onnx', 'sklearn') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == ["artifacts/digits_vit/mixed-bytes9-repq/cpu", "[]"]
