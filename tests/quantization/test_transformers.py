"""Pixels equal those of transformers' own Pillow processors, where transformers is installed."""

import importlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitq.quantization.pictures.described import resolve
from vitq.quantization.pictures.pixels import fit_picture
from vitq.quantization.pictures.processors import described

pytest.importorskip("transformers", reason="pip install transformers: it is compared with")

SIZES = [(640, 480), (301, 499), (224, 224), (57, 33), (200, 50), (1, 1), (223, 225)]
SQUARE: dict[str, Any] = {"height": 97, "width": 151}
PROCESSORS: list[tuple[str, str, dict[str, Any]]] = [
    ("vit", "ViT", {}),
    ("vit", "ViT", {"resample": 1, "size": SQUARE}),
    ("vit", "ViT", {"resample": 0, "do_normalize": False}),
    ("vit", "ViT", {"do_rescale": False, "do_normalize": False}),
    ("deit", "DeiT", {}),
    ("deit", "DeiT", {"size": {"height": 70, "width": 75}, "crop_size": SQUARE}),
    ("clip", "CLIP", {}),
    ("bit", "Bit", {"size": {"shortest_edge": 100}, "crop_size": {"height": 131, "width": 90}}),
    ("convnext", "ConvNext", {}),
    ("convnext", "ConvNext", {"size": {"shortest_edge": 200}, "crop_pct": 0.95}),
    ("levit", "Levit", {}),
    ("beit", "Beit", {}),
    ("siglip", "Siglip", {}),
    ("mobilevit", "MobileViT", {}),
    ("poolformer", "PoolFormer", {}),
    ("efficientnet", "EfficientNet", {"rescale_offset": True, "rescale_factor": 1 / 127.5}),
]


def processor_of(module: str, name: str, options: dict[str, Any]) -> Any:
    """The processor that computes with Pillow, as transformers 4 and 5 call it."""
    for file, suffix in (("image_processing_pil_", "ImageProcessorPil"),
                         ("image_processing_", "ImageProcessor")):  # fmt: skip
        try:
            found = importlib.import_module(f"transformers.models.{module}.{file}{module}")
        except ImportError:
            continue
        return getattr(found, f"{name}{suffix}")(**options)
    pytest.skip(f"this version of transformers has no {name}")


@pytest.mark.parametrize(("module", "name", "options"), PROCESSORS)
def test_equal_to_transformers(module: str, name: str, options: dict[str, Any]) -> None:
    processor = processor_of(module, name, options)
    prep = resolve(described(processor, name), name)
    mean, std = (np.reshape(values, (-1, 1, 1)) for values in (prep.mean, prep.std))
    for seed, (width, height) in enumerate(SIZES):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        picture = Image.fromarray(pixels)
        wanted = np.asarray(processor(picture)["pixel_values"][0], np.float64)
        found = fit_picture(picture, prep)
        np.testing.assert_array_equal(np.rint((wanted * std + mean) * 255), found)
        np.testing.assert_allclose((found / 255 - mean) / std, wanted, rtol=0, atol=1e-5)
