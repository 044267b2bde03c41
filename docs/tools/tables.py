"""Turn files of `benchmarks/results` into Markdown tables.

Two kinds of file lie there. A *table* holds `columns` and `rows`: each column has a head and
formats, the first of which that a row has the fields for makes its cell. Anything else is what
``vitq benchmark --json`` or ``gpu_kit`` wrote, and `docs.tools.measured` reads it.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def read(name: str) -> Any:
    """Read a file of `benchmarks/results`, named without its suffix."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay cells out as a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(" ".join(["|", *(f"{c} |" if c else "|" for c in line)]) for line in lines)


def _origin(name: str) -> str:
    """Say of one file what it was measured on, when, and by which command, as far as it says."""
    content = read(name)
    machine, command = content.get("machine"), content.get("command")
    if isinstance(machine, dict):
        versions = machine["versions"]
        used = ("onnxruntime", "openvino", "torch")
        machine = f"{machine['processor']} ({', '.join(f'{n} {versions[n]}' for n in used)})"
    about = [machine, content.get("date"), f"`{command}`" if command else None]
    return ", ".join([f"`{name}.json`", *(part for part in about if part)])


def caption(*names: str, note: str = "") -> str:
    """State where a table's figures come from: files, machine, date, command."""
    text = f"{note}. " if note else ""
    return f"{text}Source: {'; '.join(map(_origin, names))}."


def cell(formats: Sequence[str], row: dict[str, Any]) -> str:
    """Fill in the first format that the row has the fields for; empty if there is none."""
    for form in formats:
        try:
            return re.sub(r"(?<=\d)%", " %", form.format_map(row))
        except KeyError:
            continue
    return ""


def stated(name: str) -> str:
    """Lay out a file that is a table, with what it is about below it."""
    content = read(name)
    head = [column[0] for column in content["columns"]]
    rows = [[cell(column[1:], row) for column in content["columns"]] for row in content["rows"]]
    about = str(content["about"])
    return f"{markdown(head, rows)}\n\n{caption(name, note=about[0].upper() + about[1:])}"


def row_of(name: str, **wanted: Any) -> dict[str, Any]:
    """Find the one row of a table with certain fields."""
    found = [
        row
        for row in read(name)["rows"]
        if all(row.get(key) == value for key, value in wanted.items())
    ]
    if len(found) != 1:
        raise LookupError(f"{name}.json: {len(found)} rows have {wanted}, not one")
    row: dict[str, Any] = found[0]
    return row


def milliseconds(value: float) -> str:
    """Write a time with three significant digits."""
    return f"{value:#.3g}".rstrip(".") if value < 1000 else f"{value:.0f}"


BOLD = re.compile(r"\*\*([A-Z][^*`]*)\*\*")
CODE = re.compile(r"(``[^`]+``|`[^`]+`)")


def escaped(text: str) -> str:
    """Keep Markdown from reading formulas as emphasis, links or tags, outside of code."""
    marked = []
    for part in CODE.split(text):
        if part.startswith("`"):
            marked.append(part.replace("``", "`"))
            continue
        plain = re.sub(r"([*_\[\]])", r"\\\1", BOLD.sub("\0\\1\0", part)).replace("<", "&lt;")
        marked.append(re.sub("\0(.*?)\0", r"**\1**", plain, flags=re.DOTALL))
    return "".join(marked)
