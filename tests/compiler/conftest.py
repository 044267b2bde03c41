"""The embedded model, taken through all stages once for all workers."""

import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sharing import built_once, made_once, session_folder
from vitq.compiler.deploy.bundle import FLAVOURS, Bundle, DeployOptions
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.deploy import deploy
from vitq.compiler.stages.export import export
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.artifacts import Artifact
from vitq.compiler.target.tools import Toolchain

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each program of a bundle is compiled once."""
    cache = session_folder(tmp_path_factory) / "programs"
    cache.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Toolchain, "build", built_once(cache))
        yield


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Quantized, exported and compiled for this machine; a worker's own copy."""

    def make(folder: Path) -> None:
        result = quantize(QuantizeOptions(artifacts=folder))
        export(result)
        compile_model(result.folder, CompileOptions())

    made = made_once(session_folder(tmp_path_factory) / "artifacts", make)
    own = shutil.copytree(made, tmp_path_factory.mktemp("copy") / "artifacts")
    return QuantizeOptions(artifacts=own).artifact


@pytest.fixture(scope="session")
def deit(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Real DeiT-Tiny, quantized and exported; a worker's own copy."""

    def options(folder: Path) -> QuantizeOptions:
        return QuantizeOptions(
            model="deit_tiny_patch16_224",
            weights=real_data / "deit_tiny_patch16_224.safetensors",
            calib=str(real_data / "imagenet300" / "calib"),
            artifacts=folder,
        )

    made = made_once(
        session_folder(tmp_path_factory) / "deit", lambda folder: export(quantize(options(folder)))
    )
    return options(shutil.copytree(made, tmp_path_factory.mktemp("deit") / "artifacts")).artifact


@pytest.fixture(scope="session")
def compiled(artifact: Artifact) -> Path:
    """Compiled for this machine at batch 1."""
    return compile_model(artifact.folder, CompileOptions())


@pytest.fixture(scope="session")
def bundles(compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """For this machine, one of each flavour; tests must not edit them."""

    def make(folder: Path) -> None:
        made = {
            name: deploy(compiled, DeployOptions(out=folder / name, flavour=name))
            for name in FLAVOURS
        }
        (folder / "bundles").write_bytes(pickle.dumps(made))

    folder = made_once(session_folder(tmp_path_factory) / "bundles", make)
    made: dict[str, Bundle] = pickle.loads((folder / "bundles").read_bytes())
    return {name: replace(bundle, folder=folder / name) for name, bundle in made.items()}


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real weights and pictures, on machines that have them."""
    if not REAL_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout: real DeiT-Tiny weights and pictures")
    return REAL_DATA
