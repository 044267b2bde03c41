"""The embedded model, compiled once."""

from pathlib import Path

import pytest

from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.support.artifacts import Artifact


@pytest.fixture(scope="session")
def cuda_folder(artifact: Artifact) -> Path:
    """The embedded model for Hopper; tests must not edit it."""
    return compile_model(artifact.folder, CompileOptions(target="cuda"))
