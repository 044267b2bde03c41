"""``--max-drop``: a recipe that falls short gets wider layers until held-out answers are kept."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitq.compiler.stages import quantize as quantize_stage
from vitq.compiler.stages.held_out import hold_out
from vitq.compiler.stages.identity import quantize_fingerprint
from vitq.compiler.stages.quantize import prepare, quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.where import where
from vitq.compiler.studies.sensitivity import mixed_options
from vitq.models.digits_vit import MEAN, STD
from vitq.models.digits_vit.data import eval_images, load_digits_split
from vitq.numerics.errors import VitqError
from vitq.quantization.graph import artifact as storage
from vitq.quantization.graph.graph import Graph
from vitq.quantization.mixed.budget import Budget
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.plan.recipe import LayerBits, Recipe
from vitq.quantization.ranges import calibrate
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.judge import Judgement, float_logits

FALLS_SHORT = {"recipe": "w2a2", "method": "minmax", "calib_count": 8}
"""A sixth of the answers are the float model's."""


@pytest.fixture(autouse=True)
def _all_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vitq")


def options(folder: Path, max_drop: float | None, **given: Any) -> QuantizeOptions:
    return QuantizeOptions.parse(**{**FALLS_SHORT, **given}, artifacts=folder, max_drop=max_drop)


def facts_of(folder: Path) -> dict[str, Any]:
    provenance: dict[str, Any] = json.loads((folder / "quantize.json").read_text())["provenance"]
    return provenance


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    """The embedded model at w2a2, of whose held-out answers 3 % may change."""
    return quantize(options(root, 3.0)).folder


def agreeing(graph: Graph, given: QuantizeOptions) -> tuple[int, int]:
    """On the held-out pictures, from the float model once more."""
    exact, prep, pictures = prepare(given)
    held = hold_out(given, exact, prep, pictures)
    parts = np.split(held.pixels, range(8, len(held.pixels), 8))
    module = GraphModule(graph, simulate=True)
    import torch

    found = np.concatenate([module(torch.from_numpy(part)).numpy() for part in parts]).argmax(1)
    wanted = float_logits(exact, held.pixels, MEAN, STD).argmax(1)
    return int((found == wanted).sum()), len(wanted)


def test_the_bound_holds_and_one_part_fewer_breaks_it(root: Path, folder: Path) -> None:
    provenance = facts_of(folder)
    found, trials = provenance["max_drop"], provenance["max_drop"]["trials"]
    assert (found["percent"], found["holds"]) == (3.0, True)
    assert trials["0"] < 100 and trials["all"] == 200
    number = len(found["widened"])
    assert 1 < number < 40 and len(trials) <= 2 + 6
    assert trials[str(number)] >= 194 > trials[str(number - 1)]
    graph = storage.load(folder).graph
    assert agreeing(graph, options(root, 3.0)) == (trials[str(number)], 200)
    assert provenance["held_out"]["agreeing"] == trials[str(number)]


def test_the_artifact_has_the_widths_that_it_tells(folder: Path) -> None:
    provenance = facts_of(folder)
    found, recipe = provenance["max_drop"], provenance["recipe"]
    assert folder.name == "w2a2-drop3-minmax" and recipe["name"] == "w2a2-drop3"
    layers = {bits["layer"]: bits for bits in recipe["layers"]}
    for part in found["widened"]:
        field = "weight_bits" if part["part"] == "weight" else "activation_bits"
        names = [layers[name] for name in part["layers"] if name in layers]
        assert all(bits[field] == 8 for bits in names) and part["bits"] == 2
    wide = sum((b["weight_bits"] == 8) + (b["activation_bits"] == 8) for b in layers.values())
    assert wide == len(found["widened"])
    content = json.loads((folder / "quantize.json").read_text())
    assert "blocks.0.attn.qkv" in layers and "nodes" in content
    size = found["weight_bytes"]
    assert size["before"] < size["after"] < 134_912


def test_another_bound_takes_what_was_measured(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []
    real = calibrate.quantize_graph

    def counted(graph: Graph, pixels: Any, recipe: Recipe, *rest: Any) -> Graph:
        runs.append(recipe.name)
        return real(graph, pixels, recipe, *rest)

    monkeypatch.setattr(calibrate, "quantize_graph", counted)
    monkeypatch.setattr("vitq.compiler.stages.max_drop.measure_sensitivity", None)
    looser = facts_of(quantize(options(root, 10.0)).folder)["max_drop"]
    known = facts_of(folder)["max_drop"]["trials"]
    assert looser["holds"] and known.items() <= looser["trials"].items()
    assert 1 <= len(runs) <= len(looser["trials"]) - len(known) + 1  # and the result's graph
    caplog.clear()
    assert quantize(options(root, 3.0)).folder == folder
    assert "unchanged" in caplog.text


def test_evaluation_pictures_decide_nothing(root: Path) -> None:
    given = options(root, 3.0)
    exact, prep, pictures = prepare(given)
    held = hold_out(given, exact, prep, pictures)
    evaluated = {picture.tobytes() for picture in np.asarray(eval_images(None).images)}
    calibrating = {picture.tobytes() for picture in pictures.pixels}
    mine = {picture.tobytes() for picture in held.pixels}
    assert len(mine) == 200 and not mine & (evaluated | calibrating)


def test_what_holds_at_once_has_the_integers_of_no_bound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found, plain = (
        storage.load(quantize(options(tmp_path, bound, recipe="w8a8")).folder)
        for bound in (1.0, None)
    )
    assert "--max-drop 1 holds, no layer needs more bits" in caplog.text
    assert found.provenance["max_drop"]["widened"] == []
    assert set(found.graph.tensors) == set(plain.graph.tensors)
    for key, value in plain.graph.tensors.items():
        np.testing.assert_array_equal(found.graph.tensors[key], value)


def test_what_was_widened_is_said_by_its_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = facts_of(quantize(options(tmp_path, 60.0, calib_count=4)).folder)["max_drop"]
    (text,) = [m for m in caplog.messages if "--max-drop 60 holds with 8 bits for " in m]
    names = {name for part in found["widened"] for name in part["layers"]}
    assert names and all(name in text for name in names)
    size = found["weight_bytes"]
    assert text.endswith(f"; weights take {size['after']} bytes, were {size['before']}")
    assert "blocks.0.attn.qkv (weights" in text


@pytest.mark.parametrize("recipe", ["w4a4", "w8a8"])
def test_a_bound_that_nothing_reaches_is_one_loud_warning(
    recipe: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Judgement, "is_within", lambda self, percent: False)
    folder = quantize(options(tmp_path, 0.5, recipe=recipe)).folder
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    (text,) = warnings
    assert text.startswith(
        "WARNING: --max-drop 0.5 is missed: with 8 bits everywhere 200 of 200 other pictures get "
        "the float model's answer, 0 % do not (SQNR"
    )
    found, recipe_facts = facts_of(folder)["max_drop"], facts_of(folder)["recipe"]
    assert not found["holds"] and "holds with" not in caplog.text
    assert (recipe_facts["weight_bits"], recipe_facts["activation_bits"]) == (8, 8)
    assert len(found["widened"]) == (40 if recipe == "w4a4" else 0)


def test_few_pictures_judge_coarsely_which_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = load_digits_split().train.images[:32]
    given = QuantizeOptions.parse(
        recipe="w8a8", method="minmax", calib=GivenPictures(images), artifacts=tmp_path, max_drop=1
    )
    quantize(given)
    assert (
        "--max-drop 1: of 32 held-out pictures one is 3.1 %, so that no answer may" in caplog.text
    )


def test_held_out_files_are_part_of_the_identity(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index, picture in enumerate(load_digits_split().train.images[:12]):
        Image.fromarray(picture.transpose(1, 2, 0)).save(pictures / f"{index:02d}.png")
    bounds = (None, 1.0)
    given = [options(tmp_path, bound, calib=str(pictures), calib_count=4) for bound in bounds]
    before = [quantize_fingerprint(one) for one in given]
    (pictures / "01.png").write_bytes((pictures / "02.png").read_bytes())
    after = [quantize_fingerprint(one) for one in given]
    assert before[0] == after[0] and before[1] != after[1]


def test_the_name_tells_the_bound(tmp_path: Path) -> None:
    given = options(tmp_path, 0.5, recipe="w4a8-last4")
    assert where(given) == tmp_path / "digits_vit" / "w4a8-last4-drop0.5-minmax"
    assert quantize_fingerprint(given) != quantize_fingerprint(replace(given, max_drop=0.25))


@pytest.mark.parametrize("bound", [-1.0, 100.5, float("nan"), float("inf")])
def test_a_bound_is_a_percentage(bound: float) -> None:
    with pytest.raises(VitqError, match=r"^--max-drop \S+: give a percentage, 0 to 100$"):
        QuantizeOptions(max_drop=bound)


def test_a_bound_and_a_budget_contradict_each_other(tmp_path: Path) -> None:
    given, budget = options(tmp_path, 1.0), Budget(size_bytes=60_000)
    for ask in (lambda: where(given, budget=budget), lambda: mixed_options(given, budget)):
        with pytest.raises(
            VitqError, match="--max-drop widens what recipe mixed narrows to a budget"
        ):
            ask()


def test_widths_of_single_layers_are_kept_or_widened(tmp_path: Path) -> None:
    layers = (LayerBits("blocks.0.mlp.fc1", 8, 8), LayerBits("blocks.1.mlp.fc1", 2, 2))
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(Recipe(2, 2, layers=layers).to_json()))
    folder = quantize(options(tmp_path, 30.0, recipe=str(path))).folder
    provenance = facts_of(folder)
    names = [bits["layer"] for bits in provenance["recipe"]["layers"]]
    assert len(names) == len(set(names)) and provenance["recipe"]["name"] == "mine-drop30"
    assert provenance["max_drop"]["holds"]
    assert {"layer": "blocks.0.mlp.fc1", "weight_bits": 8, "activation_bits": 8} in (
        provenance["recipe"]["layers"]
    )


def test_a_kill_amid_the_trials_loses_one(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the fifth quantization, the next run begins there and gives the same bytes."""
    real, runs = calibrate.quantize_graph, 0

    def stops(*arguments: Any) -> Graph:
        nonlocal runs
        runs += 1
        if runs == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(calibrate, "quantize_graph", stops)
    with pytest.raises(KeyboardInterrupt):
        quantize_stage.quantize(options(tmp_path, 3.0))
    (kept,) = (tmp_path / "digits_vit" / "widening").iterdir()
    assert len(json.loads(kept.read_text())["trials"]) == 4
    found = quantize_stage.quantize(options(tmp_path, 3.0)).folder
    wanted = (folder / "quantized.safetensors").read_bytes()
    assert (found / "quantized.safetensors").read_bytes() == wanted
    assert facts_of(found)["max_drop"] == facts_of(folder)["max_drop"]
    stopped = 1
    assert runs == len(facts_of(found)["max_drop"]["trials"]) + stopped
