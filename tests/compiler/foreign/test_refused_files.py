"""Foreign files that are refused at the door: inputs, batches, scales, damage."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.compiler.foreign.graphs import MEAN, SIDE, STD, WIDTH, Body, Pictures, plain
from tests.compiler.foreign.test_remedies import CODES, MEANING, start
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.foreign.reading import read_onnx
from vitq.numerics.errors import VitqError

PICTURES: dict[str, tuple[Pictures, str]] = {
    "NHWC": (("x", [1, 6, 6, 3], TensorProto.FLOAT), r"is \(N, H, W, C\): export"),
    "sizes": (("x", [1, 3, "h", "w"], TensorProto.FLOAT), "fixed C, H and W: export with a fixed"),
    "rank": (("x", [1, 3, SIDE], TensorProto.FLOAT), "has 3 dimensions: it must be pictures"),
    "batch": (
        ("x", [4, 3, SIDE, SIDE], TensorProto.FLOAT),
        "fixed batch of 4: compile with --batch 4",
    ),
    "huge": (("x", [1, 3, 1 << 20, SIDE], TensorProto.FLOAT), "at most 16384 a side"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_inputs_that_are_no_pictures(kind: str, tmp_path: Path) -> None:
    pictures, said = PICTURES[kind]
    with pytest.raises(VitqError, match=said):
        import_model(plain(tmp_path / "m.onnx", pictures), MEANING)


def test_a_reshape_for_batch_1_behind_a_symbolic_batch(tmp_path: Path) -> None:
    body = Body()
    y = body.op("Reshape", start(body), body.const([1, 4, WIDTH], "int64"))
    pictures = ("x", ["N", 3, SIDE, SIDE], TensorProto.FLOAT)
    path = body.save(tmp_path / "m.onnx", body.quantize(y), pictures=pictures)
    import_model(path, MEANING)
    with pytest.raises(
        VitqError, match=r"node /block/Reshape_\d+ \(Reshape\): it cannot be .*batch than 2"
    ):
        import_model(path, Meaning(2, MEAN, STD))


def test_two_outputs_are_taken_and_two_inputs_refused(tmp_path: Path) -> None:
    body = Body()
    x = start(body)
    path = body.save(tmp_path / "m.onnx", body.quantize(x), results=[body.quantize(x)])
    assert len(import_model(path, MEANING).integer.report.outputs) == 2
    model = onnx.load(path)
    model.graph.input.add().CopyFrom(model.graph.input[0])
    model.graph.input[1].name = "y"
    onnx.save(model, path)
    with pytest.raises(VitqError, match=r"it has 2 \(x, y\) and 2 \(t\d+, t\d+\): export a mod"):
        import_model(path, MEANING)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_scales_that_are_none(scale: float, tmp_path: Path) -> None:
    body = Body()
    path = body.save(tmp_path / "m.onnx", body.quantize(start(body), scale))
    with pytest.raises(VitqError, match=r"quantizer /block/\w+Linear_\d+ has the scale .*positive"):
        import_model(path, MEANING)


def test_zero_points_of_another_number(tmp_path: Path) -> None:
    body = Body()
    weight = body.codes(CODES, np.ones(WIDTH), [0] * 3, axis=0)
    path = body.save(tmp_path / "m.onnx", body.quantize(body.patches(body.quantize("x"), weight)))
    with pytest.raises(VitqError, match=r"scales of shape \(5,\) and zero points of shape \(3,\)"):
        import_model(path, MEANING)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html>", r"text \(a web page\?\)"),
        (b'{"a": 1}', "JSON"),
        (b"\x08\x09\x12", "truncated"),
    ],
)
def test_files_that_are_no_onnx(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(VitqError, match=f"is not a readable ONNX file: .*{said}"):
        read_onnx(path)
    with pytest.raises(VitqError, match=r"is a folder: give an .onnx file"):
        read_onnx(tmp_path)
    with pytest.raises(VitqError, match="cannot be read: No such file or directory"):
        read_onnx(tmp_path / "none.onnx")


def test_tensors_beside_the_file_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(
        onnx.load(plain(path)),
        path,
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    read_onnx(path)
    (tmp_path / "m.data").unlink()
    with pytest.raises(
        VitqError, match=r"tensors that lie outside .*m\.data.*into the same folder"
    ):
        read_onnx(path)


def test_a_broken_node_is_named(tmp_path: Path) -> None:
    model = onnx.load(plain(tmp_path / "m.onnx"))
    model.graph.node[-1].input[0] = "nobody"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(VitqError, match=r"nobody.*/block/DequantizeLinear_\d+.*: export"):
        import_model(tmp_path / "m.onnx", MEANING)


def test_a_node_that_no_pass_takes_is_named(tmp_path: Path) -> None:
    body = Body()
    y = body.op(
        "LayerNormalization", start(body), body.const(np.ones((4, WIDTH), np.float32)), axis=-2
    )
    path = body.save(tmp_path / "m.onnx", body.quantize(y))
    with pytest.raises(VitqError) as error:
        import_model(path, MEANING)
    assert "one operator would stay float: LayerNormalization (x1)" in str(error.value)
    assert "(at /block/LayerNormalization_8)" in str(error.value)
