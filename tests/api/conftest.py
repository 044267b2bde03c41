"""The embedded model, through the public API once."""

import numpy as np
import pytest

import vitq
from vitq.models.digits_vit.data import calibration_images, eval_images
from vitq.numerics.arrays import IntArray, UInt8Array


@pytest.fixture(scope="session")
def quantized() -> vitq.Quantized:
    """By its name, with its own calibration pictures."""
    return vitq.quantize("digits_vit")


@pytest.fixture(scope="session")
def library(quantized: vitq.Quantized) -> vitq.Library:
    """For this machine, four pictures at a time."""
    return vitq.compile(quantized, batch=4)


@pytest.fixture(scope="session")
def calibration() -> UInt8Array:
    """What the embedded model is calibrated on: (32, 3, 32, 32)."""
    return np.array(calibration_images(32))


@pytest.fixture(scope="session")
def digits() -> tuple[UInt8Array, IntArray]:
    """Held-out pictures (360, 3, 32, 32) and their classes."""
    pixels, labels = eval_images()
    return np.array(pixels), np.array(labels)
