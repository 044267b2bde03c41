"""One HTML file that needs no other: style and script inside, no request to anywhere."""

import base64
import html
from collections.abc import Iterable, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitq.numerics.arrays import UInt8Array
from vitq.numerics.errors import VitqError
from vitq.numerics.files import require_file, write_atomically

SUFFIXES = (".html", ".htm")
MISSING = ("", "-")
SMALL = 64
"""Pixels up to which a picture is shown in squares, not smoothed."""
THUMBNAIL = 160
QUALITY = 80


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: as HTML.
        value: what it is sorted by, None for its text.
        kind: class of its style.
    """

    text: str
    value: float | None = None
    kind: str = ""


def check_page(name: str, path: Path | None) -> None:
    """Refuse a page that cannot be written in the end.

    Args:
        name: of the option.
        path: what the user gave, None for no page.

    Raises:
        VitqError: another suffix, or no such folder.
    """
    if path is None:
        return
    if path.suffix not in SUFFIXES:
        raise VitqError(f"{name} {path}: give a file name that ends in .html")
    if not path.parent.is_dir():
        raise VitqError(f"{name} {path}: the folder {path.parent} does not exist: make it first")
    require_file(path)


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page.

    Args:
        path: of the file, replaced if it is there.
        title: plain text.
        parts: HTML of the body, in order.
    """
    web = files("vitq.compiler.support") / "web"
    style, script = ((web / f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    body = "\n".join(parts)
    write_atomically(
        path,
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<script>\n{script}</script>\n</body>\n</html>\n",
    )


def escape(text: object) -> str:
    """Return text as HTML."""
    return html.escape(str(text))


def tiles(items: Iterable[tuple[str, str]]) -> str:
    """Big figures with what they are."""
    cells = (
        f"<div class='tile'><b>{escape(v)}</b><span>{escape(k)}</span></div>" for v, k in items
    )
    return f"<div class='tiles'>{''.join(cells)}</div>"


def section(title: str, note: str, *parts: str) -> str:
    """One part of a page, with a heading and a line that says what it shows."""
    return (
        f"<section>\n<h2>{escape(title)}</h2>\n<p class='soft'>{escape(note)}</p>\n"
        + "\n".join(parts)
        + "\n</section>"
    )


def table(name: str, head: Sequence[str], rows: Iterable[Sequence[Cell]], search: str = "") -> str:
    """Return a table that its heads sort.

    Args:
        name: unique on the page.
        head: names of the columns.
        rows: cells.
        search: what a box in front of it is for; empty for no box.
    """
    body = [list(row) for row in rows]
    numeric = [_is_numeric([row[i] for row in body]) for i in range(len(head))]
    heads = "".join(
        f"<th scope='col'{' class=n' * right}><button type='button'>{escape(text)}</button></th>"
        for text, right in zip(head, numeric, strict=True)
    )
    lines = "\n".join(
        f"<tr>{''.join(_cell(c, right) for c, right in zip(row, numeric, strict=True))}</tr>"
        for row in body
    )
    box = (
        f"<input type='search' data-table='{name}' placeholder='search: {escape(search)}'"
        " aria-label='search the table'>\n"
    )
    return (
        f"{box * bool(search)}<div class='wide tall'><table class='sortable' id='{name}'>"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>"
    )


def _is_numeric(column: Sequence[Cell]) -> bool:
    """Whether a column holds numbers, but for cells without one."""
    known = [cell.value is not None for cell in column]
    return any(known) and all(k or c.text in MISSING for k, c in zip(known, column, strict=True))


def _cell(cell: Cell, right: bool) -> str:
    kinds = " ".join(filter(None, ("n" * right, cell.kind)))
    named = f" class='{kinds}'" * bool(kinds)
    value = "" if cell.value is None else f" data-v='{cell.value:.6g}'"
    return f"<td{named}{value}>{cell.text}</td>"


def bars(items: Iterable[tuple[str, float, str]]) -> str:
    """Horizontal bars: name, length from 0 to 1, what is written behind."""
    rows = (
        f"<div class='name'>{escape(name)}</div><div class='track'><div class='fill' style='width:"
        f"{100 * min(max(length, 0.0), 1.0):.1f}%'></div></div>"
        f"<div class='amount'>{escape(text)}</div>"
        for name, length, text in items
    )
    return f"<div class='bars'>{''.join(rows)}</div>"


def picture(pixels: UInt8Array, alt: str) -> str:
    """Return pixels (C, H, W) as an image inside of the page."""
    from PIL import Image

    channels = np.repeat(pixels[:1], 3, axis=0) if len(pixels) < 3 else pixels[:3]
    image = Image.fromarray(np.ascontiguousarray(channels.transpose(1, 2, 0)))
    kind, small = "png", max(image.size) <= SMALL
    options: dict[str, Any] = {"format": "PNG", "optimize": True}
    if not small:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        kind, options = "jpeg", {"format": "JPEG", "quality": QUALITY}
    buffer = BytesIO()
    image.save(buffer, **options)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    named = " class='small'" * small
    return f"<img{named} alt='{escape(alt)}' src='data:image/{kind};base64,{data}'>"
