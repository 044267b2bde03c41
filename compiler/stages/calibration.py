"""Calibration pictures of a quantization: read from where they lie, or made without data and kept.

    artifacts/<model>/calibration/<source>-<hash>.npy   uint8 (N, C, H, W)
                                  <source>-<hash>.json  what they were made from

The hash is that of the model's weights and of all that decides the pictures, so that they are made
once and never mistaken for those of another model.
"""

import functools
import logging
import time
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitq.compiler.support.artifacts import (
    file_hash,
    fingerprint,
    is_current,
    source_hash,
    versions,
    whole_or_nothing,
    write_json,
)
from vitq.compiler.support.embedded import GENERATED
from vitq.compiler.support.progress import progress_bar
from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError
from vitq.numerics.files import write_atomically
from vitq.quantization.pictures.given import GivenPictures

if TYPE_CHECKING:
    from vitq.compiler.stages.quantize_options import QuantizeOptions
    from vitq.quantization.graph.graph import Graph
    from vitq.quantization.pictures.decoding import Pictures
    from vitq.quantization.pictures.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

PACKAGES = ("quantization/datafree",)
STUDENT_PACKAGES = ("numerics", "quantization")
SHEET_NAME = "contact-sheet.png"
SHEET_COLUMNS = 8
SHEET_TILE, SMALLEST_TILE = 224, 96
"""Sides of a picture on the sheet; smaller ones are enlarged a whole number of times."""
SHEET_GAP = 2


def calibration_pictures(
    options: "QuantizeOptions", graph: "Graph", prep: "Preprocessing"
) -> "Pictures":
    """Return the pictures that the options name.

    Args:
        options: source, number, seed, steps, recipe and method.
        graph: the float model, as traced; not edited.
        prep: what its input means.

    Returns:
        The pictures.

    Raises:
        VitqError: if the source is missing, unreadable, or cannot be made from this model.
    """
    from vitq.quantization.pictures.decoding import Pictures
    from vitq.quantization.pictures.pictures import load_pictures

    source = options.calibration_source
    if isinstance(source, GivenPictures) or source not in GENERATED:
        return load_pictures(source, prep, options.calib_count, "calibration", options.calib_seed)
    described = f"{source}, seed {options.calib_seed}"
    return Pictures(_made(source, options, graph, prep), None, described)


def _made(
    source: str, options: "QuantizeOptions", graph: "Graph", prep: "Preprocessing"
) -> UInt8Array:
    """Pictures from the store, made first if they are not there."""
    from vitq.quantization.graph.identity import graph_hash
    from vitq.quantization.pictures.raw_pixels import read_pixels

    made_from: dict[str, Any] = {
        "source": source,
        "count": options.calib_count,
        "seed": options.calib_seed,
        "steps": options.calib_steps,
        "mean": list(prep.mean),
        "std": list(prep.std),
        "model": graph_hash(graph),
        "code": source_hash(PACKAGES),
        "student": _student(options) if source == "psaq2" else None,
        "versions": versions(("torch", "numpy")),
    }
    wanted = fingerprint(made_from)
    folder = options.artifact.folder.parent / "calibration"
    array, facts = (folder / f"{source}-{wanted[:16]}.{kind}" for kind in ("npy", "json"))
    if is_current(facts, wanted, array):
        logger.info("calibration: unchanged, %s is up to date", array)
        return read_pixels(array, prep.input_shape)
    started = time.perf_counter()
    pixels = _generate(source, options, graph, prep)
    buffer = BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    with whole_or_nothing(facts, array):
        write_atomically(array, buffer.getvalue())
        write_json(facts, {"fingerprint": wanted, "sha256": file_hash(array), **made_from})
    logger.info("calibration: %s (%.1f s)", array, time.perf_counter() - started)
    return pixels


def _student(options: "QuantizeOptions") -> dict[str, Any]:
    """Return what decides the quantized model that psaq2 looks at, beside the pictures."""
    return {
        "recipe": options.recipe.to_json(),
        "method": asdict(options.method),
        "code": source_hash(STUDENT_PACKAGES),
    }


def _generate(
    source: str, options: "QuantizeOptions", graph: "Graph", prep: "Preprocessing"
) -> UInt8Array:
    from vitq.quantization.datafree.request import Request, best_device
    from vitq.quantization.datafree.sources import generate

    device = best_device()
    logger.debug("calibration: %s on %s", source, device)
    request = Request(
        options.calib_count, options.calib_seed, options.calib_steps, prep.mean, prep.std, device
    )
    track = functools.partial(progress_bar, unit="step")
    return generate(source, request, graph, options.recipe, options.method, track)


def save_images(pixels: UInt8Array, folder: Path) -> None:
    """Write pictures as PNG files, and all of them on one contact sheet.

    Args:
        pixels: (N, 3, H, W) uint8.
        folder: made if it is not there.

    Raises:
        VitqError: if the pictures have no three channels.
        OSError: of a file that cannot be written; none of them stays then.
    """
    from PIL import Image

    if pixels.shape[1] != 3:
        raise VitqError(f"pictures of {pixels.shape[1]} channels cannot be saved as PNG")
    images = [Image.fromarray(np.ascontiguousarray(p.transpose(1, 2, 0))) for p in pixels]
    places = [folder / f"{index:04d}.png" for index in range(len(images))]
    with whole_or_nothing(folder / SHEET_NAME, *places):
        for image, place in zip(images, places, strict=True):
            _write_png(image, place)
        _write_png(_contact_sheet(images), folder / SHEET_NAME)
    logger.info("calibration: %d pictures and %s in %s", len(images), SHEET_NAME, folder)


def _contact_sheet(images: list[Any]) -> Any:
    """Paste pictures of one size on one, large enough to see each."""
    from PIL import Image

    times = -(-SMALLEST_TILE // max(images[0].size))
    width, height = (min(side * times, SHEET_TILE) for side in images[0].size)
    resample = Image.Resampling.NEAREST if times > 1 else Image.Resampling.BICUBIC
    columns = min(SHEET_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    step_x, step_y = width + SHEET_GAP, height + SHEET_GAP
    sheet = Image.new("RGB", (columns * step_x - SHEET_GAP, rows * step_y - SHEET_GAP), "white")
    for index, image in enumerate(images):
        place = (index % columns * step_x, index // columns * step_y)
        sheet.paste(image.resize((width, height), resample), place)
    return sheet


def _write_png(image: Any, path: Path) -> None:
    buffer = BytesIO()
    image.save(buffer, format="png")
    write_atomically(path, buffer.getvalue())
