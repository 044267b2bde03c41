"""Write the reference of the command line: every command, argument and option, from typer."""

from typing import Any

import typer

from docs.tools.tables import escaped, markdown


def _root() -> Any:
    from vitq.compiler.cli.main import app

    return typer.main.get_command(app)


def command_parsers() -> dict[str, Any]:
    """Map every command's name to its parser."""
    return dict(_root().commands)


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or getattr(parameter, "required", False):
        return ""
    return f"`{value}`"


def _rows(parser: Any) -> list[list[str]]:
    rows = []
    for parameter in parser.params:
        if parameter.param_type_name == "argument":
            name = f"`{parameter.name.upper()}`" + (" ..." if parameter.nargs == -1 else "")
        else:
            name = ", ".join(f"`{option}`" for option in parameter.opts)
        needed = "needed" if parameter.required else _default(parameter)
        rows.append([name, needed, escaped(parameter.help or "").replace("|", "\\|")])
    return rows


def _section(name: str, parser: Any) -> str:
    rows = _rows(parser)
    text = f"## vitq {name}\n\n{escaped((parser.help or '').strip())}"
    return f"{text}\n\n{markdown(['option', 'default', 'meaning'], rows)}" if rows else text


def reference() -> str:
    """Describe all commands, in the order of the program's help."""
    return "\n\n".join(_section(name, parser) for name, parser in command_parsers().items())
