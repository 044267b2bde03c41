"""Each example runs as it is written, in an empty folder."""

import io
import json
import re
import runpy
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vitq
from vitq.models.digits_vit.data import eval_images

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def right(text: str, name: str) -> float:
    """Share of correct answers that an example printed."""
    found = re.search(rf"^{name}: (\d+) of (\d+)$", text, re.MULTILINE)
    assert found is not None, text
    return int(found[1]) / int(found[2])


def run(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run an example as a program; returns what it printed."""
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def test_quickstart(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run("quickstart.py", capsys)
    assert right(text, "library") == right(text, "reference") > 0.95
    assert "int16" in text and (here / "out" / "cpu-b8" / "model.so").is_file()
    assert [path.name for path in here.iterdir()] == ["out"]


def test_own_module(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run("own_module.py", capsys)
    assert right(text, "library") > 0.8
    assert float(re.findall(r"choice: ([\d.]+) %", text)[0]) > 95
    assert not list(here.iterdir())


def test_foreign_qdq(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    text = run("foreign_qdq.py", capsys)
    assert right(text, "library") > 0.95
    assert "float operators left: 0" in text and "of the interpreter" in text
    assert not list(here.iterdir())


def test_compare_methods(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run("compare_methods.py", capsys)
    rows = re.findall(r"^(\S+ \S+): (\d+), ([\d.]+) dB$", text, re.MULTILINE)
    assert [name for name, _, _ in rows] == [
        "w8a8 minmax", "w8a8 repq", "w4a8 minmax", "w4a8 repq",
    ]  # fmt: skip
    noise = {name: float(db) for name, _, db in rows}
    assert noise["w8a8 repq"] > noise["w4a8 repq"] > 0 and not list(here.iterdir())


def test_c_program(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run("c_program/bundle.py", capsys)
    for name in ("Makefile", "classify.c"):
        shutil.copy(EXAMPLES / "c_program" / name, here)
    subprocess.run(["make", "--silent", "CFLAGS=-std=c99 -Wall -Wextra -Werror"], check=True)
    done = subprocess.run(["./classify", "digit.raw"], capture_output=True, text=True, check=True)
    digit = re.findall(r"digit.raw is a (\d)", text)[0]
    assert done.stdout.startswith(f"class {digit}, logit ")
    bad = subprocess.run(["./classify", "nowhere"], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stderr) == (1, "classify: cannot read the picture\n")


@pytest.fixture(scope="session")
def batches(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The embedded model, compiled with batches of 1 and 4."""
    quantized, folders = vitq.quantize("digits_vit", method="minmax"), {}
    for batch in (1, 4):
        folder = tmp_path_factory.mktemp(f"batch{batch}")
        folders[batch] = vitq.compile(quantized, batch=batch).save(folder)
    return folders


def digit_png(index: int) -> tuple[bytes, int]:
    """A held-out digit as a file, and which one it is."""
    pixels, labels = eval_images(index + 1)
    stream = io.BytesIO()
    Image.fromarray(pixels[index].transpose(1, 2, 0)).save(stream, "png")
    return stream.getvalue(), int(labels[index])


def test_the_server(batches: dict[int, Path]) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    library = vitq.load(batches[4])
    sizes: list[int] = []
    make_app = runpy.run_path(str(EXAMPLES / "serve_http.py"))["make_app"]

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

        def __call__(self, pixels: Any) -> Any:
            sizes.append(len(pixels))
            time.sleep(0.05)  # so that the others come meanwhile
            return library(pixels)

    with TestClient(make_app(Watched())) as client, ThreadPoolExecutor(12) as pool:
        ask = lambda body: client.post("/classify?top=3", content=body)  # noqa: E731
        files = [digit_png(index) for index in range(12)]
        answers = list(pool.map(ask, [content for content, _ in files]))
        for answer, (content, _) in zip(answers, files, strict=True):
            alone = library(library.pixels(Image.open(io.BytesIO(content))))
            (first, *others) = answer.json()["classes"]
            assert first["class"] == alone.argmax() and len(others) == 2
            assert 1 >= first["probability"] >= others[0]["probability"]
        assert sum(sizes) == 12 and max(sizes) == library.batch and min(sizes) >= 1
        assert ask(b"no picture").status_code == 415 and ask(b"").status_code == 413
        assert client.get("/health").json() == {"target": "cpu", "batch": 4, "waiting": 0}


def test_the_camera(
    batches: dict[int, Path],
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cv2 = pytest.importorskip("cv2")
    pixels, labels = eval_images(6)
    video = cv2.VideoWriter("walk.avi", cv2.VideoWriter_fourcc(*"MJPG"), 5, (32, 32))
    for picture in pixels:
        video.write(np.ascontiguousarray(picture.transpose(1, 2, 0)[..., ::-1]))
    video.release()
    arguments = ["camera.py", str(batches[1]), "walk.avi", "--every", "2"]
    monkeypatch.setattr("sys.argv", arguments)
    text = run("camera.py", capsys)
    found = re.findall(r"^frame (\d+): class (\d), ([\d.]+) %$", text, re.MULTILINE)
    assert [int(frame) for frame, _, _ in found] == [0, 2, 4]
    assert [int(name) for _, name, _ in found] == labels[::2].tolist()
    assert text.splitlines()[-1].startswith("3 frames, ")
    monkeypatch.setattr("sys.argv", [*arguments[:2], "nowhere.mp4"])
    with pytest.raises(SystemExit, match="cannot be opened"):
        run("camera.py", capsys)


def test_the_notebook(here: Path) -> None:
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(sources) > 5 and not any(cell.get("outputs") for cell in cells)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for index, source in enumerate(sources):
        exec(compile(source, f"cell {index}", "exec"), namespace)
    rows = namespace["rows"]
    assert rows["library"].top1 >= 95 and (here / "out").is_dir()  # type: ignore[index]


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.*")), ids=lambda path: path.name)
def test_no_path_of_a_machine_is_in_an_example(path: Path) -> None:
    assert not re.search(r"/(home|work|tmp|root|Users)/", path.read_text())
