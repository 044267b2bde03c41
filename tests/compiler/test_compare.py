"""Comparing methods: every cell is right, kept, and not computed twice."""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitq.compiler.cli.comparison_report import axis_ends, comparison_rows, plot_comparison
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.verify import IntegersDifferError
from vitq.compiler.studies import compare_methods as compare
from vitq.compiler.studies.backends import FOLDER_PREFIX
from vitq.compiler.studies.compare_methods import Comparison, compare_methods
from vitq.models.digits_vit.data import eval_images
from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.run.reference import IntegerReference

ROOT = Path(__file__).resolve().parents[2]
COUNT = 24
FACTORY = "tests.compiler.factories:attentionless"


def variants(artifacts: Path, **options: object) -> list[QuantizeOptions]:
    return [
        QuantizeOptions.parse(recipe=recipe, method=method, artifacts=artifacts, **options)  # type: ignore[arg-type]
        for recipe in ("w8a8", "w2a2")
        for method in ("repq", "minmax")
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def result(folder: Path) -> Comparison:
    return compare_methods(variants(folder), count=COUNT)


def kept(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/comparison/*.json")}


def test_cells_are_in_order_and_two_bits_are_worse(result: Comparison) -> None:
    names = [(cell.recipe, cell.method) for cell in result.cells]
    assert names == [("w8a8", "repq"), ("w8a8", "minmax"), ("w2a2", "repq"), ("w2a2", "minmax")]
    rows = [cell.row for cell in result.cells]
    assert all(row is not None and row.images == COUNT for row in rows)
    cosines = [row.mean_cosine for row in rows if row]
    assert min(cosines[:2]) > 0.999 > 0.95 > max(cosines[2:])
    assert result.float_row.agreement == 1 and result.float_row.top1 in (COUNT - 1, COUNT)


def test_reference_backend_is_the_integer_reference(folder: Path, digits_graph: Graph) -> None:
    """The same calibration as the fixture's: the counts are those of its integers."""
    cell = compare_methods(variants(folder)[:1], count=COUNT, backend="reference").cells[0]
    pixels, labels = eval_images(COUNT)
    codes = IntegerReference(digits_graph)(np.array(pixels))
    assert cell.row is not None
    assert cell.row.top1 == int((codes.argmax(1) == labels).sum())


def test_library_backend_is_the_reference_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    reference, library = (
        compare_methods(variants(folder)[2:3], count=COUNT, backend=backend).cells[0].row
        for backend in ("reference", "library")
    )
    assert reference is not None and library is not None
    assert replace(library, seconds=0.0) == replace(reference, seconds=0.0)
    assert library.agreement < 1  # 2 bits: a float model in its place would be noticed
    assert list(tmp_path.glob(f"{FOLDER_PREFIX}*")) == []


def test_library_that_differs_is_no_refused_cell(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(*_: object) -> None:
        raise IntegersDifferError("one integer differs")

    monkeypatch.setattr("vitq.compiler.stages.verify.verify", differs)
    with pytest.raises(IntegersDifferError, match="one integer"):
        compare_methods(variants(folder)[3:], count=COUNT - 3, backend="library")


def test_seeds_draw_other_pictures_and_give_mean_and_spread(tmp_path: Path) -> None:
    options = [
        QuantizeOptions.parse(recipe="w3a3", calib_count=4, calib_seed=seed, artifacts=tmp_path)
        for seed in (0, 1, 2)
    ]
    result = compare_methods(options, count=COUNT)
    cosines = [cell.row.mean_cosine for cell in result.cells if cell.row]
    assert [cell.seed for cell in result.cells] == [0, 1, 2] and len(set(cosines)) == 3
    (summary,) = result.summaries
    assert summary.seeds == (0, 1, 2) and summary.mean_cosine is not None
    assert summary.mean_cosine.mean == pytest.approx(sum(cosines) / 3)
    assert summary.mean_cosine.deviation == pytest.approx(statistics.stdev(cosines))
    assert (summary.mean_cosine.low, summary.mean_cosine.high) == (min(cosines), max(cosines))
    assert f"{summary.mean_cosine.mean:.4f} ± " in comparison_rows(result)[1][6]
    assert result.to_json()["summaries"][0]["images"] == COUNT


def test_nothing_is_computed_twice(
    folder: Path, result: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept(folder)

    def again(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(compare._Judge, "logits", again)
    assert compare_methods(variants(folder), count=COUNT).cells == result.cells
    assert kept(folder) == before
    for change in ({"count": COUNT - 1}, {"backend": "reference", "count": COUNT - 2}):
        with pytest.raises(AssertionError, match="computed again"):
            compare_methods(variants(folder), **change)  # type: ignore[arg-type]


def test_many_pictures_are_decoded_for_each_cell_and_never_all_in_memory(
    tmp_path: Path, result: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "HELD_BYTES", COUNT * 3 * 32 * 32 - 1)
    sizes = list[int]()
    batches = compare._Judge.batches

    def counted(judge: compare._Judge) -> Iterator[UInt8Array]:
        assert judge._held is None
        for batch in batches(judge):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(compare._Judge, "batches", counted)
    streamed = compare_methods(variants(tmp_path)[1:2], count=COUNT)
    assert [sum(sizes), max(sizes)] == [3 * COUNT, compare.BATCH]  # hash, float model, the cell
    rows = [
        replace(cell.row, seconds=0) for cell in (streamed.cells[0], result.cells[1]) if cell.row
    ]
    assert len(rows) == 2 and rows[0] == rows[1]


def test_killed_run_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vitq.compiler.cli.main", "compare-methods", "--artifacts"]
    command += [str(tmp_path), "--recipe", "w8a8,w4a4", "--method", "repq,minmax"]
    command += ["--count", str(COUNT), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(kept(tmp_path)) < 3 and time.monotonic() < deadline:  # the float model, two cells
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = kept(tmp_path)
    assert 3 <= len(before) < 5
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    after = kept(tmp_path)
    assert len(after) == 5
    assert {path: after[path] for path in before} == before
    content = json.loads(done.stdout)
    assert [cell["recipe"] for cell in content["cells"]] == ["w8a8", "w8a8", "w4a4", "w4a4"]
    assert all(cell["row"]["images"] == COUNT for cell in content["cells"])
    assert done.stderr.count("compare: ") == 5 - len(before)


def test_refused_cell_does_not_stop_the_others(tmp_path: Path, digits_npy: Path) -> None:
    options = [
        QuantizeOptions(
            model=FACTORY, random_weights=0, calib=calib, calib_count=4, artifacts=tmp_path
        )
        for calib in ("psaq", "noise")
    ]
    result = compare_methods(options, pictures=str(digits_npy))
    assert result.cells[0].row is None and "softmax attention" in (result.cells[0].refused or "")
    assert result.cells[1].row is not None and result.cells[1].row.top1 is None
    table = comparison_rows(result)
    assert "refused: no softmax" in table[1][3] and table[2][:3] == ["noise", "w8a8", "repq"]


@pytest.fixture
def digits_npy(tmp_path: Path) -> Path:
    path = tmp_path / "pictures.npy"
    np.save(path, np.array(eval_images(4).images))
    return path


def test_plot(result: Comparison, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_comparison(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_axes_show_differences() -> None:
    assert axis_ends([98.0, 98.5, 99.0]) == (97.0, 100.0)
    assert axis_ends([12.0, 99.0]) == (0.0, 105.0)
    low, high = axis_ends([60.0, 100.0])
    assert 40 < low < 60 and high >= 100


def test_mistakes_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(VitqError, match="fake, reference, library"):
        compare_methods(variants(tmp_path), backend="magic")
    foreign = QuantizeOptions(model=FACTORY, random_weights=0, calib="noise", artifacts=tmp_path)
    with pytest.raises(VitqError, match="--pictures"):
        compare_methods([foreign])
    assert kept(tmp_path) == {}


def test_labels_that_the_model_does_not_have_are_refused_before_any_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a cell began")

    monkeypatch.setattr(compare, "quantized_model", never)
    labels = np.arange(8) + 3
    with pytest.raises(VitqError, match="label of picture 7 is 10, but the model has 10 outputs"):
        compare_methods(variants(tmp_path), GivenPictures(eval_images(8).images, labels))
