"""The embedded model, compiled once for all workers."""

import shutil
from pathlib import Path

import pytest

from tests.sharing import made_once, session_folder
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.target.choice import get_target


@pytest.fixture(scope="session")
def cuda_folder(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model for Hopper; tests must not edit it."""

    def make(folder: Path) -> None:
        compiled = compile_model(artifact.folder, CompileOptions(target=get_target("cuda")))
        shutil.copytree(compiled, folder / compiled.name)

    made = made_once(session_folder(tmp_path_factory) / "cuda", make)
    for path in made.iterdir():
        shutil.copytree(path, artifact.folder / path.name, dirs_exist_ok=True)
    return compile_model(artifact.folder, CompileOptions(target=get_target("cuda")))
