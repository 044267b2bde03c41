"""Maps of classes: `--output argmax` through quantizer, library, evaluate and runner."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vitq
from vitq.api.deploy import deploy
from vitq.numerics.errors import VitqError
from vitq.quantization.graph import artifact as storage
from vitq.quantization.graph.class_maps import class_map
from vitq.quantization.run.reference import IntegerReference

CLASSES, SIDE, PATCH = 7, 16, 4
NAMES = ["map", "logits", "scores", "boxes"]
HOW: dict[str, Any] = {
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "image_size": SIDE,
    "preprocessing": {"resize": "none"},
}


class Segmenter(nn.Module):
    """Patches, one layer, pixels: (B, classes, 16, 16), and all else that runners show."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, PATCH, PATCH)
        self.norm, self.classes = nn.LayerNorm(16), classes
        self.pixels = nn.Linear(16, PATCH * PATCH * classes)
        self.whole = nn.Linear(16, 3)
        self.scores, self.boxes = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, 3, 16, 16) -> a map, logits, scores and boxes of 16 queries."""
        b, side = x.shape[0], SIDE // PATCH
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        pixels = self.pixels(x).reshape(b, side, side, PATCH, PATCH, self.classes)
        maps = pixels.permute(0, 5, 1, 3, 2, 4).reshape(b, self.classes, SIDE, SIDE)
        return {
            "map": maps,
            "logits": self.whole(x.mean(1)),
            "scores": 4 * self.scores(x),
            "boxes": self.boxes(x).sigmoid(),
        }


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 3, SIDE, SIDE), dtype=np.uint8)


def quantize(pixels: np.ndarray, **options: Any) -> vitq.Quantized:
    torch.manual_seed(0)
    return vitq.quantize(Segmenter(), pixels, **HOW, **options)


@pytest.fixture(scope="module")
def quantized(pixels: np.ndarray) -> vitq.Quantized:
    return quantize(pixels, output="argmax")


@pytest.fixture(scope="module")
def library(quantized: vitq.Quantized) -> vitq.Library:
    return vitq.compile(quantized, batch=2)


def test_the_library_returns_the_class_of_each_pixel(
    pixels: np.ndarray, quantized: vitq.Quantized, library: vitq.Library, tmp_path: Path
) -> None:
    graph = storage.load(quantized.save(tmp_path / "saved")).graph
    graph.outputs = {"map": graph.nodes[graph.outputs["map"]].inputs[0]}
    maps = IntegerReference(graph)(pixels)
    assert maps.shape == (6, CLASSES, SIDE, SIDE)
    assert list(library.outputs) == NAMES and library.classes == 3
    codes, scale, zero_point = library.run(pixels, raw=True)["map"]
    assert (codes.dtype, codes.shape, scale, zero_point) == (np.uint8, (6, SIDE, SIDE), 1, 0)
    np.testing.assert_array_equal(codes, maps.argmax(1))
    assert len(np.unique(codes)) == CLASSES, "or a wrong axis would not be noticed"
    assert sum(check.different for check in library.verify(pixels)) == 0
    rows = library.evaluate(pixels)
    assert [score.name for score in rows["library"].outputs] == NAMES
    assert rows["library"].outputs[0].mean_cosine > 0.9


def test_what_is_no_map_is_refused(pixels: np.ndarray) -> None:
    how: dict[str, Any] = {**HOW, "output": "argmax"}
    rows = nn.Sequential(nn.Conv2d(3, 4, 16), nn.Flatten())
    with pytest.raises(VitqError, match=r"--output argmax is for maps of scores .* logits \(4,\)"):
        vitq.quantize(rows, pixels, **how)
    with pytest.raises(VitqError, match="map has 257 classes, and a uint8 says 256: leave"):
        vitq.quantize(Segmenter(257), pixels, **how)
    with pytest.raises(VitqError, match=r"output 'argmx' \(did you mean argmax\?\): choose codes"):
        quantize(pixels, output="argmx")


def test_a_float_map_gives_the_lowest_of_equal_classes() -> None:
    scores = np.zeros((1, 3, 1, 2), np.float32)
    scores[0, 1:, 0, 1] = 2
    np.testing.assert_array_equal(class_map(scores), [[[0, 1]]])
    assert class_map(scores[0]) is not None and class_map(scores[0]).shape == (3, 1, 2)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of boxes with corners."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = np.prod(np.clip(high - low, 0, None))
    return float(both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both))


def decoded(scores: np.ndarray, boxes: np.ndarray, least: float) -> list[tuple[int, np.ndarray]]:
    """What `vitq-run detect` says, written again."""
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    labels, best = shares[:, :-1].argmax(1), shares[:, :-1].max(1)
    kept: list[tuple[int, np.ndarray]] = []
    for q in np.argsort(-best, kind="stable"):
        box = np.clip(corners[q], 0, 1)
        if best[q] >= least and all(c != labels[q] or iou(box, b) <= 0.5 for c, b in kept):
            kept.append((int(labels[q]), box))
    return kept


def test_the_runner_draws_what_the_library_says(
    pixels: np.ndarray, library: vitq.Library, tmp_path: Path
) -> None:
    bundle, picture = tmp_path / "bundle", tmp_path / "p.png"
    deploy(library, bundle, flavour="static")
    Image.fromarray(pixels[0].transpose(1, 2, 0)).save(picture)
    found = library(pixels[:1])

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(bundle / "vitq-run"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    overlay = tmp_path / "o.png"
    said = call("segment", str(picture), "--overlay", str(overlay), "--json")
    labels, counts = np.unique(found["map"][0].astype(int), return_counts=True)
    wanted = {str(k): int(n) for k, n in zip(labels, counts, strict=True)}
    assert json.loads(said.stdout) == {"classes": wanted}
    drawn = np.asarray(Image.open(overlay)).transpose(2, 0, 1)
    np.testing.assert_array_equal((drawn != pixels[0]).any(0), found["map"][0] != 0)

    boxes = json.loads(call("detect", str(picture), "--score", "0.3", "--json").stdout)["boxes"]
    right = decoded(found["scores"][0], found["boxes"][0], 0.3)
    assert [box["class"] for box in boxes] == [label for label, _ in right] and right
    for box, (_, corners) in zip(boxes, right, strict=True):
        np.testing.assert_allclose(box["box"], SIDE * corners, rtol=0, atol=0.011)
    assert "least" in call("depth", str(picture), "--json").stdout
    assert (
        call("segment", str(picture), "--overlay", str(tmp_path / "no" / "o.png")).returncode == 4
    )
    assert "segment needs a picture" in call("segment").stderr
    assert "--score 2: give a number from 0 to 1" in call("detect", "x", "--score", "2").stderr
    assert "--overlay is for segment" in call("infer", "x", "--overlay", "y").stderr
