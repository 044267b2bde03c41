"""Parity figures against hand-made arrays."""

from pathlib import Path

import numpy as np
import pytest

from tests.compiler.foreign.graphs import plain
from vitq.export.parity import Parity, compare, cosine, onnx_runner, run_onnx
from vitq.export.qdq import save_onnx, to_onnx
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph


def test_cosine_of_rows() -> None:
    a = np.array([[1, 0], [1, 1], [3, 4], [0, 0]], np.float32)
    b = np.array([[0, 2], [2, 2], [-3, -4], [1, 1]], np.float32)
    np.testing.assert_allclose(cosine(a, b), [0, 1, -1, 0], atol=1e-12)


def test_cosine_is_computed_in_float64() -> None:
    a = np.array([[1e20, 1e20]], np.float32)
    np.testing.assert_allclose(cosine(a, a), [1.0])


def test_rows_of_zeros_are_alike_and_like_nothing_else() -> None:
    zero, one = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    assert [float(cosine(a, b)[0]) for a, b in ((zero, zero), (zero, one), (one, zero))] == [
        1,
        0,
        0,
    ]


def test_figures() -> None:
    ours = np.array([[3, 4], [0, 1], [1, 0], [5, 0]], np.float32)
    theirs = np.array([[3, 4], [1, 0], [1, 0], [2.5, 0]], np.float32)
    assert compare(ours, theirs) == Parity(4, 2.5, 0.75, 0.75)
    assert compare(ours, ours) == Parity(4, 0.0, 1.0, 1.0)


def test_figures_as_json() -> None:
    assert Parity(2, 0.5, 0.25, 1.0).to_json() == {
        "images": 2,
        "max_abs_difference": 0.5,
        "mean_cosine": 0.25,
        "argmax_agreement": 1.0,
    }


def test_run_onnx_in_parts_equals_one_run(
    digits_graph: Graph, digits_pixels: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "network.onnx"
    save_onnx(to_onnx(digits_graph, {}), path)
    whole = onnx_runner(path)(digits_pixels[:7])
    parts = run_onnx(path, digits_pixels[:7], batch=3)
    assert parts.shape == (7, 10) and parts.dtype == np.float32
    np.testing.assert_allclose(parts, whole, atol=0.05)


def test_run_onnx_takes_pixels_only(
    digits_graph: Graph, digits_pixels: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "network.onnx"
    save_onnx(to_onnx(digits_graph, {}), path)
    with pytest.raises(Exception, match="uint8"):
        run_onnx(path, digits_pixels.astype(np.float32))


def test_what_onnxruntime_does_not_take_is_one_line(tmp_path: Path) -> None:
    path = plain(tmp_path / "floats.onnx")
    with pytest.raises(VitqError, match=r"takes no uint8 pixels \(1, 3, 4, 4\) in onnxruntime: "):
        onnx_runner(path)(np.zeros((1, 3, 4, 4), np.uint8))
    path.write_bytes(b"\x08\x09 nothing")
    with pytest.raises(VitqError, match="does not run in onnxruntime"):
        onnx_runner(path)
