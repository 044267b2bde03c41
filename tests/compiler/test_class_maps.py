"""Maps of classes: `--output argmax` through quantizer, library and evaluate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vitq
from vitq.numerics.errors import VitqError
from vitq.quantization.graph import artifact as storage
from vitq.quantization.graph.class_maps import class_map
from vitq.quantization.run.reference import IntegerReference

CLASSES, SIDE, PATCH = 7, 16, 4
HOW: dict[str, Any] = {
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "image_size": SIDE,
    "preprocessing": {"resize": "none"},
}


class Segmenter(nn.Module):
    """Patches, one layer, pixels: (B, classes, 16, 16), and a score of the whole."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, PATCH, PATCH)
        self.norm, self.classes = nn.LayerNorm(16), classes
        self.pixels = nn.Linear(16, PATCH * PATCH * classes)
        self.whole = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, 3, 16, 16) -> a map, and logits."""
        b, side = x.shape[0], SIDE // PATCH
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        pixels = self.pixels(x).reshape(b, side, side, PATCH, PATCH, self.classes)
        maps = pixels.permute(0, 5, 1, 3, 2, 4).reshape(b, self.classes, SIDE, SIDE)
        return {"map": maps, "logits": self.whole(x.mean(1))}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 3, SIDE, SIDE), dtype=np.uint8)


def quantize(pixels: np.ndarray, **options: Any) -> vitq.Quantized:
    torch.manual_seed(0)
    return vitq.quantize(Segmenter(), pixels, **HOW, **options)


def test_the_library_returns_the_class_of_each_pixel(pixels: np.ndarray, tmp_path: Path) -> None:
    quantized = quantize(pixels, output="argmax")
    graph = storage.load(quantized.save(tmp_path / "saved")).graph
    graph.outputs = {"map": graph.nodes[graph.outputs["map"]].inputs[0]}
    maps = IntegerReference(graph)(pixels)
    assert maps.shape == (6, CLASSES, SIDE, SIDE)
    library = vitq.compile(quantized, batch=2)
    assert list(library.outputs) == ["map", "logits"] and library.classes == 3
    codes, scale, zero_point = library.run(pixels, raw=True)["map"]
    assert (codes.dtype, codes.shape, scale, zero_point) == (np.uint8, (6, SIDE, SIDE), 1, 0)
    np.testing.assert_array_equal(codes, maps.argmax(1))
    assert len(np.unique(codes)) == CLASSES, "or a wrong axis would not be noticed"
    assert sum(check.different for check in library.verify(pixels)) == 0
    rows = library.evaluate(pixels)
    assert [score.name for score in rows["library"].outputs] == ["map", "logits"]
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
