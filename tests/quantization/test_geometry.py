"""Pictures become exactly the pixels that timm's and torchvision's own transforms make."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitq.models.timm_compat import import_timm
from vitq.numerics.arrays import UInt8Array
from vitq.quantization.pictures.described import Described, resolve
from vitq.quantization.pictures.pixels import fit_picture
from vitq.quantization.pictures.preprocessing import Interpolation
from vitq.quantization.pictures.processors import described

SIZES = ((64, 64), (65, 47), (47, 65), (31, 33), (200, 51), (51, 200), (7, 90), (1, 1), (129, 128))
"""(width, height): odd, tall, wide, smaller than the input, one pixel."""
FILTERS = tuple(Interpolation)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(size: tuple[int, int], seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A picture with every frequency."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    return Image.fromarray(pixels[..., :3]).convert(mode)


def as_pixels(transformed: Any) -> UInt8Array:
    """uint8 (C, H, W) of what a transform without normalization returns."""
    pixels = np.asarray(transformed)
    assert pixels.dtype == np.uint8
    return pixels


def timm_transform(config: dict[str, Any]) -> Any:
    """timm's own, without its normalization."""
    import_timm()
    from timm.data import create_transform, resolve_data_config

    resolved = resolve_data_config({}, pretrained_cfg=config)
    return create_transform(**resolved, is_training=False, normalize=False)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("shape", [(48, 48), (33, 33), (32, 64), (64, 32), (45, 31)])
@pytest.mark.parametrize("fraction", [1.0, 0.95, 0.9, 0.875, 1.1])
def test_equal_to_timm(mode: str, shape: tuple[int, int], fraction: float) -> None:
    for index, size in enumerate(SIZES):
        filter_ = FILTERS[index % len(FILTERS)]
        config = {
            "input_size": (3, *shape),
            "mean": MEAN,
            "std": STD,
            "crop_pct": fraction,
            "crop_mode": mode,
            "interpolation": filter_,
        }
        picture = noise(size, index)
        found = fit_picture(picture, resolve(described(config, "config"), "model"))
        assert np.array_equal(found, as_pixels(timm_transform(config)(picture))), (size, filter_)


@pytest.mark.parametrize("filter_", FILTERS)
def test_every_filter_is_equal_to_timms(filter_: Interpolation) -> None:
    config = {"input_size": (3, 48, 48), "mean": MEAN, "std": STD, "interpolation": filter_}
    prep = resolve(described(config, "config"), "model")
    for size in SIZES:
        picture = noise(size)
        found = fit_picture(picture, prep)
        assert np.array_equal(found, as_pixels(timm_transform(config)(picture))), size
    assert not np.array_equal(
        fit_picture(noise((90, 70)), prep),
        fit_picture(noise((90, 70)), resolve(Described(interpolation=other(filter_)).over(
            described(config, "config")), "model")),
    )  # fmt: skip


def other(filter_: Interpolation) -> Interpolation:
    """Another one."""
    return FILTERS[(FILTERS.index(filter_) + 1) % len(FILTERS)]


def test_equal_to_torchvisions_weights() -> None:
    import_timm()
    import torchvision.transforms.functional as functional
    from torchvision.models import ViT_B_16_Weights, ViT_H_14_Weights

    for entry in (*ViT_B_16_Weights, *ViT_H_14_Weights):
        preset = entry.transforms()
        for given in (entry, preset):
            prep = resolve(described(given, str(entry)), "model")
            assert prep.assumed == ()
        for size in ((640, 480), (301, 999), (224, 224)):
            picture = noise(size)
            resized = functional.resize(picture, preset.resize_size, preset.interpolation)
            wanted = functional.pil_to_tensor(functional.center_crop(resized, preset.crop_size))
            assert np.array_equal(fit_picture(picture, prep), as_pixels(wanted)), (entry, size)


@pytest.mark.parametrize("size", [(40, 60), 50])
@pytest.mark.parametrize("crop", [(32, 48), 64])
def test_equal_to_a_chain_of_transforms(size: Any, crop: Any) -> None:
    import_timm()
    from torchvision import transforms as t

    chain = [t.Resize(size, t.InterpolationMode.BICUBIC), t.CenterCrop(crop)]
    whole = t.Compose([*chain, t.ToTensor(), t.Normalize(MEAN, STD)])
    prep = resolve(described(whole, "transform"), "model")
    assert prep.mean == pytest.approx(MEAN) and prep.std == pytest.approx(STD)
    for index, dims in enumerate(SIZES):
        picture = noise(dims, index)
        wanted = as_pixels(t.Compose([*chain, t.PILToTensor()])(picture))
        assert np.array_equal(fit_picture(picture, prep), wanted), dims


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 128), (128, 64), (60, 45)])
def test_a_picture_of_the_models_own_aspect_is_scaled_not_cut(height: int, width: int) -> None:
    """All but the crop fraction of it is seen, in both directions alike."""
    rows, columns = np.linspace(0, 255, 4 * height), np.linspace(0, 255, 4 * width)
    ramps = np.broadcast_arrays(columns[None], rows[:, None], 0.0)
    picture = Image.fromarray(np.stack(ramps, -1).astype(np.uint8))
    own = Described(size=(height, width), mean=MEAN, std=STD)
    for fraction in (1.0, 0.875):
        seen = fit_picture(picture, resolve(Described(crop_fraction=fraction).over(own), "model"))
        for channel in (0, 1):
            kept = float(np.ptp(seen[channel].astype(int))) / 255
            assert kept == pytest.approx(fraction, abs=0.03)
