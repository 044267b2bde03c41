"""The stage and recipe mixed on the embedded model."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vitq.compiler.cli import main as cli
from vitq.compiler.cli.sensitivity_report import plot_sensitivity, sensitivity_rows
from vitq.compiler.kernels.cpu.narrow import PLANES
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.where import mixed_artifact
from vitq.compiler.studies import sensitivity as stage
from vitq.compiler.studies.sensitivity import sensitivity
from vitq.numerics.errors import VitqError
from vitq.quantization.graph import artifact as storage
from vitq.quantization.mixed.budget import Budget
from vitq.quantization.mixed.costs import PACKED_BITS, ProductCost
from vitq.quantization.plan.recipe import Recipe

BUDGET = 60_000
"""Bytes; 8-bit weights are 134,912."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


def call(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    command = ["vitq", *arguments, "--artifacts", str(folder), "--calib-count", "4"]
    monkeypatch.setattr(sys, "argv", command)
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_mixed_recipe_is_measured_once_and_quantized(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = ["quantize", "--recipe", "mixed", "--budget-bytes", str(BUDGET)]
    assert call(folder, monkeypatch, *mixed) == 0
    made = Path(capsys.readouterr().out.strip())
    assert made == folder / "digits_vit" / f"mixed-bytes{BUDGET}-repq"
    graph = storage.load(made).graph
    bits = {
        key: graph.tensors[key].size * (int(q.qmax).bit_length() + 1)
        for key, q in graph.qparams.items()
        if key.endswith(".weight")
    }
    assert 0.9 * BUDGET < sum(bits.values()) / 8 <= BUDGET
    (path,) = (made.parent / "recipes").glob(f"*/mixed-bytes{BUDGET}.json")
    recipe = json.loads(path.read_text())
    assert {layer["weight_bits"] for layer in recipe["layers"]} > {3, 8}

    (kept,) = (made.parent / "sensitivity").iterdir()
    content = json.loads(kept.read_text())
    assert content["complete"] == ["weight.3", "weight.4"]  # all that a budget of bytes needs
    assert len(content["measured"]) == 1 + 2 * 18
    bit_operations = ["quantize", "--recipe", "mixed", "--budget-bitops", "5e8"]
    assert call(folder, monkeypatch, *bit_operations) == 0
    assert "mixed-bitops500000000-repq" in capsys.readouterr().out

    def again(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(stage, "_measure", again)
    assert call(folder, monkeypatch, *mixed) == 0
    assert call(folder, monkeypatch, *bit_operations) == 0
    assert call(folder, monkeypatch, *mixed[:-1], "10000") == 2
    assert "too small" in capsys.readouterr().err
    assert call(folder, monkeypatch, *mixed[:-2]) == 2
    assert "--budget-bytes" in capsys.readouterr().err


def test_every_measurement_has_a_recipe_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another draw of pictures may give another recipe of the same name: both are kept."""
    measured = sensitivity(QuantizeOptions(artifacts=folder, calib_count=4))

    def draw(options: QuantizeOptions, *_: object) -> stage.Measurement:
        noises = [entry.noise for entry in measured.measured][:: -1 if options.calib_seed else 1]
        pairs = zip(measured.measured, noises, strict=True)
        found = [replace(entry, noise=noise) for entry, noise in pairs]
        return replace(measured, measured=found)

    monkeypatch.setattr(stage, "sensitivity", draw)
    options = [QuantizeOptions(artifacts=folder, calib_seed=seed) for seed in (0, 1)]
    made = [stage.mixed_options(o, Budget(BUDGET)) for o in options]
    assert made[0].artifact == mixed_artifact(options[0], Budget(BUDGET))
    first, second = (o.recipe for o in made)
    assert first != second and first.name == second.name == f"mixed-bytes{BUDGET}"
    files = (made[0].artifact.folder.parent / "recipes").glob(f"*/{first.name}.json")
    assert {first, second} <= {Recipe.parse(str(path)) for path in files}


def test_a_run_that_is_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save, saved = stage._save, []

    def stop_after_five(path: Path, wanted: str, result: stage.Measurement) -> None:
        save(path, wanted, result)
        saved.append(len(result.measured))
        if len(saved) == 5:
            raise KeyboardInterrupt

    arguments = ["sensitivity", "--widths", "4", "--json"]
    monkeypatch.setattr(stage, "_save", stop_after_five)
    assert call(tmp_path, monkeypatch, *arguments) == 130
    capsys.readouterr()
    assert call(tmp_path, monkeypatch, *arguments) == 0
    assert saved == [*range(1, 1 + 1 + 18 + 25), 1 + 18 + 25]  # the last one says: complete
    stopped = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(stage, "_save", save)
    assert call(tmp_path / "at_once", monkeypatch, *arguments) == 0
    assert json.loads(capsys.readouterr().out) == stopped


def test_table_plot_and_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(folder, monkeypatch, "sensitivity", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["pictures"] == 4 and content["modules"]["linear_16"] == "head"
    result = sensitivity(QuantizeOptions(artifacts=folder, calib_count=4))
    head, rows = sensitivity_rows(result)
    assert head[-4:] == ["3 bits, dB", "4 bits, dB", "6 bits, dB", "3 bits, KL"]
    assert len(rows) == 1 + 18 + 25 and all(len(row) == len(head) for row in rows)
    pytest.importorskip("matplotlib", reason="the extra vitq[benchmark] is not installed")
    plot_sensitivity(result, folder / "plot.svg")
    assert b"blocks.3.mlp.fc2" in (folder / "plot.svg").read_bytes()


def test_widths_out_of_range_are_refused() -> None:
    for widths in ((), (1,), (4, 8)):
        with pytest.raises(VitqError, match="give some of 2 to 7"):
            sensitivity(QuantizeOptions(), widths)


def test_bytes_are_counted_as_the_library_packs_them() -> None:
    assert set(PLANES) == set(range(2, PACKED_BITS + 1))
    cost = ProductCost("layer", 1, 16, None)
    assert [cost.size_bytes(bits) for bits in (2, 3, 4, 5, 8)] == [4, 6, 8, 16, 16]
