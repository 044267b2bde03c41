"""Results as a table for a person and as JSON for a program."""

import json
import sys
from typing import Any

WIDTH = 120


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(content, indent=1))


def print_table(head: list[str], rows: list[list[str]], title: str) -> None:
    """Print a table; to a file or pipe at a fixed width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*map(Text, row))  # not markup: a cell may hold brackets
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    with console.capture() as capture:  # rich would end the program where nobody reads it
        console.print(table)
    sys.stdout.write(capture.get())
