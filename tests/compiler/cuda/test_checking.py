"""`vitq verify --emulate`: a CUDA library's kernels against the contract, without a GPU."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.compiler.cuda.compilers import needs_compiler
from vitq.compiler.cli.main import app
from vitq.compiler.gpu_kit.drawing import CASES
from vitq.compiler.kernels.cuda.emulator.memory import EmulationError
from vitq.compiler.stages import emulate as checking
from vitq.compiler.stages.verify import IntegersDifferError, verify_emulated
from vitq.compiler.support.artifacts import METADATA_NAME, read_json
from vitq.numerics.errors import VitqError


@needs_compiler
def test_every_kernel_of_a_library_is_checked(cuda_folder: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(cuda_folder), "--emulate", "--json"])
    checks = json.loads(done.stdout)["checks"]
    kernels = [known["name"] for known in read_json(cuda_folder / METADATA_NAME)["schedules"]]
    assert [c["name"] for c in checks] == [f"{k}, {case}" for k in kernels for case in CASES]
    assert all(c["values"] and not c["different"] and c["against"] == "contract" for c in checks)
    assert {name.rpartition("_")[0] for name in kernels} >= {"linear", "attention", "layernorm"}


@needs_compiler
def test_one_wrong_integer_is_an_error(cuda_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emulate = checking.run_kernel

    def wrong(func: Any, *args: Any) -> Any:
        out = emulate(func, *args).copy()
        if func.attrs["global_symbol"] == "attention":
            out.reshape(-1)[-1] ^= 1
        return out

    monkeypatch.setattr(checking, "run_kernel", wrong)
    with pytest.raises(
        IntegersDifferError, match=r"1 of \d+ integers differ .*attention_0, random"
    ):
        verify_emulated(cuda_folder)


@needs_compiler
def test_a_race_is_an_error(cuda_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def race(*_: Any) -> None:
        raise EmulationError("two threads write one byte")

    monkeypatch.setattr(checking, "run_kernel", race)
    with pytest.raises(
        VitqError, match=r"kernel patch_embed_0 with .* write one byte; please report"
    ):
        verify_emulated(cuda_folder)


@needs_compiler
def test_a_library_of_another_version_is_refused(cuda_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "artifact" / "cuda"
    shutil.copytree(cuda_folder.parent, copy.parent)
    metadata = read_json(copy / METADATA_NAME)
    metadata["schedules"][0]["task"] += ", older"
    (copy / METADATA_NAME).write_text(json.dumps(metadata))
    with pytest.raises(VitqError, match="another version of vitq: compile again"):
        verify_emulated(copy)


def test_a_processors_library_is_none_for_it(compiled: Path) -> None:
    with pytest.raises(VitqError, match="--emulate is for GPUs"):
        verify_emulated(compiled)
