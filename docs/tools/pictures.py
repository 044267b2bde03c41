"""Draw the pictures of README and docs as SVG: no plotting package, no text set by a browser."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from docs.tools.measured import CONTESTANTS
from docs.tools.tables import milliseconds, read

INK, PALE, OURS, THEIRS, EDGE = "#1f2933", "#eef2f6", "#0b7285", "#b6c2cd", "#8795a1"
FONT = "font-family='Helvetica,Arial,sans-serif'"


def _svg(width: int, height: int, parts: Sequence[str], title: str) -> str:
    body = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
        f"width='{width}' height='{height}' role='img' aria-label='{escape(title, quote=True)}'>\n"
        f"<title>{escape(title)}</title>\n"
        f"<rect width='{width}' height='{height}' rx='8' fill='#ffffff'/>\n{body}\n</svg>\n"
    )


def _text(x: float, y: float, text: str, size: int = 13, anchor: str = "middle",
          fill: str = INK, weight: str = "normal") -> str:  # fmt: skip
    return (
        f"<text x='{x:g}' y='{y:g}' font-size='{size}' text-anchor='{anchor}' fill='{fill}' "
        f"font-weight='{weight}' {FONT}>{escape(text)}</text>"
    )


@dataclass(frozen=True)
class Box:
    """One step of the pipeline.

    Attributes:
        x: left edge.
        y: upper edge.
        title: what is called what.
        lines: below the title.
        strong: a stage of ours, and not what goes in or comes out.
    """

    x: int
    y: int
    title: str
    lines: tuple[str, ...]
    strong: bool = False


WIDTH, HEIGHT = 164, 78
BOXES = {
    "model": Box(16, 40, "PyTorch ViT", ("torch.export",)),
    "pictures": Box(16, 160, "a few pictures", ("or none",)),
    "quantize": Box(212, 100, "quantize", ("calibrate, move scales,", "round weights"), True),
    "export": Box(408, 40, "export", ("ONNX QDQ",), True),
    "reference": Box(408, 160, "integer reference", ("NumPy, without TVM",)),
    "compile": Box(604, 40, "compile", ("passes on Relax,", "ranges proven, kernels"), True),
    "verify": Box(604, 160, "verify", ("bit for bit",), True),
    "library": Box(800, 40, "model.so", ("uint8 pixels in,", "integer logits out")),
    "deploy": Box(800, 160, "deploy", ("a bundle without Python",), True),
}
ARROWS = (
    ("model", "quantize"), ("pictures", "quantize"), ("quantize", "export"),
    ("quantize", "reference"), ("export", "compile"), ("compile", "library"),
    ("reference", "verify"), ("library", "verify"), ("library", "deploy"),
)  # fmt: skip


def _arrow(start: Box, end: Box) -> str:
    points: tuple[float, float, float, float]
    if start.x == end.x:
        points = (start.x + WIDTH / 2, start.y + HEIGHT, end.x + WIDTH / 2, end.y - 4)
    elif start.x < end.x:
        points = (start.x + WIDTH, start.y + HEIGHT / 2, end.x - 4, end.y + HEIGHT / 2)
    else:
        points = (start.x + 12, start.y + HEIGHT, end.x + WIDTH - 12, end.y - 4)
    x1, y1, x2, y2 = points
    return (
        f"<line x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' stroke='{EDGE}' "
        "stroke-width='1.6' marker-end='url(#head)'/>"
    )


def pipeline() -> str:
    """Draw what happens to a model, from PyTorch to a device."""
    parts = [
        "<defs><marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' "
        f"markerHeight='8' orient='auto'><path d='M0,0 L8,4 L0,8 z' fill='{EDGE}'/></marker></defs>"
    ]
    parts += [_arrow(BOXES[start], BOXES[end]) for start, end in ARROWS]
    for box in BOXES.values():
        fill, ink = (OURS, "#ffffff") if box.strong else (PALE, INK)
        parts.append(
            f"<rect x='{box.x}' y='{box.y}' width='{WIDTH}' height='{HEIGHT}' rx='6' "
            f"fill='{fill}'/>"
        )
        middle = box.x + WIDTH / 2
        top = box.y + (34 if len(box.lines) == 1 else 26)
        parts.append(_text(middle, top, box.title, 15, fill=ink, weight="bold"))
        for index, line in enumerate(box.lines):
            parts.append(_text(middle, top + 19 + 16 * index, line, 12, fill=ink))
    return _svg(
        966, 262, parts, "From a PyTorch ViT to an integer-only library, checked bit for bit"
    )


BAR, LEFT, SCALE = 24, 190, 460


def bars(title: str, times: dict[str, float]) -> str:
    """Draw times as horizontal bars, ours first."""
    parts = [_text(16, 28, title, 15, "start", weight="bold")]
    longest = max(times.values())
    for index, (name, ms) in enumerate(sorted(times.items(), key=lambda item: item[1])):
        y = 48 + index * (BAR + 8)
        fill = OURS if name == "vitq" else THEIRS
        length = max(2.0, SCALE * ms / longest)
        parts.append(_text(LEFT - 10, y + 17, name, 13, "end"))
        parts.append(
            f"<rect x='{LEFT}' y='{y}' width='{length:.1f}' height='{BAR}' rx='3' fill='{fill}'/>"
        )
        parts.append(_text(LEFT + length + 8, y + 17, f"{milliseconds(ms)} ms", 13, "start"))
    height = 60 + len(times) * (BAR + 8)
    return _svg(740, height, parts, title)


def speed() -> str:
    """Draw DeiT-Tiny on one core with VNNI beside the other runtimes."""
    rows = read("deit_tiny-contestants")["rows"]
    times = {CONTESTANTS[row["contestant"]]: row["median_ms"] for row in rows}
    return bars("DeiT-Tiny, one picture, one core with AVX512-VNNI", times)


PICTURES = {"pipeline.svg": pipeline, "speed.svg": speed}
