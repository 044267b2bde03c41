"""Artifacts side by side, with what was measured of them as they are."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vitq
from vitq.compiler.cli import main as cli
from vitq.compiler.stages.output_scores import OutputScore
from vitq.compiler.stages.records import keep_benchmark, keep_evaluation
from vitq.compiler.stages.scores import Row
from vitq.compiler.studies.report import integers_hash, report
from vitq.compiler.studies.report_page import HEAD, report_rows, write_report
from vitq.compiler.support.page import Cell, table
from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import QuantParams
from vitq.quantization.graph import artifact as storage
from vitq.quantization.graph.graph import Graph, Node, OpKind

ROWS = [
    Row("float", 8, 8, 8, 1.0, 1.0, None, 0.1),
    Row("library", 8, 7, 8, 0.875, 0.99, 21.5, 0.1),
]


METADATA = {
    "target": "cpu", "batch": 1, "inputs": [{"shape": [1, 3, 8, 8]}], "sha256": {}, "mean": None,
    "outputs": [
        {"name": "logits", "zero_point": 0, "scale": 0.5, "dtype": "int16", "shape": [1, 2]}
    ], "std": None,
    "metadata_props": {}, "nonlinear": "vitq",
}  # fmt: skip


def compiled(folder: Path, bits: int = 8, golden: int = 1) -> Path:
    """What a compiled artifact has that a report reads."""
    target = folder / "cpu"
    target.mkdir(parents=True)
    pixels = Node("x", OpKind.INPUT, (), (1, 2), 0, out=QuantParams.per_tensor(1 / 255, 0, 0, 255))
    layer = Node("linear", OpKind.LINEAR, ("x",), (1, 2), 0, {"weight": "w", "bias": "b"})
    layer.out = QuantParams.per_tensor(1.0, 0, -128, 127)
    weight = QuantParams.per_tensor(1.0, 0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    tensors: dict[str, Any] = {"w": np.zeros((2, 2), np.int8), "b": np.zeros(2, np.int32)}
    graph = Graph({"x": pixels, "linear": layer}, {"logits": "linear"}, tensors, {"w": weight})
    facts = {"model": "m", "recipe": {"name": f"w{bits}a8"}, "method": "repq", "nonlinear": "vitq"}
    storage.save(folder, storage.QuantizedModel(graph, np.zeros((1, 2), np.uint8), facts))
    (folder / "model.onnx").write_bytes(b"onnx")
    (target / "metadata.json").write_text(json.dumps(METADATA))
    (target / "model.so").write_bytes(b"\0" * 2**20)
    np.savez(target / "golden.npz", pixels=np.zeros((1, 2), np.uint8), codes=np.array([golden]))
    return folder


def test_records_count_while_their_files_are_the_same(tmp_path: Path) -> None:
    folder = compiled(tmp_path / "a")
    (entry,) = report([folder])
    assert (entry.top1, entry.times_ms, entry.size_bytes) == (None, {}, 2**20)
    assert (entry.recipe, entry.widths, entry.target) == ("w8a8", {8: 1}, "cpu")
    keep_evaluation(folder, ROWS, "pictures")
    rows: list[dict[str, Any]] = [
        {"name": "vitq-int8-tuned", "batch": 1, "threads": 2, "median_ms": 3.25},
        {"name": "torch-float", "batch": 1, "threads": 2, "median_ms": 9.0},
    ]
    keep_benchmark(folder, "cpu", "processor", rows)
    (entry,) = report([folder / "cpu"])
    assert (entry.top1, entry.float_top1, entry.pictures, entry.source) == (7, 8, 8, "pictures")
    assert (entry.agreement, entry.sqnr_db) == (0.875, 21.5)
    assert (entry.times_ms, entry.machine) == ({"1 x 2": 3.25}, "processor")
    keep_benchmark(folder, "rpi5", "processor", rows)
    assert report([folder])[0].times_ms == {}
    (folder / "cpu" / "model.so").write_bytes(b"another")
    assert report([folder])[0].top1 is None
    for damaged in ("{", "{}", '{"rows": [1]}'):
        (folder / "cpu" / "evaluate.json").write_text(damaged)
        assert report([folder])[0].agreement is None
    (folder / "cpu" / "golden.npz").write_bytes(b"PK")
    with pytest.raises(VitqError, match=r"golden.npz is damaged .*: compile again"):
        report([folder])


def test_features_have_a_cosine_for_each_result(tmp_path: Path) -> None:
    scores = (OutputScore("norm", 0.9985, 0.98, 25.2, None), OutputScore("cls", 0.998, 0.97, 24, 1))
    row = Row("library", 8, None, None, None, 0.9985, 25.2, 0.1, None, scores)
    folder = compiled(tmp_path / "a")
    keep_evaluation(folder, [row], None)
    (entry,) = report([folder])
    assert entry.outputs == scores and entry.agreement is None
    texts = [cell.text for cell in report_rows([entry])[0]]
    assert texts[HEAD.index("cosine")] == "norm: 0.9985\ncls: 0.9980"
    assert texts[HEAD.index("SQNR dB")] == "norm: 25.2\ncls: 24.0"


def test_other_pictures_of_one_name_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = [compiled(tmp_path / name) for name in "ab"]
    for second, is_said in (("x", False), ("y", True), (None, False)):
        keep_evaluation(folders[0], ROWS, "labelled", "x")
        keep_evaluation(folders[1], ROWS, "labelled", second)
        caplog.clear()
        report(folders)
        said = "were evaluated on other pictures or labels, though both call them labelled"
        assert (said in caplog.text) == is_said


def test_equal_integers_have_equal_hashes(tmp_path: Path) -> None:
    folders = [
        compiled(tmp_path / name, golden=value)
        for name, value in zip("abc", (1, 1, 2), strict=True)
    ]
    hashes = [entry.integers for entry in report(folders)]
    assert hashes[0] == hashes[1] != hashes[2]
    again = tmp_path / "again.npz"
    np.savez_compressed(again, codes=np.array([1]), pixels=np.zeros((1, 2), np.uint8))
    assert integers_hash(again) == hashes[0]


def test_the_command_prints_a_table_json_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = compiled(tmp_path / "a"), compiled(tmp_path / "b", bits=4)
    keep_evaluation(first, ROWS, None)
    page = tmp_path / "report.html"

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["vitq", "report", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code in (0, 2)
        output = capsys.readouterr()
        return output.out + output.err

    text = call(str(first), str(second), "--html", str(page))
    assert "7/8 (float 8)" in text and "1 x 4 bit" in text and "87.5 %" in text
    assert page.read_text().count("<tr>") == 3 and "Library" in page.read_text()
    entries = json.loads(call(str(first), "--json"))["entries"]
    assert [entry["sqnr_db"] for entry in entries] == [21.5]
    assert "is no artifact: run quantize first" in call(str(tmp_path))
    assert "--html x.txt: give a file name that ends in .html" in call(
        str(first), "--html", "x.txt"
    )


def test_an_artifact_without_a_library_is_an_entry(tmp_path: Path) -> None:
    folder = compiled(tmp_path / "a")
    for path in (folder / "cpu").iterdir():
        path.unlink()
    (entry,) = vitq.report([folder])
    assert (entry.target, entry.integers, entry.size_bytes) == (None, None, None)
    (row,) = report_rows([entry])
    assert len(row) == len(HEAD) and row[1].text == "not compiled"
    with pytest.raises(VitqError, match="nothing to report on: give the folders of artifacts"):
        report([])
    page = tmp_path / "page.html"
    write_report([replace(entry, model="<script>")], page)
    assert "&lt;script&gt;" in page.read_text()


def test_a_column_is_one_of_numbers_also_where_some_are_missing() -> None:
    rows = [[Cell("a"), Cell("1.5", 1.5)], [Cell("b"), Cell("-")]]
    text = table("t", ("name", "ms"), rows)
    assert "<th scope='col' class=n><button type='button'>ms" in text and "<td class='n'>-" in text
    assert "<td>a" in text and "search" not in text
    assert "placeholder='search: a &lt;b&gt;'" in table("t", ("name", "ms"), rows, "a <b>")
    mixed = table("t", ("name", "ms"), [*rows, [Cell("c"), Cell("many")]])
    assert "class=n" not in mixed


def test_a_folder_that_cannot_be_written_to_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = compiled(tmp_path / "a")

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("vitq.compiler.stages.records.write_json", refuse)
    keep_evaluation(folder, ROWS, None)
    assert "evaluate.json is not kept for vitq report: Read-only file system" in caplog.text
