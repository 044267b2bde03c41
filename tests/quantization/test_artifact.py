"""The quantized graph on disk."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.quantization.vits import pixels, quantized
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.artifact import (
    JSON_NAME,
    TENSORS_NAME,
    QuantizedModel,
    _digest,
    load,
    save,
)
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.run.reference import IntegerReference

PROVENANCE = {"model": "vit", "recipe": {"weight_bits": 8}, "mean": [0.485, 0.456], "ü": None}


def saved(folder: Path, variant: str = "class_token", recipe: str = "w8a8") -> QuantizedModel:
    """Write one model."""
    model = QuantizedModel(quantized(variant, recipe), pixels(3).numpy(), PROVENANCE)
    save(folder, model)
    return model


@pytest.mark.parametrize("variant", ["class_token", "distilled", "mean_without_class_token"])
@pytest.mark.parametrize("recipe", ["w8a8", "w4a4"])
def test_round_trip_is_bit_identical(variant: str, recipe: str, tmp_path: Path) -> None:
    model, again = saved(tmp_path, variant, recipe), load(tmp_path)
    assert again.provenance == PROVENANCE
    np.testing.assert_array_equal(again.sample, model.sample)
    assert again.graph.output == model.graph.output
    assert list(again.graph.nodes) == list(model.graph.nodes)
    for ours, theirs in zip(model.graph, again.graph, strict=True):
        for field in ("op", "inputs", "shape", "batch_axis", "params", "attrs"):
            assert getattr(ours, field) == getattr(theirs, field)
        assert (ours.out is None) == (theirs.out is None)
        if ours.out is not None and theirs.out is not None:
            assert vars(ours.out).keys() == vars(theirs.out).keys()
            for field, value in vars(ours.out).items():
                np.testing.assert_array_equal(getattr(theirs.out, field), value)
    for key, value in model.graph.tensors.items():
        assert again.graph.tensors[key].dtype == value.dtype
        assert again.graph.tensors[key].tobytes() == np.ascontiguousarray(value).tobytes()
    assert set(again.graph.qparams) == set(model.graph.qparams)
    pictures = pixels(3).numpy()
    np.testing.assert_array_equal(
        IntegerReference(again.graph)(pictures), IntegerReference(model.graph)(pictures)
    )
    assert IntegerReference(again.graph).output_scale == IntegerReference(model.graph).output_scale


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    saved(tmp_path / "b")
    for name in (JSON_NAME, TENSORS_NAME):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_only_json_and_safetensors_are_written(tmp_path: Path) -> None:
    saved(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {JSON_NAME, TENSORS_NAME}
    content = json.loads((tmp_path / JSON_NAME).read_text())
    assert {node["op"] for node in content["nodes"]} <= {str(op) for op in OpKind}
    data = (tmp_path / TENSORS_NAME).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert {item["dtype"] for item in header.values()} <= {"I8", "I16", "I32", "U8", "F32"}


def edit(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change the JSON."""
    content = json.loads((folder / JSON_NAME).read_text())
    change(content)
    (folder / JSON_NAME).write_text(json.dumps(content))


def without_nodes(folder: Path) -> None:
    """Take the graph away and say that it was so."""

    def change(content: dict[str, object]) -> None:
        del content["nodes"], content["sha256"]
        content["sha256"] = _digest(content, (folder / TENSORS_NAME).read_bytes())

    edit(folder, change)


def truncate(path: Path) -> None:
    """Keep the first half."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no json": (lambda d: (d / JSON_NAME).unlink(), "run quantize first"),
    "no tensors": (lambda d: (d / TENSORS_NAME).unlink(), "run quantize first"),
    "half a json": (lambda d: truncate(d / JSON_NAME), "run quantize first"),
    "half of the tensors": (lambda d: truncate(d / TENSORS_NAME), "run quantize first"),
    "empty tensors": (lambda d: (d / TENSORS_NAME).write_bytes(b""), "run quantize first"),
    "binary json": (lambda d: (d / JSON_NAME).write_bytes(b"\xff\xfe\x80"), "run quantize first"),
    "another json": (lambda d: (d / JSON_NAME).write_text("[1, 2]"), "format None"),
    "later format": (lambda d: edit(d, lambda c: c.update(format=99)), "format 99"),
    "no nodes": (lambda d: edit(d, lambda c: c.pop("nodes")), "damaged"),
    "no nodes, signed": (without_nodes, r"is damaged \(nodes is missing\): quantize again"),
    "unknown operator": (
        lambda d: edit(d, lambda c: c["nodes"][3].update(op="fft")),  # type: ignore[index]
        "damaged .quantize.json or quantized.safetensors was changed",
    ),
    "other tensors": (
        lambda d: (d / TENSORS_NAME).write_bytes(
            safetensors.numpy.save({"x": np.zeros(3, np.float32)})
        ),
        "damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_line_with_the_remedy(name: str, tmp_path: Path) -> None:
    saved(tmp_path)
    damage, message = DAMAGE[name]
    damage(tmp_path)
    with pytest.raises(VitqError, match=message) as raised:
        load(tmp_path)
    assert str(tmp_path) in str(raised.value) and "quantize" in str(raised.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(VitqError, match="is no quantized model"):
        load(tmp_path / "nothing")
