"""The command line: fast to start, one line for a user's mistake, a fixed exit code."""

import json
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from vitq.compiler.cli import main as cli
from vitq.compiler.cli.quantizing import SHARED, quantize_options
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.artifacts import Artifact
from vitq.quantization.plan.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["vitq", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_starting_imports_no_heavy_package() -> None:
    code = (
        "import sys, vitq.compiler.cli.main\n"
        "import vitq.compiler.stages.quantize, vitq.compiler.stages.compile\n"
        "import vitq.compiler.stages.run\n"
        "print([m for m in ('torch', 'tvm', 'onnx', 'onnxruntime', 'timm') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_starting_the_command_line_imports_no_numpy() -> None:
    code = "import sys, vitq.compiler.cli.main; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def bad_inputs(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Name -> (arguments, what the one line must say)."""
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "a.png").write_bytes(b"no picture")
    (folder / "pictures").mkdir()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "pictures" / "a.png")
    (folder / "cut.onnx").write_bytes(b"\x08\x07garbage")
    write_unsupported(folder / "odd.onnx")
    torch.save({"state_dict": {"head.weight": torch.zeros(3, 3)}}, folder / "misfit.pth")
    (folder / "cut.safetensors").write_bytes(b"\x10\x00")
    torch.save({"nan": torch.tensor(float("nan"))}, folder / "other.pt")
    quantize = ["quantize", "--artifacts", str(folder / "out")]
    tiny = [*quantize, "--model", "tests.compiler.factories:plain", "--random-weights", "0"]
    return {
        "unknown model": ([*quantize, "--model", "resnetty"], ["resnetty", "unknown"]),
        "unknown factory": ([*quantize, "--model", "no.such:thing"], ["cannot be imported"]),
        "no module": (
            [*quantize, "--model", "tests.compiler.factories:not_a_module", "--calib", "digits"],
            ["not a torch.nn.Module"],
        ),
        "no weights": ([*quantize, "--model", "vit_tiny_patch16_224"], ["--weights"]),
        "misfit": (
            [*quantize, "--weights", str(folder / "misfit.pth")],
            ["do not fit", "missing", "cls_token", "head.weight (3, 3)"],
        ),
        "cut weights": ([*quantize, "--weights", str(folder / "cut.safetensors")], ["cannot be"]),
        "no such weights": ([*quantize, "--weights", "none.pth"], ["do not exist"]),
        "both weights": (
            [*quantize, "--weights", "a", "--random-weights", "1"],
            ["not both"],
        ),
        "empty folder": ([*tiny, "--calib", str(folder / "empty")], ["holds no pictures"]),
        "broken picture": ([*tiny, "--calib", str(folder / "broken")], ["a.png", "picture"]),
        "no calib": (tiny, ["no calibration pictures"]),
        "no such folder": ([*tiny, "--calib", "nowhere"], ["nowhere", "no such"]),
        "zero count": ([*quantize, "--calib-count", "0"], ["calibration pictures is 0"]),
        "no features": ([*quantize, "--output-features", ""], ["name each module once"]),
        "zero steps": ([*quantize, "--calib", "psaq", "--calib-steps", "0"], ["steps is 0"]),
        "no attention": (
            [*quantize, "--model", "tests.compiler.factories:attentionless",
             "--random-weights", "0", "--calib", "psaq"],
            ["no softmax attention", "--calib"],
        ),
        "no budget": ([*quantize, "--recipe", "mixed"], ["--budget-bytes", "--budget-bitops"]),
        "bad widths": (
            ["sensitivity", "--artifacts", str(folder), "--widths", "4,x"],
            ["--widths", "whole numbers"],
        ),
        "bad backend": (
            ["compare-methods", "--artifacts", str(folder), "--backend", "gpu"],
            ["gpu", "fake, reference, library"],
        ),
        "unknown method": ([*quantize, "--method", "magic"], ["magic", "minmax, percentile, repq"]),
        "unknown recipe": ([*quantize, "--recipe", "int8"], ["int8", "w8a8"]),
        "too few bits": ([*quantize, "--recipe", "w1a8"], ["weight_bits is 1"]),
        "unsupported model": (
            [*quantize, "--model", "tests.compiler.factories:unsupported",
             "--random-weights", "0", "--calib", str(folder / "pictures")],
            ["sin", "sort"],
        ),
        "bad mean": ([*quantize, "--mean", "a,b", "--std", "1"], ["--mean"]),
        "unknown target": (["compile", str(folder), "--target", "toaster"], ["toaster",
        "x86-vnni"]),
        "build unknown target": (["build", "--target", "toaster"], ["toaster", "x86-vnni"]),
        "not onnx": (["compile", str(folder / "cut.onnx")], ["not a readable ONNX"]),
        "unsupported onnx": (["compile", str(folder / "odd.onnx")], ["Sin (x2)", "Cos (x1)"]),
        "no artifact": (["export", str(folder / "empty")], ["no artifact"]),
        "nothing compiled": (["verify", str(folder / "empty")], ["run compile first"]),
        "emulate pictures": (
            ["verify", str(folder), "--emulate", "--pictures", "x"], ["--emulate", "--pictures"]
        ),
        "inspect nothing": (["inspect", str(folder / "nowhere")], ["does not exist"]),
        "batch 0": (["compile", str(folder), "--batch", "0"], ["batch 0"]),
        "unknown option": (["verify", "--nothing"], ["--nothing"]),
    }  # fmt: skip


def write_unsupported(path: Path) -> None:
    """A valid ONNX file with operators that no pass knows."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 4, 4]) for n in ("x", "y")]
    names = ["x", "a", "b", "y"]
    ops = ["Sin", "Cos", "Sin"]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]]) for i, op in enumerate(ops)]
    graph = helper.make_graph(nodes, "odd", value[:1], value[1:])
    opset = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def test_each_bad_input_is_one_line_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    for name, (arguments, texts) in bad_inputs(tmp_path).items():
        assert call(arguments, monkeypatch) == 2, name
        error = capsys.readouterr().err
        assert "Traceback" not in error, name
        if name != "unknown option":  # click adds its usage line
            assert len([line for line in error.splitlines() if line.startswith("vitq:")]) == 1, name
        missing = [text for text in texts if text not in error]
        assert not missing, f"{name}: {missing} not in {error}"
    assert not list((tmp_path / "out").rglob("*.json")), "a refused stage left an artifact"


def test_non_finite_weights_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    from vitq.models.digits_vit import CHECKPOINT

    state = load_file(CHECKPOINT)
    state["norm.weight"][3] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    arguments = ["quantize", "--weights", str(tmp_path / "nan.safetensors"), "--artifacts"]
    assert call([*arguments, str(tmp_path)], monkeypatch) == 2
    error = capsys.readouterr().err
    assert "norm.weight" in error and "NaN or infinite" in error


def test_run_refuses_wrong_shape_and_dtype(
    compiled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases = {
        "has shape (1, 3, 8, 8)": np.zeros((1, 3, 8, 8), np.uint8),
        "is float32": np.zeros((1, 3, 32, 32), np.float32),
        "is an array of 0 pictures": np.zeros((0, 3, 32, 32), np.uint8),
    }
    for text, array in cases.items():
        np.save(tmp_path / "x.npy", array)
        arguments = ["--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "y.npy")]
        assert call(["run", str(compiled), *arguments], monkeypatch) == 2
        assert text in capsys.readouterr().err
        assert not (tmp_path / "y.npy").exists()


def test_the_stages_print_json(
    artifact: Artifact,
    compiled: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = ["--artifacts", str(artifact.folder.parents[1])]
    commands: dict[str, list[str]] = {
        "quantize": root, "export": [str(artifact.folder)], "compile": [str(artifact.folder)],
        "build": [*root, "--count", "20"],
    }  # fmt: skip
    found = {}
    for name, arguments in commands.items():
        assert call([name, *arguments, "--json"], monkeypatch) == 0
        found[name] = json.loads(capsys.readouterr().out)
    assert found["quantize"]["provenance"]["method"] == "repq"
    assert found["quantize"]["folder"] == str(artifact.folder)
    assert found["export"]["parity"] and found["export"]["onnx"] == str(artifact.onnx)
    assert found["compile"]["folder"] == str(compiled) == found["build"]["folder"]
    assert found["compile"]["float_islands"] == []
    assert {row["name"] for row in found["build"]["rows"]} >= {"float", "library"}
    assert all(check["different"] == 0 for check in found["build"]["checks"])


def test_inspect_and_targets_print_json(
    compiled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["inspect", str(compiled), "--json"], monkeypatch) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["targets"]["cpu"]["float_islands"] == []
    assert call(["targets", "--json"], monkeypatch) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)["targets"]]
    assert names[0] == "cpu" and "x86-vnni" in names


def test_interrupted_stage_leaves_nothing(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "vitq.compiler.cli.main",
        "-v",
        "quantize",
        "--artifacts",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore SIGINT, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    # The first message says that the libraries are loaded: an interrupt amid that may abort.
    assert process.stderr is not None and process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in error
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_help_names_every_method() -> None:
    option = get_args(SHARED["method"].annotation)[1]
    assert sorted(set(re.findall(r"\w+", option.help)) - {"or"}) == sorted(METHODS)


def test_every_quantize_option_can_be_given_on_the_command_line() -> None:
    """But for the model in hand, which only Python has; each is handed on as it was given."""
    names = {field.name for field in fields(QuantizeOptions)} - {"module"}
    assert names | {"nonlinear"} == set(SHARED) - {"budget_bytes", "budget_bitops"}
    given = {name: parameter.default for name, parameter in SHARED.items()}
    assert quantize_options(**given) == QuantizeOptions()
    changed = quantize_options(**{**given, "mean": "0.5,0.4,0.3", "std": "1,1,1", "calib_seed": 3})
    assert changed == QuantizeOptions(mean=(0.5, 0.4, 0.3), std=(1.0, 1.0, 1.0), calib_seed=3)
