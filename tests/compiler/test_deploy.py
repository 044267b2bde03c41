"""Bundles for this machine: the runner, what it refuses, and putting one together."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitq
from tests.compiler.bundles import is_one_line, rewrite_manifest, run, write_manifest
from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.deploy.bundle import FLAVOURS, Bundle, DeployOptions
from vitq.compiler.deploy.static_library import FUNCTIONS
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.deploy import deploy
from vitq.compiler.stages.run import classify
from vitq.compiler.support.artifacts import Artifact
from vitq.models.timm_compat import import_timm
from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.quantization.pictures.pixels import fit_picture, load_picture

STATIC_BUDGET = 2 << 20
"""Bytes that an inference of the static flavour may take beside the weights."""


@pytest.fixture(params=FLAVOURS)
def bundle(request: pytest.FixtureRequest, bundles: dict[str, Bundle]) -> Path:
    """Each flavour in turn."""
    return bundles[request.param].folder


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def codes_of(bundle: Path, file: Path) -> IntArray:
    code, out, error = run(bundle, "infer", str(file), "--raw")
    assert code == 0, error
    return np.array([[int(word) for word in line.split()] for line in out.splitlines()])


def test_the_bundle_is_verified_and_measured(bundles: dict[str, Bundle]) -> None:
    for flavour, made in bundles.items():
        assert made.measured.verified == "here"
        assert made.measured.peak_bytes is not None and made.measured.peak_bytes < 200 << 20
        assert made.manifest["flavour"] == flavour
        code, out, error = run(made.folder, "verify")
        assert (code, error) == (0, "") and "integers equal the golden ones" in out
        listed = {file["path"] for file in made.manifest["files"]}
        present = {
            str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file()
        }
        assert present == listed | {"manifest.json", "manifest.sha256"}
        assert len((made.folder / "README").read_text().splitlines()) == 10


def test_pictures_give_the_reference_integers(
    bundle: Path, compiled: Path, digits_pixels: UInt8Array, tmp_path: Path
) -> None:
    random = np.random.default_rng(1).integers(0, 256, (3, 3, 32, 32), np.uint8)
    pixels = np.concatenate([digits_pixels, random])
    np.save(tmp_path / "x.npy", pixels)
    pixels.tofile(tmp_path / "x.u8")
    wanted = open_compiled(compiled).reference()(pixels)
    assert np.array_equal(codes_of(bundle, tmp_path / "x.npy"), wanted)
    assert np.array_equal(codes_of(bundle, tmp_path / "x.u8"), wanted)


@pytest.mark.parametrize("size", [(32, 32), (37, 37), (100, 61), (20, 45), (37, 80)])
def test_a_ppm_is_resized_as_for_calibration(
    bundle: Path, compiled: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path = tmp_path / "x.ppm"
    Image.fromarray(pixels).save(path)
    model = open_compiled(compiled)
    wanted = model.reference()(load_picture(path, model.preprocessing)[None])
    assert np.array_equal(codes_of(bundle, path), wanted)


def test_infer_prints_the_best_classes(
    bundle: Path, digits_pixels: UInt8Array, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", digits_pixels[0])
    code, out, _ = run(bundle, "infer", str(tmp_path / "x.npy"), "--top", "3")
    lines = out.splitlines()
    assert code == 0 and lines[0] == str(tmp_path / "x.npy") and len(lines) == 4
    best = int(codes_of(bundle, tmp_path / "x.npy")[0].argmax())
    assert lines[1].split()[0] == lines[1].split()[-1] == str(best)  # class and label
    (tmp_path / "names.txt").write_text("".join(f"digit {i}\n" for i in range(10)))
    labels = ["--labels", str(tmp_path / "names.txt")]
    assert f"digit {best}" in run(bundle, "infer", str(tmp_path / "x.npy"), *labels)[1]


def test_infer_answers_as_run_does(bundle: Path, compiled: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    place = tmp_path / "in"
    for name in ("b/2.PNG", "a/1.jpg", "a/0.ppm", ".hidden/3.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 33, 3), np.uint8)).save(place / name)
    (place / "a" / "notes.txt").touch()
    np.save(tmp_path / "x.npy", random.integers(0, 256, (2, 3, 32, 32), np.uint8))
    (tmp_path / "names.txt").write_text("".join(f'"{n}" \\ \u00e9\n' for n in range(10)))
    sources, names = [place, tmp_path / "x.npy"], tmp_path / "names.txt"
    arguments = ["--labels", str(names), "--top", "3", "--json"]
    code, out, error = run(bundle, "infer", *map(str, sources), *arguments)
    assert (code, error) == (0, "")
    answers = [answer.to_json() for answer in classify(compiled, sources, 3, names)]
    found = json.loads(out)["answers"]
    assert [a["picture"] for a in found] == [a["picture"] for a in answers]
    for ours, theirs in zip(found, answers, strict=True):
        for one, other in zip(ours["classes"], theirs["classes"], strict=True):
            assert (one["class"], one["name"]) == (other["class"], other["name"])
            assert one["logit"] == pytest.approx(other["logit"], rel=1e-6)
            assert one["probability"] == pytest.approx(other["probability"], rel=1e-5)


def test_infer_refuses_folders_that_say_two_things_or_nothing(bundle: Path, tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 40))
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed" / "a").mkdir(parents=True)
    picture.save(tmp_path / "mixed" / "x.png")
    picture.save(tmp_path / "mixed" / "a" / "x.png")
    for name, said in (("empty", "holds no pictures"), ("mixed", "beside folders of pictures")):
        code, out, error = run(bundle, "infer", str(tmp_path / name))
        assert (code, out) == (2, "") and said in error and is_one_line(error)


def test_bench_reports_percentiles_and_memory(bundle: Path) -> None:
    threads = 2 if bundle.name == "static" else 1  # TVM's spin at barriers: slow on one core
    code, out, _ = run(bundle, "bench", "--rounds", "7", "--threads", str(threads), "--json")
    found = json.loads(out)
    assert code == 0 and found["rounds"] == 7 and found["threads"] == threads
    assert found["min_ms"] <= found["median_ms"] <= found["p90_ms"] <= found["p99_ms"]
    assert found["peak_bytes"] > 1 << 20
    assert (found["planned_bytes"] > 0) == (bundle.name == "static")
    assert "p99" in run(bundle, "bench", "--rounds", "2")[1]
    assert f"{bundle.name} flavour" in run(bundle, "info")[1]


@pytest.mark.parametrize("name", ["model.so", "golden_pixels.npy", "golden_codes.npy", "README"])
def test_a_changed_file_is_refused(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    code, out, error = run(copy, "verify")
    assert code == 2 and out == "" and is_one_line(error) and name in error


def test_a_changed_manifest_is_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"zero_point": 0', '"zero_point": 1'))
    code, _, error = run(copy, "verify")
    assert code == 2 and is_one_line(error) and "manifest.json" in error
    path.unlink()
    code, _, error = run(copy, "verify")
    assert code == 2 and is_one_line(error) and "missing" in error


def test_another_integer_is_exit_code_1(copy: Path) -> None:
    codes = np.load(copy / "golden_codes.npy")
    codes[1, 3] += 1
    np.save(copy / "golden_codes.npy", codes)
    rewrite_manifest(copy, lambda content: None)
    code, _, error = run(copy, "verify")
    assert code == 1 and is_one_line(error)
    assert f"picture 1, class 3: {codes[1, 3] - 1} instead of {codes[1, 3]}" in error


def test_a_missing_cpu_feature_is_said_before_the_model_is_loaded(copy: Path) -> None:
    rewrite_manifest(copy, lambda content: content["cpu_needs"].append("asimddp"))
    (copy / "model.so").write_bytes(b"would crash")
    for command in ("verify", "bench"):
        code, _, error = run(copy, command)
        assert code == 3 and is_one_line(error) and "lacks asimddp" in error
    rewrite_manifest(copy, lambda content: content.update(architecture="riscv64"))
    code, _, error = run(copy, "verify")
    assert code == 3 and is_one_line(error) and "riscv64" in error


BROKEN_MANIFESTS = {
    "no JSON": "model",
    "cut off": '{"format": 1, "model": "x',
    "deep": "[" * 1000,
    "infinite": '{"format": 1e999}',
    "another format": '{"format": 2}',
    "a list": "[]",
    "no field": '{"format": 1, "model": "x"}',
    "wrong kind": '{"format": 1, "model": 3}',
    "more behind": '{"format": 1} {}',
}


@pytest.mark.parametrize("text", BROKEN_MANIFESTS.values(), ids=BROKEN_MANIFESTS.keys())
def test_a_broken_manifest_is_one_line(copy: Path, text: str) -> None:
    write_manifest(copy, text)
    code, _, error = run(copy, "verify")
    assert code == 2 and is_one_line(error)


@pytest.mark.parametrize("command", ["verify", "info", "--help", "infer", "bench --json"])
def test_lost_output_is_said(bundle: Path, command: str) -> None:
    words = [str(bundle / "vitq-run"), *command.split()]
    if command == "infer":
        words.append(str(bundle / "golden_pixels.npy"))
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 4 and is_one_line(done.stderr)
    assert "could not be written" in done.stderr
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *words]
    done = subprocess.run(closed, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 4 and is_one_line(done.stderr) and "closed" in done.stderr
    silent = ["sh", "-c", 'exec "$@" 2>&-', "sh", *words]
    assert subprocess.run(silent, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_the_static_library_is_lean(bundles: dict[str, Bundle]) -> None:
    made = bundles["static"]
    memory = made.manifest["memory"]
    assert memory["arena_bytes"] + memory["workspace_bytes"] < STATIC_BUDGET
    library = str(made.folder / "model.so")
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    assert "tvm" not in needed.stdout and "stdc++" not in needed.stdout
    symbols = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True)
    defined = {line.split()[-1] for line in symbols.stdout.splitlines() if " T " in line}
    assert defined == {f"vitq_{name}" for name in FUNCTIONS}


OWN_PROGRAM = Path(__file__).with_name("own_program.c")


def test_a_c_program_with_the_header(
    bundles: dict[str, Bundle], compiled: Path, tmp_path: Path
) -> None:
    folder = bundles["static"].folder
    program = tmp_path / "own"
    strict = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    command = ["gcc", *strict, f"-I{folder}", str(OWN_PROGRAM), str(folder / "model.so")]
    subprocess.run([*command, f"-Wl,-rpath,{folder}", "-lpthread", "-o", str(program)], check=True)
    np.load(folder / "golden_pixels.npy").tofile(tmp_path / "pixels")
    np.load(folder / "golden_codes.npy").astype("<i4").tofile(tmp_path / "codes")
    picture = np.random.default_rng(3).integers(0, 256, (53, 53, 3), np.uint8)
    picture.tofile(tmp_path / "picture")
    how = open_compiled(compiled).preprocessing
    fit_picture(Image.fromarray(picture), how).tofile(tmp_path / "ready")
    arguments = [str(program), *(str(tmp_path / name) for name in ("pixels", "codes", "picture"))]
    arguments += ["53", str(tmp_path / "ready")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all equal\n"), done.stderr


def test_the_sources_have_no_warnings(bundles: dict[str, Bundle]) -> None:
    options = ["-Wall", "-Wextra", "-Wshadow", "-Werror", "-O1", "-fsyntax-only"]
    for flavour in FLAVOURS:
        source = bundles[flavour].folder / "src"
        files = sorted(path.name for path in source.glob("*.cc"))
        assert ("vitq_serve.cc" in files) == (flavour == "vm")
        command = ["g++", "-std=c++17", "-Iinclude", *options, *files]
        subprocess.run(command, cwd=source, check=True)
    source = bundles["static"].folder / "src"
    for extra in ([], ["-DVITQ_NO_THREADS"]):
        command = ["gcc", "-std=gnu11", *options, *extra, "vitq_static.c"]
        subprocess.run(command, cwd=source, check=True)


def test_any_batch_size(artifact: Artifact, digits_pixels: UInt8Array, tmp_path: Path) -> None:
    folder = compile_model(artifact.folder, CompileOptions(batch=3))
    np.save(tmp_path / "x.npy", digits_pixels[:4])
    wanted = open_compiled(folder).reference()(digits_pixels[:4])
    made = deploy(folder, DeployOptions(out=tmp_path / "static", flavour="static"))
    assert np.array_equal(codes_of(made.folder, tmp_path / "x.npy"), wanted)


def test_jpeg_and_png(bundle: Path, compiled: Path, tmp_path: Path) -> None:
    grid = np.add.outer(np.arange(60), 2 * np.arange(80))
    picture = Image.fromarray(np.stack([grid, 200 - grid, grid // 2], axis=-1).astype(np.uint8))
    picture.save(tmp_path / "x.png")
    picture.save(tmp_path / "x.jpg", quality=95)
    (tmp_path / "x.JPG").write_bytes((tmp_path / "x.jpg").read_bytes())
    model = open_compiled(compiled)
    for name in ("x.png", "x.jpg", "x.JPG"):
        pixels = load_picture(tmp_path / name, model.preprocessing)
        assert np.array_equal(codes_of(bundle, tmp_path / name), model.reference()(pixels[None]))
    assert (bundle / "licenses" / "stb_image.LICENSE").is_file()
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:100])
    code, _, error = run(bundle, "infer", str(tmp_path / "cut.jpg"))
    assert code == 2 and is_one_line(error) and "cannot be read" in error


def test_a_model_of_one_channel(tmp_path: Path) -> None:
    """Its kernels allocate exactly the bytes from which on TVM leaves the stack."""
    torch.manual_seed(0)
    module = import_timm().create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=48, depth=1, num_heads=3, in_chans=1,
        num_classes=4,
    )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (8, 1, 32, 32), np.uint8)
    model = vitq.quantize(module, pixels, mean=[0.5], std=[0.5], method="minmax")
    made = vitq.deploy(vitq.compile(model), tmp_path / "bundle", flavour="static")
    assert made.measured.verified == "here"
