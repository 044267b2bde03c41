"""`explain`: where a quantized model's accuracy goes."""

from pathlib import Path
from typing import TYPE_CHECKING

from vitq.api.explaining import explained
from vitq.api.library import Library
from vitq.api.quantize import Quantized
from vitq.compiler.studies.explain import REMOVALS
from vitq.compiler.studies.explanation import Explanation

if TYPE_CHECKING:
    from vitq.api.given import Labels, Pixels


def explain(
    model: Quantized | Library | str | Path,
    pixels: "Pixels | None" = None,
    labels: "Labels | None" = None,
    *,
    count: int | None = None,
    removals: int = REMOVALS,
    html: str | Path | None = None,
) -> Explanation:
    """Say where accuracy goes: float against integers, node by node, with causes and remedies.

    Args:
        model: quantized, compiled, or the folder of an artifact.
        pixels: (N, C, H, W) uint8, PIL images, a folder or a ``.npy`` file; None for the embedded
            model's held-out digits.
        labels: (N,) class numbers of pictures in hand.
        count: how many; None for all in hand, and 64 of a folder or file.
        removals: on how many of them roundings are taken out in turn; 0 leaves that out.
        html: report to write, one file that needs no other.

    Returns:
        ``findings`` (sentences), ``nodes`` (``own_sqnr_db``, ``sqnr_db``, ``cosine``, ``seen``,
        ``reach``, ``clipped`` of each), ``layers`` (what each rounding costs, the dearest first),
        ``variants``, ``changed`` (pictures with another answer), ``agreement``, ``sqnr_db``.

    Raises:
        VitqError: no pictures, or a float model that is unknown or not there any more.

    Example:
        >>> found = vitq.explain(q, pixels, html="report.html")
        >>> found.findings[0]
    """
    if isinstance(model, str | Path):
        return explained(Path(model), None, pixels, labels, count, removals, html)
    return explained(model.folder, model._module, pixels, labels, count, removals, html)
