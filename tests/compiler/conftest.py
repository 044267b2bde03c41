"""The embedded model, taken through all stages once."""

from pathlib import Path

import pytest

from vitq.compiler.deploy.bundle import FLAVOURS, Bundle, DeployOptions
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.deploy import deploy
from vitq.compiler.stages.export import export
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.artifacts import Artifact

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Quantized and exported."""
    options = QuantizeOptions(artifacts=tmp_path_factory.mktemp("artifacts"))
    result = quantize(options)
    export(result)
    return result


@pytest.fixture(scope="session")
def compiled(artifact: Artifact) -> Path:
    """Compiled for this machine at batch 1."""
    return compile_model(artifact.folder, CompileOptions())


@pytest.fixture(scope="session")
def bundles(compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """For this machine, one of each flavour; tests must not edit them."""
    folder = tmp_path_factory.mktemp("bundles")
    return {name: deploy(compiled, DeployOptions(folder / name, name)) for name in FLAVOURS}


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real weights and pictures, on machines that have them."""
    if not REAL_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout: real DeiT-Tiny weights and pictures")
    return REAL_DATA
