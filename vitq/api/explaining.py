"""What `vitq.explain` and `Library.explain` share."""

from pathlib import Path
from typing import TYPE_CHECKING

from vitq.api.given import given_pictures
from vitq.compiler.studies.explain import PICTURES
from vitq.compiler.studies.explain import explain as stage
from vitq.compiler.studies.explain_page import write_explanation
from vitq.compiler.studies.explanation import Explanation
from vitq.compiler.support.page import check_page
from vitq.quantization.model.given import GivenModel
from vitq.quantization.pictures.given import GivenPictures

if TYPE_CHECKING:
    from vitq.api.given import Labels, Pixels


def explained(
    folder: Path,
    module: GivenModel | None,
    pixels: "Pixels | None",
    labels: "Labels | None",
    count: int | None,
    removals: int,
    html: str | Path | None,
) -> Explanation:
    """Explain an artifact as `vitq.explain` describes it.

    Args:
        folder: of the artifact, or of a target in it.
        module: the float model, where it is in hand.
        pixels: pictures.
        labels: of pictures in hand.
        count: how many.
        removals: on how many roundings are taken out.
        html: report to write.
    """
    out = None if html is None else Path(html)
    check_page("html", out)
    source = given_pictures(pixels, labels, count)
    if count is None and not isinstance(source, GivenPictures):
        count = PICTURES
    found = stage(folder, source, count, removals, module)
    if out is not None:
        write_explanation(found, out)
    return found
