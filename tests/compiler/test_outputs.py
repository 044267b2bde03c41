"""Several results through the whole product: library, evaluate, run, and both flavours' bundles."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vitq
from tests.compiler.cuda.emulated_model import emulator, lower, run_model
from tests.quantization.test_outputs import NAMES, Backbone
from tests.quantization.vits import pixels
from vitq.api.deploy import deploy
from vitq.compiler.cli.explain_report import print_explanation
from vitq.compiler.cli.running import run as command
from vitq.compiler.codegen.importing import Meaning, import_model
from vitq.compiler.stages.output_scores import OutputSums
from vitq.compiler.stages.run import classify, run
from vitq.compiler.support.artifacts import open_artifact
from vitq.compiler.target.table import TARGETS
from vitq.numerics.errors import VitqError

HOW: dict[str, Any] = {
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "image_size": 32,
    "preprocessing": {"resize": "none"},
}


class Features(nn.Module):
    """An embedding and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Backbone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mean over the tokens, normalized: (B, 16)."""
        return self.body(x)["normed"][:, 0]


@pytest.fixture(scope="module")
def library() -> vitq.Library:
    torch.manual_seed(0)
    return vitq.compile(vitq.quantize(Backbone(), pixels(8).numpy(), **HOW), batch=2)


@pytest.fixture(scope="module")
def embedding() -> vitq.Library:
    torch.manual_seed(0)
    quantized = vitq.quantize(Features(), pixels(8).numpy(), recipe="w8a8-out8", **HOW)
    return vitq.compile(quantized)


def test_a_call_returns_every_result_by_name(library: vitq.Library) -> None:
    pictures = pixels(3).numpy()
    found, raw = library(pictures), library.run(pictures, raw=True)
    assert list(found) == list(raw) == list(library.outputs) == NAMES
    assert library.classes == 5 and "logits, normed" in repr(library)
    for name, (codes, scale, zero_point) in raw.items():
        assert codes.dtype == np.int16
        real = ((codes.astype(np.int64) - zero_point) * scale).astype(np.float32)
        np.testing.assert_array_equal(found[name], real)
    np.testing.assert_array_equal(found["patches"], found["normed"][:, 1:])
    assert sum(check.different for check in library.verify(pictures)) == 0
    assert len(library.classify(pictures)[0]) == 5


def test_a_gpus_kernels_return_every_result(library: vitq.Library) -> None:
    """The whole model with kernels for CUDA, thread by thread."""
    onnx = open_artifact(library.folder).onnx
    mod = import_model(onnx, Meaning(1, (0.5,) * 3, (0.25,) * 3, None)).integer.mod
    lowered = lower(mod, TARGETS["cuda"])
    golden = np.load(library.folder / "golden.npz")
    found = run_model(lowered, golden["pixels"][:1], emulator(lowered))
    np.testing.assert_array_equal(found, golden["codes"][:1])


def test_evaluate_has_a_line_for_each_result(library: vitq.Library) -> None:
    rows = library.evaluate(pixels(10).numpy(), [0, 1, 2, 3, 4] * 2)
    row = rows["library"]
    assert [score.name for score in row.outputs] == NAMES and row.top1 is not None
    assert all(score.mean_cosine > 0.99 > 0.9 < score.least_cosine for score in row.outputs)
    assert all(score.retrieval is None for score in row.outputs), "no embedding among them"
    assert row.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_an_embedding_has_no_first_choice(
    embedding: vitq.Library, caplog: pytest.LogCaptureFixture
) -> None:
    assert (embedding.outputs, embedding.classes) == (("features",), None)
    codes = embedding.run(pixels(2).numpy(), raw=True)
    assert codes.codes.dtype == np.int8 and codes.codes.shape == (2, 16)
    with caplog.at_level("INFO"):
        rows = embedding.evaluate(pixels(10).numpy(), [0] * 10)
    assert "the labels are left out: the model returns features, and no logits" in caplog.text
    for row in rows.values():
        assert row.top1 is None and row.agreement is None and row.mean_cosine is not None
        (score,) = row.outputs
        assert score.retrieval is not None and score.retrieval >= 0.7
    with pytest.raises(VitqError, match="the model ranks no classes: it returns features: call"):
        embedding.classify(pixels(1).numpy())


def test_explain_judges_features_by_their_angle(
    embedding: vitq.Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "features.html"
    found = embedding.explain(pixels(6).numpy(), removals=2, html=page)
    assert found.agreement is None and not found.changed and found.float_top1 is None
    (score,) = found.outputs
    (row,) = (r for r in embedding.evaluate(pixels(6).numpy()).values() if r.name == "library")
    assert score.name == "features" and (score.mean_cosine, score.sqnr_db) == pytest.approx(
        (row.outputs[0].mean_cosine, row.outputs[0].sqnr_db), abs=1e-3
    )
    assert (
        {cost.regained for cost in found.layers}
        == {None}
        == {variant.agreement for variant in found.variants}
    )
    assert json.loads(json.dumps(found.to_json()))["outputs"][0]["name"] == "features"
    assert "mean cosine of features" in page.read_text() and "answers" not in found.findings[0]
    print_explanation(found)
    said = capsys.readouterr().out
    assert "of the results" in said and "same neighbour" in said and "answers as in" not in said


def test_retrieval_counts_pictures_with_the_same_neighbour() -> None:
    sums = OutputSums("features", keeps=True)
    exact = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    found = exact.copy()
    found[1] = [0.5, 0.5]
    sums.add(found[:2], exact[:2])
    sums.add(found[2:], exact[2:])
    score = sums.score(is_float=False)
    assert score.retrieval == 0.75 and 0.78 < score.least_cosine < 0.79 < score.mean_cosine


def test_run_writes_one_result_or_all(
    library: vitq.Library, embedding: vitq.Library, tmp_path: Path
) -> None:
    source, folder = tmp_path / "pictures.npy", library.folder
    np.save(source, pixels(3).numpy())
    assert run(folder, source, tmp_path / "all.npz") == (3, 5)
    run(folder, source, tmp_path / "one.npy", result="middle")
    found = library(pixels(3).numpy())
    stored = np.load(tmp_path / "all.npz")
    for name in NAMES:
        np.testing.assert_array_equal(stored[name], found[name])
    np.testing.assert_array_equal(np.load(tmp_path / "one.npy"), found["middle"])
    with pytest.raises(VitqError, match=r"returns logits, .*: give --output FILE.npz for all"):
        run(folder, source, tmp_path / "all.npy")
    with pytest.raises(VitqError, match=r"--result 'midle' \(did you mean middle\?\): the model"):
        run(folder, source, tmp_path / "one.npy", result="midle")
    with pytest.raises(VitqError, match=r"--raw writes integers: give --output FILE.npy"):
        command(folder, [source], raw=True)
    with pytest.raises(VitqError, match=r"--result chooses what is written: give --output"):
        command(folder, [source], result="middle")
    with pytest.raises(VitqError, match="ranks no classes: it returns features: write them"):
        list(classify(embedding.folder, [source]))
    with pytest.raises(VitqError, match=r"--labels .* names classes, and the model ranks none"):
        list(classify(embedding.folder, [source], labels=source))


@pytest.mark.parametrize("flavour", ["static", "vm"])
def test_a_bundle_writes_features(library: vitq.Library, flavour: str, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    deploy(library, bundle, flavour=flavour)
    pictures = pixels(3).numpy()
    np.save(tmp_path / "pictures.npy", pictures)
    wanted = library(pictures)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(bundle / "vitq-run"), "infer", str(tmp_path / "pictures.npy"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert call("--features", str(tmp_path / "f.npy")).returncode == 0
    for name in NAMES:
        np.testing.assert_array_equal(np.load(tmp_path / f"f.{name}.npy"), wanted[name])
    assert call("--features", str(tmp_path / "one.npy"), "--result", "middle").returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "one.npy"), wanted["middle"])
    assert "the model returns logits, normed" in call("--features", "x.npy", "--result", "y").stderr
    assert "--result needs --features" in call("--result", "y").stderr
    assert call("--features", str(tmp_path / "no" / "f.npy")).returncode == 4
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert [output["name"] for output in manifest["outputs"]] == NAMES
    assert (manifest["output"], manifest["logits"]) == (manifest["outputs"][0], "logits")
    if flavour == "static":
        code = (
            "import numpy, sys; from vitq_model import Model; model = Model();"
            "found = model.results(model(numpy.load(sys.argv[1])));"
            "numpy.savez(sys.argv[2], **found); print(model.verify())"
        )
        arguments = [str(tmp_path / "pictures.npy"), str(tmp_path / "p.npz")]
        command = [sys.executable, "-c", code, *arguments]
        subprocess.run(command, cwd=bundle / "python", check=True, capture_output=True)
        for name, found in np.load(tmp_path / "p.npz").items():
            np.testing.assert_array_equal(found, wanted[name])
