"""scikit-learn's handwritten digits as 32 x 32 images, with a fixed held-out split.

The 1797 scans ship inside scikit-learn (UCI optdigits, 8 x 8 pixels of 0..16), so nothing is
downloaded. Everything here is exact integer arithmetic or a frozen random stream: the same bytes
come out on every machine.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vitq.models.digits_vit import IMAGE_SIZE, MEAN, NUM_CLASSES, STD

SPLIT_SEED = 0
TEST_PER_CLASS = 36  # 360 of 1797 images, a fifth, with every class equally often
SOURCE_SIZE = 8
SOURCE_MAX = 16

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]


class LabelledImages(NamedTuple):
    """Images (N, 3, H, W) uint8 and their labels (N,) int64."""

    images: UInt8Array
    labels: Int64Array


class DigitsSplit(NamedTuple):
    """The two disjoint parts of the data set."""

    train: LabelledImages
    test: LabelledImages


def split_indices(labels: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the shuffled (train, test) indices of the fixed stratified split."""
    # RandomState and not default_rng: NumPy guarantees that its stream never changes.
    rng = np.random.RandomState(SPLIT_SEED)
    by_class = [rng.permutation(np.flatnonzero(labels == c)) for c in range(NUM_CLASSES)]
    test = np.concatenate([indices[:TEST_PER_CLASS] for indices in by_class])
    train = np.concatenate([indices[TEST_PER_CLASS:] for indices in by_class])
    return rng.permutation(train), rng.permutation(test)


def bilinear_weights(size: int, source: int = SOURCE_SIZE) -> Int64Array:
    """Return the (size, source) interpolation matrix, times 2 * size."""
    # Half-pixel centres, edges clamped. Output i reads source (i + 0.5) * source / size - 0.5;
    # times 2 * size that position is an integer, so the weights are exact.
    unit = 2 * size
    position = (2 * np.arange(size) + 1) * source - size
    position = np.clip(position, 0, (source - 1) * unit)
    distance = np.abs(position[:, None] - unit * np.arange(source)[None, :])
    return np.maximum(unit - distance, 0).astype(np.int64)


def upscale(scans: npt.NDArray[np.integer], size: int = IMAGE_SIZE) -> UInt8Array:
    """Turn scans (N, 8, 8) of 0..16 into gray images (N, 3, size, size) of 0..255.

    Bilinear in integers, rounded half up once at the end.
    """
    weights = bilinear_weights(size)
    acc = weights @ scans.astype(np.int64) @ weights.T
    divisor = (2 * size) ** 2 * SOURCE_MAX
    gray = (2 * 255 * acc + divisor) // (2 * divisor)
    return np.repeat(gray.astype(np.uint8)[:, None], 3, axis=1)


@cache
def load_scans() -> LabelledImages:
    """Return all 1797 scans (N, 8, 8) of 0..16 in scikit-learn's order, with their labels."""
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    # The file holds whole numbers that scikit-learn hands out as float64.
    whole = scans.reshape(-1, SOURCE_SIZE, SOURCE_SIZE).astype(np.uint8)
    return LabelledImages(whole, labels.astype(np.int64))


@cache
def load_digits_split() -> DigitsSplit:
    """Return the train (1437) and test (360) images with their labels, in seeded order.

    The arrays are shared between callers and therefore read-only.
    """
    scans, labels = load_scans()
    images = upscale(scans)
    parts = [LabelledImages(images[i], labels[i]) for i in split_indices(labels)]
    for part in parts:
        part.images.setflags(write=False)
        part.labels.setflags(write=False)
    return DigitsSplit(*parts)


def _first(part: LabelledImages, n: int, name: str) -> LabelledImages:
    """Return the first n images of a part, or say how many there are."""
    available = len(part.labels)
    if not 1 <= n <= available:
        raise ValueError(f"cannot take {n} {name} images: choose 1 to {available}")
    return LabelledImages(part.images[:n], part.labels[:n])


def calibration_images(n: int = 128) -> UInt8Array:
    """Return the first n training images (n, 3, H, W); no test image is ever among them."""
    return _first(load_digits_split().train, n, "calibration").images


def eval_images(n: int | None = None) -> LabelledImages:
    """Return the first n held-out images with labels, or all 360 when n is None."""
    test = load_digits_split().test
    return test if n is None else _first(test, n, "eval")


def normalize(images: UInt8Array) -> Float32Array:
    """Map uint8 images (N, 3, H, W) to the float32 pixels that the model takes."""
    mean = np.asarray(MEAN, dtype=np.float32)[:, None, None]
    std = np.asarray(STD, dtype=np.float32)[:, None, None]
    return (images.astype(np.float32) / np.float32(255) - mean) / std
