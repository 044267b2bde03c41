"""The zoo: every cell is right and kept; one that dies costs only itself."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vitq
from tests.compiler import zoo_jobs
from vitq.compiler.cli.zoo import zoo_rows
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.verify import IntegersDifferError
from vitq.compiler.studies import zoo as stage
from vitq.compiler.studies import zoo_cell
from vitq.compiler.studies.spreading import Spread, spread_out
from vitq.compiler.studies.zoo import Zoo, ZooOptions, with_weights, zoo
from vitq.compiler.studies.zoo_cell import Plan, ZooCell, run_cell
from vitq.compiler.target.choice import get_target
from vitq.numerics.errors import VitqError

ROOT = Path(__file__).resolve().parents[2]
REFUSED = "tests.compiler.zoo_jobs:refused"


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def result(artifacts: Path) -> Zoo:
    return vitq.zoo(
        ["digits_vit", REFUSED], count=8, evaluate_count=24, parallel=2, artifacts=artifacts
    )


def plan(artifacts: Path, model: str = "digits_vit", target: str = "cpu") -> Plan:
    options, weights = with_weights(QuantizeOptions(model=model, artifacts=artifacts), None)
    return Plan(
        options=options,
        weights=weights,
        target=get_target(target),
        batch=1,
        pictures=None,
        count=24,
    )


def test_a_model_is_proven_timed_and_evaluated(result: Zoo) -> None:
    cell = result.cells[0]
    assert (cell.model, cell.recipe, cell.batch, cell.weights) == (
        "digits_vit", "w8a8", 1, "its own",
    )  # fmt: skip
    assert cell.refused is None and cell.stage is None and not cell.differs
    assert cell.float_operators == 0 and cell.proven == "library"
    assert cell.compared is not None and cell.compared > 100
    assert cell.size_bytes is not None and 100_000 < cell.size_bytes < 3_000_000
    assert cell.latency_ms is not None and 0 < cell.latency_ms < 1000
    assert cell.row is not None and cell.row.images == 24
    assert cell.row.top1 is not None and cell.row.top1 >= 22
    assert cell.row.mean_cosine is not None and cell.row.mean_cosine > 0.999


def test_a_family_that_is_refused_says_why(result: Zoo) -> None:
    cell = result.cells[1]
    assert cell.stage == "quantize" and cell.compared is None
    assert cell.refused is not None and "operators that are not supported" in cell.refused


def test_what_is_kept_is_not_computed_again(
    artifacts: Path, result: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr(stage, "spread_out", lambda _, jobs, __: ran.extend(jobs) or iter(()))
    monkeypatch.setattr(stage, "progress_bar", lambda items, *_: list(items))
    with pytest.raises(KeyError):  # what was refused is not there
        vitq.zoo(["digits_vit", REFUSED], count=8, evaluate_count=24, artifacts=artifacts)
    assert [job.options.model for job in ran] == [REFUSED]
    again = vitq.zoo(["digits_vit"], count=8, evaluate_count=24, artifacts=artifacts)
    assert again.cells == result.cells[:1]
    ran.clear()
    with pytest.raises(KeyError):
        vitq.zoo(["digits_vit"], count=8, evaluate_count=23, artifacts=artifacts)
    assert len(ran) == 1  # other pictures, another cell


def test_integers_that_differ_are_told_and_end_the_command(
    artifacts: Path,
    result: Zoo,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def differs(*_: object) -> None:
        raise IntegersDifferError("3 of 80 integers differ")

    monkeypatch.setattr(zoo_cell, "quantize", differs)
    cell = run_cell(plan(artifacts))
    assert cell.differs and cell.refused == "3 of 80 integers differ"
    monkeypatch.setattr(stage, "zoo", lambda *_: Zoo([cell]))
    monkeypatch.setattr(sys, "argv", ["vitq", "zoo", "digits_vit"])
    from vitq.compiler.cli.main import main

    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    assert stop.value.code == 2 and "integers differ in 1 cells: digits_vit w8a8" in said.err
    assert "DIFFER [1]" in said.out and "[1] 3 of 80 integers differ" in said.out


def test_pictures_of_other_classes_are_refused_before_the_work(
    artifacts: Path, result: Zoo, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 32, 32), np.uint8))
    np.save(tmp_path / "x-labels.npy", np.array([3, 99]))
    cell = run_cell(replace(plan(artifacts), pictures=str(tmp_path / "x.npy"), count=None))
    assert cell.stage == "quantize" and cell.refused is not None
    assert "the label of picture 1 is 99, but the model has 10 outputs" in cell.refused


def test_a_command_whose_cells_are_all_refused_fails(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = replace(zoo_cell.blank(plan(artifacts)), stage="quantize", refused="roll (x2)")
    good = replace(refused, stage=None, refused=None, compared=9)
    from vitq.compiler.cli.main import main

    for cells, code in (([refused, refused], 2), ([refused, good], 0)):
        monkeypatch.setattr(stage, "zoo", lambda *_, cells=cells: Zoo(cells))
        monkeypatch.setattr(sys, "argv", ["vitq", "zoo", "digits_vit"])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        assert (stop.value.code or 0) == code and "[1] roll (x2)" in said.out
        assert ("all cells (2) are refused" in said.err) == (code == 2)


def test_a_mistake_of_the_program_is_a_cell_with_its_place(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr(zoo_cell, "export", crash)
    cell = run_cell(plan(artifacts))
    assert cell.stage == "export" and not cell.differs
    assert cell.refused is not None and "a mistake of the program: AttributeError" in cell.refused
    assert "zoo_cell.py:" in cell.refused or "test_zoo.py:" in cell.refused


def test_another_processor_is_emulated_on_random_and_extreme_pictures(
    artifacts: Path, result: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = plan(artifacts, target="rpi5")
    asked = replace(asked, options=replace(asked.options, calib_count=8))
    cell = run_cell(asked)
    if cell.proven != "emulated":
        pytest.skip(f"no emulator of ARM here: {cell.proven or cell.refused}")
    assert cell.refused is None and cell.latency_ms is None
    golden, made = 8 * 10, 7 * 10
    assert cell.compared == golden + made
    assert cell.row is not None and cell.row.name == "reference" and cell.row.top1 is not None
    monkeypatch.setattr(
        zoo_cell, "made_pictures", lambda shape: [("one", np.ones((1, *shape), np.uint8))]
    )

    class Wrong:
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            return np.zeros((len(pixels), 10), np.int64)

    monkeypatch.setattr(zoo_cell.Compiled, "reference", lambda _: Wrong())
    cell = run_cell(asked)
    assert cell.differs and cell.refused is not None and "differ from the reference" in cell.refused


def test_weights_are_found_made_or_its_own(tmp_path: Path) -> None:
    (tmp_path / "deit_tiny_patch16_224.safetensors").touch()
    found = {
        model: with_weights(QuantizeOptions(model=model), tmp_path)
        for model in ("deit_tiny_patch16_224", "vit_tiny_patch16_224", "digits_swin", REFUSED)
    }
    options, said = found["deit_tiny_patch16_224"]
    assert options.weights == tmp_path / "deit_tiny_patch16_224.safetensors"
    assert said == "deit_tiny_patch16_224.safetensors" and options.calib == "noise"
    options, said = found["vit_tiny_patch16_224"]
    assert (options.random_weights, options.weights, said) == (0, None, "random, seed 0")
    options, said = found["digits_swin"]
    assert (options.random_weights, options.calib, said) == (None, None, "its own")
    assert found[REFUSED][1] == "its own" and found[REFUSED][0].calib == "noise"


def test_a_seed_is_for_factories_too(tmp_path: Path) -> None:
    for model in (REFUSED, "vit_tiny_patch16_224"):
        options, said = with_weights(QuantizeOptions(model=model), None, 3)
        assert (options.random_weights, said) == (3, "random, seed 3")
    options, said = with_weights(QuantizeOptions(model="digits_vit"), None, 3)
    assert (options.random_weights, said) == (None, "its own")


def test_arguments_reach_the_model_and_stand_in_its_row(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[QuantizeOptions] = []

    def refuse(options: QuantizeOptions, _: object) -> None:
        asked.append(options)
        raise VitqError("enough")

    monkeypatch.setattr(zoo_cell, "quantize", refuse)
    monkeypatch.setattr(stage, "spread_out", lambda run, jobs, _: enumerate(map(run, jobs)))
    monkeypatch.setattr(sys, "argv", [
        "vitq", "zoo", "vit_tiny_patch16_224", "--model-kwargs", "depth=2", "--random-weights", "5",
        "--artifacts", str(artifacts), "--image-size", "32,48",
    ])  # fmt: skip
    from vitq.compiler.cli.main import main

    with pytest.raises(SystemExit):
        main()
    assert [options.model_arguments for options in asked] == [{"depth": 2}]
    assert asked[0].random_weights == 5
    assert asked[0].image_size == (32, 48)
    assert "vit_tiny_patch16_224(depth=2, image_size=" in capsys.readouterr().out


def test_jobs_run_apart_at_the_same_time_and_die_alone(tmp_path: Path) -> None:
    jobs = [2, 13, 5]
    found = dict(spread_out(zoo_jobs.square, jobs, Spread(2)))
    assert (found[0], found[2]) == (4, 25)
    assert "ended with code -9" in str(found[1])
    met = dict(spread_out(zoo_jobs.meet, [str(tmp_path)] * 2, Spread(2)))
    assert met == {0: True, 1: True}


def test_a_killed_cell_says_so(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        stage, "spread_out", lambda *_: iter([(0, "its process ended with code -9")])
    )
    variants = [with_weights(QuantizeOptions(artifacts=artifacts, calib_count=9), None)]
    (cell,) = zoo(variants, ZooOptions(targets=[get_target("cpu")])).cells
    assert cell.refused is not None and "-9: out of memory, or a crash" in cell.refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vitq.zoo([]), "no models"),
        (lambda: vitq.zoo(["digits_vit"], targets=[]), "no targets"),
        (lambda: vitq.zoo(["digits_vit"], batches=[0]), "batch"),
        (lambda: vitq.zoo(["digits_vit"], parallel=0), "--parallel"),
        (lambda: Spread(2, "localhost:8786"), "--parallel or --dask, not both"),
        (lambda: vitq.zoo(["digits_vit"], pixels="nowhere"), "no such folder"),
        (lambda: vitq.zoo(["digits_vit"], "nodir"), "nodir: no such folder"),
        (lambda: vitq.zoo(["digits_vit"], evaluate_count=0), "number of pictures is 0: give"),
        (
            lambda: with_weights(QuantizeOptions(model="vit_tiny_patch16_224"), Path("nowhere")),
            "--weights nowhere is no folder: give one with <model>.safetensors",
        ),
    ],
)
def test_mistakes_are_one_line(make: object, message: str) -> None:
    with pytest.raises(VitqError, match=message):
        make()  # type: ignore[operator]


def test_dask_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitq.compiler.studies.spreading.installed", lambda _: None)
    with pytest.raises(VitqError, match=r"--dask needs distributed: pip install 'vitq\[cluster\]'"):
        Spread(dask="localhost:8786")


def test_rows_number_refusals_once() -> None:
    cell = ZooCell(
        model="m", recipe="w8a8", method="repq", calibration="noise", target="cpu", batch=1,
        weights="random, seed 0", stage="quantize", refused="roll (x2)",
    )  # fmt: skip
    rows, notes = zoo_rows([cell, replace(cell, target="rpi5"), replace(cell, refused="pad (x1)")])
    assert [row[4] for row in rows] == [f"quantize refuses [{n}]" for n in (1, 1, 2)]
    assert notes == ["[1] roll (x2)", "[2] pad (x1)", "weights: m: random, seed 0"]
    assert ZooCell.from_json(json.loads(json.dumps(cell.to_json()))) == cell


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """SIGKILL after the first cell; the rerun keeps it and makes the second."""
    command = [
        *(sys.executable, "-m", "vitq", "zoo", "digits_vit", "--recipes", "w8a8,w4a8"),
        *("--calib-count", "4", "--count", "8", "--artifacts", str(tmp_path), "--json"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 300
        while not (kept := list(tmp_path.glob("*/zoo/*.json"))) and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    (first,) = kept
    before = first.read_bytes(), first.stat().st_mtime_ns
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    cells = json.loads(done.stdout)["cells"]
    assert [(c["recipe"], c["refused"]) for c in cells] == [("w8a8", None), ("w4a8", None)]
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    assert "1 of 2 cells are kept from before" in done.stderr
