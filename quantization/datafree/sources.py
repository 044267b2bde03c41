"""The sources of calibration pictures that need no data, by the name that the user gives."""

from vitq.numerics.arrays import UInt8Array
from vitq.quantization.datafree.descent import Normalization
from vitq.quantization.datafree.psaq import gaussian_noise, psaq_pictures
from vitq.quantization.datafree.psaq2 import psaq2_pictures
from vitq.quantization.datafree.request import Request, Track
from vitq.quantization.graph.graph import Graph
from vitq.quantization.plan.methods import Method
from vitq.quantization.plan.recipe import Recipe

SOURCES = {
    "psaq": "PSAQ-ViT (arXiv:2203.02250): patch similarity of the float model",
    "psaq2": "PSAQ-ViT V2 (arXiv:2209.05687): also where the quantized model differs from it",
    "noise": "Gaussian noise, the control: what calibration without any method gives",
}


def generate(
    name: str, request: Request, graph: Graph, recipe: Recipe, method: Method, track: Track
) -> UInt8Array:
    """Make calibration pictures from the float model alone.

    Args:
        name: one of `SOURCES`.
        request: how many, seed, steps, normalization, device.
        graph: float, as traced; not edited.
        recipe: of the model to be quantized; only ``psaq2`` looks at it.
        method: likewise.
        track: wraps the steps with a progress bar.

    Returns:
        (N, C, H, W) uint8.
    """
    if name == "psaq":
        return psaq_pictures(request, graph, track)
    if name == "psaq2":
        return psaq2_pictures(request, graph, recipe, method, track)
    return Normalization.of(request).pixels(gaussian_noise(request, graph))
