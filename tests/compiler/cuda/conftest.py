"""The embedded model, compiled once."""

from pathlib import Path

import pytest

from compiler.artifacts import Artifact
from compiler.compile import CompileOptions, compile_model


@pytest.fixture(scope="session")
def cuda_folder(artifact: Artifact) -> Path:
    """The embedded model for Hopper; tests must not edit it."""
    return compile_model(artifact.folder, CompileOptions(target="cuda"))
