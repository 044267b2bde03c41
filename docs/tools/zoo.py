"""The table of models that work, made of what ``vitq zoo --json`` printed."""

from typing import Any

from docs.tools.tables import caption, escaped, markdown, read

NAME = "zoo"
LONGEST = 300
"""Of a refusal, in characters."""
Cells = list[dict[str, Any]]


def models() -> str:
    """Lay the file out: a line for each model, a column for each recipe and target."""
    cells: Cells = read(NAME)["cells"]
    recipes, targets = (list(dict.fromkeys(c[key] for c in cells)) for key in ("recipe", "target"))
    known = {(cell["recipe"], cell["target"]) for cell in cells}
    columns = [(r, t) for t in targets for r in recipes if (r, t) in known]
    reasons: dict[str, int] = {}
    rows = []
    for name in dict.fromkeys(map(_name, cells)):
        own = [cell for cell in cells if _name(cell) == name]
        found = [
            _proven([c for c in own if (c["recipe"], c["target"]) == column], reasons)
            for column in columns
        ]
        rows.append([name, *found, _size(own)])
    head = ["model", *(f"{recipe}, {target}" for recipe, target in columns), "MB"]
    notes = [f"{number}. {escaped(reason)}" for reason, number in reasons.items()]
    text = "\n".join([markdown(head, rows), "", *notes])
    note = (
        "Integers of the library that were compared with the reference, on golden, random and "
        "extreme pictures, at batch 1 or where it says so; none differs, and no float operator is "
        "left. Seeded random weights, but for the embedded models; the size is that of the first "
        "library at batch 1. What stands behind a name are timm's arguments (`--model-kwargs`): "
        "two blocks a stage, which deeper models repeat. Classes of Transformers are from small "
        "configurations (two blocks of 64 channels, pictures of 64 x 64)"
    )
    return f"{text.rstrip()}\n\n{caption(NAME, note=note)}"


def _name(cell: dict[str, Any]) -> str:
    """Return a model's name with the arguments that it was built with."""
    name, comma, more = cell["model"].partition(",")
    given = [f"`{key}={value!r}`" for key, value in cell.get("arguments", {}).items()]
    return ", ".join([f"`{name}`{comma}{more}", *given])


def _proven(cells: Cells, reasons: dict[str, int]) -> str:
    """Return how many integers are equal, or the numbers of the refusals."""
    good = [cell for cell in cells if cell["refused"] is None]
    batches = " and ".join(str(c["batch"]) for c in good)
    where = "" if batches in {"", "1"} else f" (batch {batches})"
    parts = [f"{sum(c['compared'] for c in good):,} equal{where}"] if good else []
    if any(cell["float_operators"] for cell in good):
        raise ValueError(f"{good[0]['model']}: float operators are left")
    for cell in cells:
        if cell["refused"] is not None:
            text = f"{cell['stage']}: {cell['refused']}"[:LONGEST]
            size = "" if cell["batch"] == 1 else f"batch {cell['batch']} "
            parts.append(f"{size}refused ({reasons.setdefault(text, len(reasons) + 1)})")
    return ", ".join(dict.fromkeys(parts))


def _size(cells: Cells) -> str:
    """Size of the first library that was built."""
    built = [cell for cell in cells if cell["refused"] is None and cell["batch"] == 1]
    return f"{built[0]['size_bytes'] / 1e6:.1f}" if built else ""
