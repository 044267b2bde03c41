"""Stage ``run``: raw pixels in, logits out."""

import logging
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitq.compiler.codegen.compiled import Backend, Compiled, open_compiled
from vitq.numerics.arrays import FloatArray, IntArray, UInt8Array
from vitq.numerics.files import write_atomically
from vitq.quantization.graph.pictures import check_pixels

logger = logging.getLogger(__name__)


class Integers(NamedTuple):
    """Integer logits, and what they mean: ``logits = (codes - zero_point) * scale``.

    Attributes:
        codes: (N, classes), of the dtype that the library returns.
        scale: real value of one step.
        zero_point: code of real 0.
    """

    codes: IntArray
    scale: float
    zero_point: int


def infer(
    compiled: Compiled,
    backend: Callable[[UInt8Array], IntArray],
    pixels: UInt8Array,
    source: str = "the array",
) -> Integers:
    """Run pictures through a compiled model, without a file.

    Args:
        compiled: the model.
        backend: of `compiler.codegen.compiled.Compiled.backend`.
        pixels: (N, C, H, W) uint8, any N >= 1.
        source: what the pixels are called in a message.

    Returns:
        The integers.

    Raises:
        VitqError: wrong shape or dtype.
    """
    channels, height, width = compiled.input_shape[1:]
    codes = backend(check_pixels(pixels, (channels, height, width), source))
    output = compiled.metadata["outputs"][0]
    return Integers(codes.astype(output["dtype"]), float(output["scale"]), output["zero_point"])


def run(
    folder: Path,
    input_path: Path,
    output_path: Path,
    raw: bool = False,
    backend: Backend = "library",
    threads: int | None = None,
) -> tuple[int, ...]:
    """Run the stage.

    Args:
        folder: the target's folder.
        input_path: ``.npy``, (N, C, H, W) uint8, any N.
        output_path: ``.npy``; (N, classes) float32 logits, or the integer codes.
        raw: write the integers.
        backend: ``library`` or ``reference``.
        threads: of the library.

    Returns:
        The output's shape.

    Raises:
        VitqError: wrong shape or dtype, or nothing compiled.
    """
    from vitq.quantization.graph.pictures import read_pixels

    compiled = open_compiled(folder)
    channels, height, width = compiled.input_shape[1:]
    pixels = read_pixels(input_path, (channels, height, width))
    codes = infer(compiled, compiled.backend(backend, threads), pixels, str(input_path)).codes
    result: FloatArray | IntArray = codes if raw else compiled.logits(codes)
    buffer = BytesIO()
    np.save(buffer, result, allow_pickle=False)
    write_atomically(output_path, buffer.getvalue())
    logger.info("run: %s, %s %s", output_path, "x".join(map(str, result.shape)), result.dtype)
    return result.shape
