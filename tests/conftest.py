"""Fixtures for the tests of several stages: the embedded model, quantized once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vitq.models.digits_vit import MEAN, STD
from vitq.models.digits_vit.data import calibration_images, eval_images
from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.quantization.graph.graph import Graph
from vitq.quantization.graph.tracing import trace
from vitq.quantization.model.models import load_model
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# Results do not depend on it, and small tensors are faster on one thread.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits_model() -> torch.nn.Module:
    """The embedded model, trained."""
    return load_model("digits_vit").module


@pytest.fixture(scope="session")
def digits_pixels() -> UInt8Array:
    """Held-out digits (32, 3, 32, 32)."""
    return np.array(eval_images(32).images)


@pytest.fixture(scope="session")
def digits_logits(digits_model: torch.nn.Module, digits_pixels: UInt8Array) -> FloatArray:
    """What the float model says of `digits_pixels`."""
    x = torch.from_numpy(digits_pixels).float() / 255
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    with torch.inference_mode():
        logits: FloatArray = digits_model((x - mean) / std).numpy()
    return logits


@pytest.fixture(scope="session")
def quantize_digits(digits_model: torch.nn.Module) -> Callable[..., Graph]:
    """The embedded model, quantized at a recipe with a method."""

    def run(recipe: str = "w8a8", method: str = "repq", nonlinear: str = "vitq") -> Graph:
        pixels = torch.from_numpy(np.array(calibration_images(32)))
        widths = Recipe.parse(recipe, nonlinear)  # type: ignore[arg-type]
        graph = trace(digits_model, (3, 32, 32))
        return quantize_graph(graph, pixels, widths, get_method(method), MEAN, STD)

    return run


@pytest.fixture(scope="session")
def digits_graph(quantize_digits: Callable[..., Graph]) -> Graph:
    """The embedded model at w8a8 with repq; tests must not edit it."""
    return quantize_digits()


@pytest.fixture
def real_data() -> Path:
    """Real weights and pictures, on machines that have them."""
    if not REAL_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout: real DeiT-Tiny weights and pictures")
    return REAL_DATA
