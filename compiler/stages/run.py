"""Stage ``run``: raw pixels in, logits out; and the runner that verify and evaluate share."""

import logging
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitq.compiler.codegen.compiled import Backend, open_compiled
from vitq.numerics.files import write_atomically

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)


def run(
    folder: Path,
    input_path: Path,
    output_path: Path,
    raw: bool = False,
    backend: Backend = "library",
    threads: int | None = None,
) -> tuple[int, ...]:
    """Run pictures through a compiled model.

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
    codes = compiled.backend(backend, threads)(pixels)
    dtype = compiled.metadata["outputs"][0]["dtype"]
    result = codes.astype(dtype) if raw else compiled.logits(codes)
    buffer = BytesIO()
    np.save(buffer, result, allow_pickle=False)
    write_atomically(output_path, buffer.getvalue())
    logger.info("run: %s, %s %s", output_path, "x".join(map(str, result.shape)), result.dtype)
    return result.shape
