"""A convolutional network, whole on this machine and kernel by kernel on all targets.

A segmenter's head has what hybrids and dense prediction are made of: a first convolution of several
groups, depthwise and strided ones, norms of groups, linear attention, means of unequal windows,
bilinear and bicubic resizing, branches of three scales put together, pixels shuffled.
"""

from pathlib import Path

import numpy as np
import pytest

import vitq
from tests.compiler.each_target import assert_kernels_exact
from tests.quantization import convnets
from tests.quantization.test_convolutions import MEAN, STD
from vitq.compiler.codegen.importing import ImportedModel, Meaning, import_model
from vitq.numerics.arrays import UInt8Array

TARGETS = ("x86-avx2", "rpi5", "rpi4", "cuda")
SIZE = 20


@pytest.fixture(scope="module")
def pixels() -> UInt8Array:
    return np.random.default_rng(4).integers(0, 256, (3, 3, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture(scope="module")
def quantized(pixels: UInt8Array) -> vitq.Quantized:
    return vitq.quantize(
        convnets.pyramid(), pixels, method="minmax", image_size=SIZE, mean=MEAN, std=STD
    )


@pytest.fixture(scope="module")
def imported(quantized: vitq.Quantized) -> ImportedModel:
    folder = Path(quantized.folder)
    return import_model(folder / "model.onnx", Meaning(1, MEAN, STD, None))


def test_the_library_computes_the_integers(quantized: vitq.Quantized, pixels: UInt8Array) -> None:
    library = vitq.compile(quantized, batch=2)
    assert [check.different for check in library.verify(pixels)] == [0] * 6
    found = library(pixels)
    assert np.isfinite(found).all() and found.std() > 0


@pytest.mark.parametrize("name", TARGETS)
def test_kernels_of_every_target(imported: ImportedModel, name: str) -> None:
    assert_kernels_exact(imported, name, least=15)
