"""What quantize says of its result: agreement on other pictures, and poor calibration pictures."""

import itertools
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given as given_numbers
from hypothesis import strategies as st
from PIL import Image

from vitq.compiler.stages.held_out import HeldOut, _places, check_held_out, hold_out
from vitq.compiler.stages.quantize import prepare, quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.models.digits_vit import MEAN, STD
from vitq.models.digits_vit.data import calibration_images, load_digits_split
from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph
from vitq.quantization.graph.outputs import OutputLayout
from vitq.quantization.graph.tracing import trace
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.pictures.pictures import picture_files
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph
from vitq.quantization.run.judge import answers, float_logits, judge


@pytest.fixture(autouse=True)
def _all_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vitq")


def of_class(digit: int, count: int = 32) -> UInt8Array:
    train = load_digits_split().train
    return train.images[train.labels == digit][:count].copy()


def given(images: UInt8Array, tmp_path: Path, **options: object) -> QuantizeOptions:
    pictures = GivenPictures(images)
    return QuantizeOptions(calib=pictures, artifacts=tmp_path, **options)  # type: ignore[arg-type]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_the_figures_are_said_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, digits_graph: Graph
) -> None:
    artifact = quantize(QuantizeOptions(artifacts=tmp_path))
    facts = json.loads((artifact.folder / "quantize.json").read_text())["provenance"]["held_out"]
    assert (facts["kind"], facts["poor"]) == ("others", "")
    assert (facts["pictures"], facts["agreeing"]) == (8, 8)
    assert facts["sqnr_db"] > 35 and 0 < max(facts["saturation"].values()) < 0.01
    assert "8 of 8 other pictures get the float model's answer, SQNR 4" in caplog.text
    assert not warnings(caplog)


def test_integers_do_not_depend_on_it(tmp_path: Path, digits_graph: Graph) -> None:
    """The fixture's graph was quantized without any check."""
    from vitq.quantization.graph import artifact as storage

    graph = storage.load(quantize(QuantizeOptions(artifacts=tmp_path)).folder).graph
    assert set(graph.tensors) == set(digits_graph.tensors)
    for key, value in digits_graph.tensors.items():
        np.testing.assert_array_equal(graph.tensors[key], value)


def quantized_on(images: UInt8Array, model: torch.nn.Module) -> Graph:
    graph = trace(model, (3, 32, 32))
    pixels = torch.from_numpy(images)
    return quantize_graph(graph, pixels, Recipe.parse("w8a8"), get_method("repq"), MEAN, STD)


def test_a_collapse_is_a_warning_with_its_cause(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    digits_model: torch.nn.Module,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("BELIEVED", "LIVELY"):
        monkeypatch.setattr(f"vitq.quantization.ranges.evidence.{name}", 1e-30)
    others = np.array(calibration_images(16))
    logits = float_logits(trace(digits_model, (3, 32, 32)), others, MEAN, STD)
    graph = quantized_on(of_class(0), digits_model)
    for poor, cause in (
        ("all 32 are zeros", "likely: all 32 are zeros; give pictures of all kinds, or take"),
        ("", r"likely: \S+ cuts off \d+ % of its values, as these reach further than on the"),
    ):
        caplog.clear()
        facts = check_held_out(
            QuantizeOptions(artifacts=tmp_path),
            Recipe(),
            graph,
            HeldOut(others, "others", logits, poor),
        )
        assert facts["agreeing"] < 8 and facts["sqnr_db"] < 3
        (text,) = warnings(caplog)
        caplog.clear()
        assert text.startswith("WARNING: the quantized model gives the float model's answer for")
        assert re.search(cause, text), text


def test_saturation_is_counted_exactly(digits_graph: Graph) -> None:
    """Against the values themselves, of one quantizer."""
    from vitq.quantization.graph.origins import label_of
    from vitq.quantization.run.fake_quantize import GraphModule

    pixels = 255 - np.array(calibration_images(4))
    found = judge(digits_graph, pixels, np.ones((4, 10), np.float32))
    name, share = next(iter(found.saturation.items()))
    (node,) = [n for n in digits_graph if label_of(n) == name and n.out is not None]
    values: dict[str, torch.Tensor] = {}
    module = GraphModule(digits_graph, True, lambda n, v: values.update({n.name: v}))
    module(torch.from_numpy(pixels))
    assert node.out is not None
    codes = values[node.name].double() / float(node.out.scale) + int(node.out.zero_point)
    cut = ((codes < node.out.qmin - 0.5) | (codes > node.out.qmax + 0.5)).double().mean()
    assert share == pytest.approx(float(cut), abs=1e-6) and share > 0.001


def held(options: QuantizeOptions) -> HeldOut:
    graph, prep, pictures = prepare(options)
    return hold_out(options, graph, prep, pictures)


def test_what_calibration_left_is_held_out(tmp_path: Path) -> None:
    images = load_digits_split().train.images[:60]
    found = held(given(images, tmp_path, calib_count=40))
    assert (found.kind, len(found.pixels), found.logits.shape) == ("others", 10, (10, 10))
    taken = prepare(given(images, tmp_path, calib_count=40))[2].pixels
    known = {picture.tobytes() for picture in taken}
    own = {picture.tobytes() for picture in images}
    assert all(p.tobytes() in own and p.tobytes() not in known for p in found.pixels)


def test_where_nothing_is_left_the_same_pictures_are_changed(tmp_path: Path) -> None:
    images = np.array(calibration_images(32))
    found = held(given(images, tmp_path))
    assert found.kind == "changed" and found.pixels.shape == (8, 3, 32, 32)
    assert not {p.tobytes() for p in found.pixels} & {p.tobytes() for p in images}
    assert found.logits.argmax(1).size == 8


def test_near_duplicates_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.RandomState(0).randint(-8, 9, (32, 3, 32, 32))
    images = np.clip(of_class(3, 1) + noise, 0, 255).astype(np.uint8)
    found = held(given(images, tmp_path))
    assert found.poor == "of 32 calibration pictures only 1 are no near duplicates of others"
    (text,) = warnings(caplog)
    assert text.startswith("WARNING: array: of 32 calibration pictures only 1 are no near")


def test_one_class_is_said_by_labels_or_by_the_float_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = of_class(9)
    assert "the same answer (class 9) for each of 8" in held(given(images, tmp_path)).poor
    labelled = GivenPictures(images, np.full(32, 9))
    found = held(QuantizeOptions(calib=labelled, artifacts=tmp_path))
    assert found.poor == "all 32 calibration pictures are of one class (9)"
    assert len(warnings(caplog)) == 2


def test_an_integer_out_of_range_is_refused_by_its_name(
    tmp_path: Path, digits_graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitq.numerics.errors import RangeError

    def fail(*_: object) -> None:
        raise RangeError("blocks.0.attn: exp: a requantization factor of 1e+11 is too large")

    monkeypatch.setattr("vitq.quantization.run.reference.IntegerReference.__call__", fail)
    pixels = np.array(calibration_images(4))
    some = HeldOut(pixels, "others", np.zeros((4, 10), np.float32), "")
    with pytest.raises(VitqError, match=r"^blocks\.0\.attn: exp: .* \(the layer's weights"):
        check_held_out(QuantizeOptions(artifacts=tmp_path), Recipe(), digits_graph, some)


def test_what_cannot_be_read_and_did_not_calibrate_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, picture in enumerate(load_digits_split().train.images[:24]):
        Image.fromarray(picture.transpose(1, 2, 0)).save(folder / f"{index:02d}.png")
    options = QuantizeOptions(calib=str(folder), calib_count=12, artifacts=tmp_path)
    taken = {file.name for file in picture_files(str(folder), 12)}
    left = sorted(set(f"{i:02d}.png" for i in range(24)) - taken)
    for name in left[:4]:
        (folder / name).write_bytes(b"no picture")
    found = held(options)
    assert (found.kind, len(found.pixels)) == ("others", 4)
    for name in left[4:]:
        (folder / name).write_bytes(b"no picture")
    assert held(options).kind == "changed"


def test_answers_are_classes_or_neighbours() -> None:
    scores, layout = np.array([[1.0, 2.0], [5.0, 4.0]]), OutputLayout({"logits": (2,)})
    assert answers(scores, layout).tolist() == [1, 0]
    both = OutputLayout({"tokens": (1, 2), "logits": (2,)})
    assert answers(np.concatenate([scores, -scores], 1), both).tolist() == [0, 1]
    vectors = np.array([[1.0, 0.0], [0.0, 2.0], [9.0, 1.0], [-1.0, 8.0]])
    assert answers(vectors, OutputLayout({"features": (2,)})).tolist() == [2, 3, 0, 1]


@given_numbers(st.integers(1, 300), st.integers(1, 20))
def test_places_are_all_and_the_first_ones_are_spread(number: int, count: int) -> None:
    places = list(_places(number, count))
    assert sorted(places) == list(range(number))
    first = sorted(places[: min(count, number)])
    assert all(b - a >= number // count for a, b in itertools.pairwise(first))
