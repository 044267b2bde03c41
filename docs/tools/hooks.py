"""Fill in, when the site is built, what stands elsewhere in the repository.

| marker in a page | becomes |
|---|---|
| ``<!-- commands -->`` | the command line, from typer |
| ``<!-- numerics: TITLE = MODULE -->`` | the docstring of a module of `numerics` |
| ``<!-- contributing -->`` | ``CONTRIBUTING.md`` without its title |
| ``<!-- api -->`` | `mkdocstrings` directives for the public names of `vitq` |
"""

import ast
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from docs.tools.tables import escaped  # noqa: E402 - mkdocs imports this file by its path

NUMERICS = re.compile(r"<!-- numerics: (?P<title>.+?) = (?P<module>\w+) -->")
INDENT = "    "


def as_markdown(docstring: str) -> str:
    """Turn a docstring into Markdown: indented blocks are code, the rest is text."""
    blocks = re.split(r"\n\n(?=\S)|\n\n(?= )", docstring)
    shown = []
    for block in blocks:
        lines = block.split("\n")
        if lines[0].startswith(INDENT):
            shown.append("```\n" + "\n".join(line.removeprefix(INDENT) for line in lines) + "\n```")
        else:
            shown.append(_paragraph(lines))
    return "\n\n".join(shown)


def _paragraph(lines: list[str]) -> str:
    """Text that may go over into an indented block without an empty line."""
    for at, line in enumerate(lines):
        if line.startswith(INDENT) and at:
            code = "\n".join(rest.removeprefix(INDENT) for rest in lines[at:])
            return f"{_paragraph(lines[:at])}\n\n```\n{code}\n```"
    if lines[0].startswith("* "):
        return "\n".join(
            ("* " + escaped(line[2:])) if line.startswith("* ") else escaped(line) for line in lines
        )
    return escaped("\n".join(lines))


def docstring_of(module: str) -> str:
    """Read a module's docstring of `numerics` without importing it."""
    path = ROOT / "numerics" / f"{module}.py"
    found = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not found:
        raise LookupError(f"{path} has no docstring")
    return found


def _numerics(match: re.Match[str]) -> str:
    title, module = match["title"], match["module"]
    return f"## {title}\n\n`numerics/{module}.py`\n\n{as_markdown(docstring_of(module))}\n"


def _contributing() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.partition("\n")[2].strip()


def _api() -> str:
    from docs.tools.api import reference

    return reference()


def expanded(text: str) -> str:
    """Fill in all markers of a page."""
    if "<!-- commands -->" in text:
        from docs.tools.commands import reference

        text = text.replace("<!-- commands -->", reference())
    if "<!-- contributing -->" in text:
        text = text.replace("<!-- contributing -->", _contributing())
    if "<!-- api -->" in text:
        text = text.replace("<!-- api -->", _api())
    return NUMERICS.sub(_numerics, text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Edit a page before mkdocs renders it."""
    return expanded(markdown)
