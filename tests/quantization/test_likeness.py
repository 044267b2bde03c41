"""Near duplicates, by thumbnails."""

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitq.models.digits_vit.data import calibration_images, load_digits_split
from vitq.numerics.arrays import UInt8Array
from vitq.quantization.pictures.likeness import SIDE, different_pictures, thumbnails


def smooth(seed: int, size: int = 64) -> UInt8Array:
    """A picture of large shapes (3, size, size)."""
    small = np.random.RandomState(seed).randint(0, 256, (5, 5, 3)).astype(np.uint8)
    large = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(large).transpose(2, 0, 1)


def jpeg(picture: UInt8Array, quality: int) -> UInt8Array:
    buffer = io.BytesIO()
    Image.fromarray(picture.transpose(1, 2, 0)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).transpose(2, 0, 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_one_picture_in_several_forms_is_one(seed: int) -> None:
    picture = smooth(seed)
    noise = np.random.RandomState(seed).randint(-10, 11, picture.shape)
    forms = [
        picture,
        jpeg(picture, 30),
        np.clip(picture + noise, 0, 255),
        picture[:, :, ::-1],
        picture * 0.6 + 20,
    ]
    assert different_pictures(np.stack([form.astype(np.uint8) for form in forms])) == 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_copies_do_not_count(seeds: list[int]) -> None:
    found = different_pictures(np.stack([smooth(seed) for seed in seeds]))
    assert found == different_pictures(np.stack([smooth(s) for s in dict.fromkeys(seeds)]))
    assert found <= len(set(seeds))


def test_digits() -> None:
    train = load_digits_split().train
    assert different_pictures(calibration_images(32)) == 28
    assert different_pictures(train.images[train.labels == 0][:32]) == 9


def test_even_and_tiny_pictures() -> None:
    assert different_pictures(np.zeros((4, 1, 16, 16), np.uint8)) == 1
    levels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 1, 16, 16), np.uint8)
    assert different_pictures(levels) == 1
    assert different_pictures(np.zeros((2, 3, 1, 5), np.uint8)) == 1


def test_thumbnails_are_standardized() -> None:
    found = thumbnails(np.stack([smooth(1), smooth(2)]))
    assert found.shape == (2, SIDE * SIDE)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
