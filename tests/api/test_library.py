"""A library from Python: called, verified, evaluated, saved, and the same as the commands make."""

import gc
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitq
from vitq.compiler.cli.main import app
from vitq.numerics.arrays import IntArray, UInt8Array

Digits = tuple[UInt8Array, IntArray]


def run_command(*arguments: str) -> None:
    """A command of the command line, in this process."""
    assert not app([*arguments], standalone_mode=False)


def same_files(one: Path, other: Path, *names: str) -> bool:
    """Whether files of these names are equal, byte for byte."""
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


@pytest.mark.parametrize("number", [1, 3, 4, 9])
def test_any_number_of_pictures(library: vitq.Library, digits: Digits, number: int) -> None:
    logits = library(digits[0][:number])
    assert logits.shape == (number, library.classes) and logits.dtype == np.float32
    np.testing.assert_array_equal(logits, library(digits[0][:10])[:number])


def test_integers_and_their_scale(library: vitq.Library, digits: Digits) -> None:
    found = library.run(digits[0][:5], raw=True)
    assert isinstance(found, vitq.Integers) and found.codes.dtype == np.int16
    real = ((found.codes.astype(np.int64) - found.zero_point) * found.scale).astype(np.float32)
    np.testing.assert_array_equal(real, library(digits[0][:5]))
    reference = library.run(digits[0][:5], raw=True, backend="reference")
    np.testing.assert_array_equal(found.codes, reference.codes)


def test_a_tensor_is_as_good_as_an_array(library: vitq.Library, digits: Digits) -> None:
    given = torch.from_numpy(digits[0][:2])
    np.testing.assert_array_equal(library(given), library(digits[0][:2]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((1, 3, 32, 32), np.float32), "is float32: the model takes raw pixels, uint8"),
        (
            np.zeros((1, 3, 28, 28), np.uint8),
            r"shape \(1, 3, 28, 28\): the model takes N x 3x32x32",
        ),
        (np.zeros((0, 3, 32, 32), np.uint8), "is an array of 0 pictures"),
        ("pictures/", "pixels are a str: give a uint8 array"),
    ],
)
def test_what_is_no_picture_is_refused(
    library: vitq.Library, pixels: UInt8Array, message: str
) -> None:
    with pytest.raises(vitq.VitqError, match=message):
        library(pixels)


@pytest.mark.parametrize("shared", [True, False], ids=["one library", "one for each thread"])
def test_threads_may_call_it(library: vitq.Library, digits: Digits, shared: bool) -> None:
    parts = np.array_split(digits[0][:40], 8)
    expected = [library(part) for part in parts]

    def answers(part: np.ndarray) -> list[np.ndarray]:
        own = library if shared else vitq.load(library.folder)
        return [own(part) for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        for want, found in zip(expected, pool.map(answers, parts), strict=True):
            assert all(np.array_equal(want, one) for one in found)


def test_an_unknown_backend_is_refused(library: vitq.Library, digits: Digits) -> None:
    with pytest.raises(vitq.VitqError, match="backend 'gpu': choose library or reference"):
        library.run(digits[0], backend="gpu")  # type: ignore[call-overload]


def test_verify_compares_all_that_is_in_hand(library: vitq.Library, digits: Digits) -> None:
    checks = {check.name: check for check in library.verify(digits[0][:70])}
    assert checks["real"].pictures == 70 and checks["golden"].against == "golden"
    assert all(check.different == 0 and check.values for check in checks.values())
    with pytest.raises(vitq.VitqError, match="leave pixels out"):
        library.verify(digits[0], emulate=True)


def test_verify_finds_a_difference(library: vitq.Library, digits: Digits, tmp_path: Path) -> None:
    folder = library.save(tmp_path / "out") / library.folder.name
    with np.load(folder / "golden.npz") as golden:
        pixels, codes = golden["pixels"], golden["codes"].copy()
    codes[0, 0] += 1
    np.savez_compressed(folder / "golden.npz", pixels=pixels, codes=codes)
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["sha256"]["golden.npz"] = sha256((folder / "golden.npz").read_bytes()).hexdigest()
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(vitq.IntegersDifferError, match="1 of 80 integers differ from the golden"):
        vitq.load(folder).verify(digits[0][:1])


def test_evaluate_takes_pictures_with_labels(library: vitq.Library, digits: Digits) -> None:
    pixels, labels = digits
    rows = library.evaluate(pixels[:40], labels[:40], backends=["float", "library"])
    assert list(rows) == ["float", "library"] and rows["library"].images == 40
    own = int((library(pixels[:40]).argmax(1) == labels[:40]).sum())
    assert rows["library"].top1 == own and rows["float"].top1 is not None
    wrong = library.evaluate(pixels[:40], (labels[:40] + 1) % 10, backends=["library"])
    assert wrong["library"].top1 != own
    assert library.evaluate(pixels[:4], backends=["library"])["library"].top1 is None


def test_labels_must_fit(library: vitq.Library, digits: Digits) -> None:
    pixels, labels = digits
    with pytest.raises(vitq.VitqError, match=r"labels of shape \(3,\) for 4 pictures"):
        library.evaluate(pixels[:4], labels[:3])
    with pytest.raises(vitq.VitqError, match="labels are float64: give class numbers"):
        library.evaluate(pixels[:4], labels[:4] * 0.5)
    with pytest.raises(vitq.VitqError, match=r"a folder has its own: labels\.csv"):
        library.evaluate("pictures/", labels[:4])


def test_the_command_line_makes_the_same(
    quantized: vitq.Quantized, library: vitq.Library, tmp_path: Path
) -> None:
    run_command("quantize", "--artifacts", str(tmp_path))
    artifact = tmp_path / "digits_vit" / "w8a8-repq"
    run_command("export", str(artifact))
    run_command("compile", str(artifact), "--batch", "4")
    assert same_files(quantized.folder, artifact, "quantized.safetensors", "model.onnx")
    ours, theirs = (np.load(f / "golden.npz") for f in (library.folder, artifact / "cpu-b4"))
    np.testing.assert_array_equal(ours["codes"], theirs["codes"])
    np.testing.assert_array_equal(ours["pixels"], theirs["pixels"])
    found = vitq.load(artifact)
    assert (found.target, found.batch) == ("cpu", 4)
    np.testing.assert_array_equal(found(theirs["pixels"]), library(theirs["pixels"]))


def test_the_commands_take_what_was_saved(
    library: vitq.Library, digits: Digits, tmp_path: Path
) -> None:
    folder = library.save(tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == [
        "cpu-b4", "export.json", "model.onnx", "quantize.json", "quantized.safetensors",
    ]  # fmt: skip
    np.save(tmp_path / "x.npy", digits[0][:6])
    run_command("verify", str(folder), "--pictures", str(tmp_path / "x.npy"))
    paths = str(tmp_path / "x.npy"), str(tmp_path / "y.npy")
    run_command("run", str(folder / "cpu-b4"), "--input", paths[0], "--output", paths[1])
    np.testing.assert_array_equal(np.load(paths[1]), library(digits[0][:6]))
    np.testing.assert_array_equal(vitq.load(folder)(digits[0][:6]), library(digits[0][:6]))


def test_a_second_target_lies_beside_the_first(
    quantized: vitq.Quantized, library: vitq.Library, tmp_path: Path
) -> None:
    library.save(tmp_path / "out")
    vitq.compile(quantized, batch=1, tuned=False).save(tmp_path / "out")
    with pytest.raises(vitq.VitqError, match=r"several targets: give one of .*cpu-b4.*cpu-untuned"):
        vitq.load(tmp_path / "out")
    assert set(vitq.inspect(tmp_path / "out")["targets"]) == {"cpu-b4", "cpu-untuned"}
    assert vitq.load(tmp_path / "out" / "cpu-untuned").batch == 1
    again = vitq.load(tmp_path / "out" / "cpu-b4")
    assert again.save(tmp_path / "out") == tmp_path / "out" and again.verify()


def test_only_an_artifact_is_replaced(library: vitq.Library, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("long work")
    with pytest.raises(vitq.VitqError, match="mine holds other files: give a new folder"):
        library.save(mine)
    with pytest.raises(vitq.VitqError, match="is a file: give a folder"):
        library.save(mine / "thesis.tex")
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def test_another_models_libraries_do_not_stay(
    quantized: vitq.Quantized, library: vitq.Library, tmp_path: Path
) -> None:
    folder = library.save(tmp_path / "out")
    (folder / "notes.txt").write_text("kept")
    other = vitq.quantize("digits_vit", method="minmax", count=8)
    other.save(folder)
    left = {path.name for path in folder.iterdir()}
    assert left == {"notes.txt", "quantize.json", "quantized.safetensors"}
    assert vitq.inspect(folder)["provenance"]["method"] == "minmax"


def test_nothing_is_written_unless_asked(
    quantized: vitq.Quantized, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = quantized.save(tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.chdir(tmp_path)
    found = vitq.compile("out", batch=2, tuned=False)
    assert found.verify() and found.folder.is_relative_to(tempfile.gettempdir())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_temporary_folders_go_away(quantized: vitq.Quantized) -> None:
    again = vitq.compile(quantized.save(quantized.folder), batch=4)
    folder = again.folder
    assert folder.is_dir() and not folder.is_relative_to(quantized.folder)
    del again
    gc.collect()
    assert not folder.exists() and quantized.folder.is_dir()


def test_a_file_of_quantizers_from_elsewhere(
    quantized: vitq.Quantized, library: vitq.Library, digits: Digits, tmp_path: Path
) -> None:
    path = quantized.export(tmp_path / "theirs.onnx")
    foreign = vitq.compile(path, batch=4)
    np.testing.assert_array_equal(foreign(digits[0][:8]), library(digits[0][:8]))
    assert all(check.different == 0 for check in foreign.verify(digits[0][:4]))
    rows = foreign.evaluate(digits[0][:8], digits[1][:8])
    assert list(rows) == ["onnxruntime", "reference", "library"]
    assert rows["library"].agreement is None and rows["library"].top1 is not None
    assert [p.name for p in tmp_path.iterdir()] == ["theirs.onnx"]
    with pytest.raises(vitq.VitqError, match=r"ends in \.onnx"):
        quantized.export(tmp_path / "theirs")


def test_a_path_that_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(vitq.VitqError, match="does not exist"):
        vitq.compile(tmp_path / "typo")
    with pytest.raises(vitq.VitqError, match=r"model is a int: give what vitq\.quantize returned"):
        vitq.compile(7)  # type: ignore[arg-type]


def test_a_static_bundle(library: vitq.Library, tmp_path: Path) -> None:
    names = [f"digit {i}" for i in range(10)]
    bundle = vitq.deploy(library, tmp_path / "bundle", flavour="static", labels=names)
    assert bundle.measured.verified == "here" and bundle.said is None
    assert (bundle.folder / "labels.txt").read_text().splitlines() == names
    with pytest.raises(vitq.VitqError, match="each name is one line"):
        vitq.deploy(library, tmp_path / "bundle", labels=["a\nb"])


def test_targets_are_those_of_the_table() -> None:
    assert {"cpu", "rpi5", "cuda"} <= set(vitq.targets())


def test_tune_writes_to_the_log_that_it_is_given(quantized: vitq.Quantized, tmp_path: Path) -> None:
    result = vitq.tune(quantized, trials=2, log=tmp_path / "log")
    assert result.new_trials == 2 and list((tmp_path / "log").glob("*.json"))


def test_pil_pictures_are_pixels_of_the_models_size(library: vitq.Library, digits: Digits) -> None:
    images = [Image.fromarray(x.transpose(1, 2, 0)) for x in digits[0][:4]]
    rows = library.evaluate(images, digits[1][:4], backends=["library"])
    assert rows["library"].images == 4


def test_what_needs_other_hardware_says_where_to_go(quantized: vitq.Quantized) -> None:
    with pytest.raises(vitq.VitqError, match=r"has a GPU: vitq\.kit makes a folder"):
        vitq.benchmark(quantized, target="cuda")
    with pytest.raises(vitq.VitqError, match="target x86-vnni has no GPU: a kit is for"):
        vitq.kit([], "kit", target="x86-vnni")
    with pytest.raises(vitq.VitqError, match="contestant 'nobody' is unknown"):
        vitq.benchmark(quantized, contestants=["nobody"])


def test_pictures_become_pixels_of_the_models_size(
    library: vitq.Library, digits: Digits, tmp_path: Path
) -> None:
    wide = Image.fromarray(np.arange(64 * 96 * 3, dtype=np.uint8).reshape(64, 96, 3))
    wide.save(tmp_path / "a.PNG")
    expected = library.pixels(wide)
    assert expected.shape == (1, *library.input_shape) and expected.dtype == np.uint8
    for source in ([wide, wide], tmp_path, tmp_path / "a.PNG", str(tmp_path / "a.PNG")):
        found = library.pixels(source)
        assert len(found) == (2 if isinstance(source, list) else 1)
        np.testing.assert_array_equal(found[-1:], expected)
    np.testing.assert_array_equal(library.pixels(digits[0][:3]), digits[0][:3])
    with pytest.raises(vitq.VitqError, match="no pictures"):
        library.pixels(None)  # type: ignore[arg-type]
