"""What all plots share: matplotlib (imported when one is drawn) and files written atomically."""

from io import BytesIO
from pathlib import Path
from typing import Any

from vitq.compiler.support.extras import need_extra
from vitq.numerics.errors import VitqError
from vitq.numerics.files import require_file, write_atomically

SUFFIXES = (".png", ".svg", ".pdf")
DPI = 130


def check_plot(name: str, path: Path | None) -> None:
    """Refuse a plot that cannot be drawn in the end.

    Args:
        name: of the option.
        path: what the user gave, None for no plot.

    Raises:
        VitqError: matplotlib is not installed, or the file's suffix is none of `SUFFIXES`.
    """
    if path is None:
        return
    need_extra("matplotlib", name)
    if path.suffix not in SUFFIXES:
        raise VitqError(f"{name} {path}: give a file name that ends in {', '.join(SUFFIXES)}")
    require_file(path)


def pyplot() -> Any:
    """``matplotlib.pyplot`` without a display."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure in the format of the file's suffix, and close it."""
    buffer = BytesIO()
    figure.savefig(buffer, format=path.suffix.lstrip(".") or "png", dpi=DPI)
    write_atomically(path, buffer.getvalue())
    pyplot().close(figure)
