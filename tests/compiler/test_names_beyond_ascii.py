"""A model, its folder, its pictures and its results may have names in any script."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitq.compiler.cli import main as cli

FACTORY = """
from tests.compiler.factories import plain


def bâtir():
    return plain()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with a factory and pictures in it."""
    place = tmp_path / "mes modèles 視覚"
    (place / "imágenes" / "кот").mkdir(parents=True)
    (place / "réseau.py").write_text(FACTORY, encoding="utf-8")
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(place / "imágenes" / "кот" / f"写真{i}.png")
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    yield place
    sys.modules.pop("réseau", None)


def vitq(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run the command line here."""
    monkeypatch.setattr(sys, "argv", ["vitq", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code, arguments


def test_all_stages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vitq(
        monkeypatch,
        *("quantize", "--model", "réseau:bâtir", "--random-weights", "3"),
        *("--calib", "imágenes", "--artifacts", "résultats"),
    )
    (artifact,) = (path.parent for path in Path("résultats").rglob("quantize.json"))
    vitq(monkeypatch, "export", str(artifact))
    vitq(monkeypatch, "compile", str(artifact))
    library = str(artifact / "cpu")
    vitq(monkeypatch, "verify", library, "--pictures", "imágenes", "--count", "4")
    np.save("entrée.npy", np.zeros((1, 3, 32, 32), np.uint8))
    vitq(monkeypatch, "run", library, "--input", "entrée.npy", "--output", "sortie 出.npy")
    assert np.load("sortie 出.npy").shape[0] == 1
    assert "réseau" in str(artifact)
