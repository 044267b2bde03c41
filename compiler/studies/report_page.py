"""Artifacts side by side as cells of a table, and as one HTML file."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vitq.compiler.studies.report import Entry
from vitq.compiler.support.page import Cell, bars, escape, section, table, write_page

HEAD = (
    "artifact", "target", "weights", "top-1", "agreement", "cosine", "SQNR dB", "library MiB", "ms",
    "integers",
)  # fmt: skip
HASH_DIGITS = 8
FEW = 8
"""Artifacts that nobody needs a search for."""
MIB = 2**20


def report_rows(entries: Sequence[Entry]) -> list[list[Cell]]:
    """Cells of `HEAD`, plain text."""
    return [_row(entry) for entry in entries]


def _row(entry: Entry) -> list[Cell]:
    right = None if entry.top1 is None else entry.top1 / (entry.pictures or 1)
    of_float = "" if entry.float_top1 is None else f" (float {entry.float_top1})"
    agreement = entry.agreement
    size = None if entry.size_bytes is None else entry.size_bytes / MIB
    first = next(iter(entry.times_ms.values()), None)
    times = "\n".join(f"{name}: {ms:.3g}" for name, ms in entry.times_ms.items())
    return [
        Cell(_name(entry)),
        Cell(entry.target or "not compiled"),
        Cell(", ".join(f"{n} x {bits} bit" for bits, n in entry.widths.items()) or "-"),
        Cell("-" if right is None else f"{entry.top1}/{entry.pictures}{of_float}", right),
        Cell("-" if agreement is None else f"{100 * agreement:.1f} %", agreement),
        _figure(entry, "mean_cosine", ".4f"),
        _figure(entry, "sqnr_db", ".1f"),
        Cell("-" if size is None else f"{size:.2f}", size),
        Cell(times or "-", first),
        Cell("-" if entry.integers is None else entry.integers[:HASH_DIGITS]),
    ]


def _figure(entry: Entry, name: str, digits: str) -> Cell:
    """Return a figure of the logits, or one line for each result where there are others."""
    own = getattr(entry, name)
    values = {score.name: getattr(score, name) for score in entry.outputs}
    lines = [f"{key}: {value:{digits}}" for key, value in values.items() if value is not None]
    if not lines and own is not None:
        lines = [f"{own:{digits}}"]
    first = next((value for value in values.values() if value is not None), own)
    return Cell("\n".join(lines) or "-", first)


def _name(entry: Entry) -> str:
    """Return model, recipe and method; of a foreign file its name."""
    facts = (entry.recipe, entry.method, None if entry.nonlinear == "vitq" else entry.nonlinear)
    return " ".join((entry.model, *filter(None, facts)))


def write_report(entries: Sequence[Entry], path: Path) -> None:
    """Write a page.

    Args:
        entries: what `compiler.studies.report.report` read.
        path: ``.html``, replaced if it is there.
    """
    write_page(path, "Artifacts side by side", _parts(entries))


def _parts(entries: Sequence[Entry]) -> Iterator[str]:
    yield "<header><h1>Artifacts side by side</h1></header>"
    rows = [[cell._replace(text=_html(cell.text)) for cell in row] for row in report_rows(entries)]
    yield section(
        "Figures",
        "Weights: layers of each width. Agreement, cosine and SQNR: with the float model. "
        "ms: median of a run, batch x threads. Integers: equal where the same integers come out. A "
        "dash: not evaluated or benchmarked since the library was made.",
        table("artifacts", HEAD, rows, search="model, recipe, target" * (len(entries) > FEW)),
    )
    yield from _chart("Agreement with the float model", entries, lambda e: e.agreement, "%")
    yield from _chart("Library", entries, lambda e: e.size_bytes and e.size_bytes / MIB, "MiB")
    for key in dict.fromkeys(key for entry in entries for key in entry.times_ms):
        yield from _chart(f"Median time, {key}", entries, lambda e, k=key: e.times_ms.get(k), "ms")  # type: ignore[misc]
    listed = "".join(
        f"<li>{escape(_name(e))}, {escape(e.target or 'not compiled')}: {escape(e.folder)}"
        + f"; evaluated on {e.pictures} pictures of {escape(e.source)}" * (e.pictures is not None)
        + f"; timed on {escape(e.machine)}" * (e.machine is not None)
        + "</li>"
        for e in entries
    )
    yield section("Where they lie", "", f"<ol class='findings'>{listed}</ol>")


def _html(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _chart(
    title: str, entries: Sequence[Entry], value: Callable[[Entry], float | None], unit: str
) -> Iterator[str]:
    """Bars of one figure, where at least one entry has it."""
    known = [(e, v) for e in entries if (v := value(e)) is not None]
    if not known:
        return
    is_share = unit == "%"
    top = 1.0 if is_share else max(v for _, v in known) or 1.0
    items = (
        (
            f"{_name(entry)}, {entry.target or ''}",
            found / top,
            f"{100 * found:.1f} %" if is_share else f"{found:.2f} {unit}",
        )
        for entry, found in known
    )
    yield section(title, "", bars(items))
