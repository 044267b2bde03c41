"""Parity of the exported file with the PyTorch fake-quantized model.

Both compute quantize and dequantize around float operators, so they differ only where a float sum
falls on the other side of a rounding boundary; such a step of one code then travels on. The
figures are reported, and an argmax that disagrees in more than a few pictures is an error of the
export.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitq.numerics.arrays import FloatArray, UInt8Array
from vitq.numerics.errors import VitqError, reason
from vitq.quantization.graph.outputs import OutputLayout, join

MIN_COSINE = 0.98


@dataclass(frozen=True)
class Parity:
    """How close two sets of results are.

    Attributes:
        images: how many were compared.
        max_abs_difference: in real values.
        mean_cosine: of the logits; of several results that of the one that fits worst.
        argmax_agreement: fraction of pictures.
    """

    images: int
    max_abs_difference: float
    mean_cosine: float
    argmax_agreement: float

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


EXACT_PRODUCTS = "session.x64quantprecision"
"""Without it onnxruntime multiplies uint8 by int8 with saturating sums on x86 processors that have
AVX2 or AVX-512 and no VNNI: other results than the file's, and than on any other processor."""
SPINNING = "session.intra_op.allow_spinning"
"""Threads that wait for the next batch by spinning take as much time as the batches themselves."""


def cosine(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cosine of each pair of rows: (N, C), (N, C) -> (N,).

    Two rows of zeros are alike, 1: a head that was never trained gives nothing else.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    are_zero = ~(a.any(axis=1) | b.any(axis=1))
    similarity: FloatArray = (a * b).sum(axis=1) / np.maximum(norms, 1e-30) + are_zero
    return similarity


def compare(ours: FloatArray, theirs: FloatArray, layout: OutputLayout | None = None) -> Parity:
    """Compare logits (N, C) with logits (N, C).

    Args:
        ours: logits, or rows of results.
        theirs: likewise.
        layout: of the rows; None for one result.
    """
    pairs = [(ours, theirs)]
    if layout is not None:
        pairs = list(zip(*(layout.split(rows).values() for rows in (ours, theirs)), strict=True))
    flat = [(a.reshape(len(a), -1), b.reshape(len(b), -1)) for a, b in pairs]
    return Parity(
        images=len(ours),
        max_abs_difference=max(float(np.abs(a - b).max()) for a, b in flat),
        mean_cosine=min(float(cosine(a, b).mean()) for a, b in flat),
        argmax_agreement=min(float((a.argmax(1) == b.argmax(1)).mean()) for a, b in flat),
    )


def onnx_runner(path: Path) -> Callable[[UInt8Array], FloatArray]:
    """Open an exported file in onnxruntime, as a function of (N, C, H, W) uint8 pixels.

    Raises:
        VitqError: onnxruntime does not take the file; later, if the file does not take such pixels.
    """
    import onnxruntime  # deferred: the CLI must start fast

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(EXACT_PRODUCTS, "1")
    options.add_session_config_entry(SPINNING, "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
    except Exception as error:  # its own, of any kind
        raise VitqError(f"{path} does not run in onnxruntime: {reason(error)}") from error

    def run(pixels: UInt8Array) -> FloatArray:
        try:
            results: list[FloatArray] = session.run(None, {name: pixels})
        except Exception as error:
            raise VitqError(
                f"{path} takes no uint8 pixels {pixels.shape} in onnxruntime: {reason(error)}: "
                "leave onnxruntime out of the backends"
            ) from error
        return join(results, len(pixels))

    return run


def run_onnx(path: Path, pixels: UInt8Array, batch: int = 8) -> FloatArray:
    """Run an exported file in onnxruntime on the CPU.

    Args:
        path: the ``.onnx`` file.
        pixels: (N, C, H, W) uint8.
        batch: pictures at a time.

    Returns:
        (N, classes) float32 logits; of other results their rows.
    """
    run = onnx_runner(path)
    parts = [run(pixels[i : i + batch]) for i in range(0, len(pixels), batch)]
    return np.concatenate(parts)
