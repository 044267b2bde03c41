"""`run`: pictures, folders, arrays; best classes, logits, or one line that says what is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitq
from tests.compiler.test_cli import call
from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.deploy.bundle import DeployOptions
from vitq.compiler.stages.deploy import deploy
from vitq.compiler.stages.run import CHUNK, best_classes, classify, run
from vitq.compiler.support.artifacts import Artifact
from vitq.models.digits_vit.data import eval_images
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.pixels import load_picture

COUNT = CHUNK + 3
"""More than one chunk, the last one not full."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Held-out digits, one folder for each class."""
    pixels, labels = eval_images(COUNT)
    for index, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        place = tmp_path / "in" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(place / f"{index:02}.PNG")
    return tmp_path / "in"


def test_a_folder_is_answered_like_its_pictures_alone(compiled: Path, pictures: Path) -> None:
    files = sorted(pictures.rglob("*.PNG"))
    answers = list(classify(compiled, [pictures], top=3))
    assert [Path(answer.picture) for answer in answers] == files
    assert list(classify(compiled, files, top=3)) == answers
    opened = open_compiled(compiled)
    for answer, file in zip(answers, files, strict=True):
        logits = opened.logits(opened.reference()(load_picture(file, opened.preprocessing)[None]))
        assert answer.best == best_classes(logits[0], [str(n) for n in range(10)], 3)
        assert answer.best[0].name == str(logits.argmax())


def test_logits_of_a_folder_are_written(compiled: Path, pictures: Path, tmp_path: Path) -> None:
    shape = run(compiled, pictures, tmp_path / "y.npy")
    best = [answer.best[0].number for answer in classify(compiled, [pictures])]
    assert shape == (COUNT, 10)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy").argmax(1), best)


def test_probabilities_are_a_softmax_and_ties_keep_their_order() -> None:
    logits = np.array([1.0, 3.0, 3.0, -1000.0], np.float32)
    best = best_classes(logits, None, 9)
    assert [guess.number for guess in best] == [1, 2, 0, 3]
    shares = np.exp(logits - 3) / np.exp(logits - 3).sum()
    np.testing.assert_allclose([g.probability for g in best], shares[[1, 2, 0, 3]], rtol=1e-6)
    assert all(guess.name is None for guess in best)


def test_the_command_prints_a_table_and_json(
    compiled: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("".join(f"digit-{n}\n" for n in range(10)))
    file = sorted(pictures.rglob("*.PNG"))[0]
    wanted = ["run", str(compiled), str(file), "--top", "2", "--labels", str(names)]
    assert call([*wanted, "--json"], monkeypatch) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["picture"] == str(file) and len(answer["classes"]) == 2
    assert answer["classes"][0]["name"] == f"digit-{answer['classes'][0]['class']}"
    assert call(wanted, monkeypatch) == 0
    assert answer["classes"][0]["name"] in capsys.readouterr().out
    np.save(tmp_path / "x.npy", eval_images(2)[0])
    assert call(["run", str(compiled), str(tmp_path / "x.npy"), "--json"], monkeypatch) == 0
    rows = json.loads(capsys.readouterr().out)["answers"]
    assert [row["picture"] for row in rows] == [f"{tmp_path / 'x.npy'}[{n}]" for n in range(2)]


def test_mistakes_are_one_line(
    compiled: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "two.txt").write_text("a\nb\n")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    cases = {
        "nothing to run": [],
        "--top 0: give at least 1": [str(pictures), "--top", "0"],
        "choose library or reference": [str(pictures), "--backend", "gpu"],
        "give --output": [str(pictures), "--raw"],
        "one source, and 2": [str(pictures), str(pictures), "--output", "y.npy"],
        "holds no pictures": [str(tmp_path / "empty")],
        "has 2 lines": [str(pictures), "--labels", str(tmp_path / "two.txt")],
        "bad.png cannot be read": [str(tmp_path / "bad.png")],
        "nowhere.png is not there": [str(tmp_path / "nowhere.png")],
        "nowhere is not there: name pictures": [str(tmp_path / "nowhere")],
    }
    for said, arguments in cases.items():
        assert call(["run", str(compiled), *arguments], monkeypatch) == 2, said
        error = capsys.readouterr().err.strip()
        assert said in error and len(error.splitlines()) == 1


def test_the_api_answers_with_names(compiled: Path, pictures: Path) -> None:
    library = vitq.load(compiled)
    found = library.classify(pictures, top=2)
    answers = list(classify(compiled, [pictures], top=2))
    assert found == [answer.best for answer in answers]
    assert library.classify(pictures, names=list("abcdefghij"))[0][0].name in "abcdefghij"
    with pytest.raises(VitqError, match="2 names: the model has 10 classes"):
        library.classify(pictures, names=["a", "b"])


def test_a_library_of_an_earlier_quantization_is_neither_run_nor_deployed(
    artifact: Artifact, compiled: Path, tmp_path: Path
) -> None:
    pixels, copy = tmp_path / "x.npy", tmp_path / "artifact"
    np.save(pixels, eval_images(1)[0])
    shutil.copytree(artifact.folder, copy)
    library = copy / compiled.name
    assert len(list(classify(library, [pixels]))) == 1

    def refused(said: str) -> None:
        with pytest.raises(VitqError, match=said):
            list(classify(library, [pixels]))
        with pytest.raises(VitqError, match=said):
            deploy(library, DeployOptions(out=tmp_path / "bundle", flavour="static"))
        assert not (tmp_path / "bundle").exists()

    quantized = json.loads((copy / "quantize.json").read_text())
    quantized["provenance"]["preprocessing"]["color"] = "BGR"
    (copy / "quantize.json").write_text(json.dumps(quantized))
    refused("prepares pictures in another way")
    with (copy / "quantized.safetensors").open("ab") as file:
        file.write(b" ")
    refused("compiled from another quantized.safetensors")
    alone = tmp_path / "alone"
    shutil.copytree(library, alone / "cpu")
    (alone / "model.onnx").write_bytes((copy / "model.onnx").read_bytes())
    assert len(list(classify(alone / "cpu", [pixels]))) == 1
