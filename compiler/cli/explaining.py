"""Commands that look at results: explain."""

from pathlib import Path
from typing import Annotated

import typer

from vitq.compiler.cli import options as opt
from vitq.compiler.support.tables import print_json


def explain(
    folder: opt.Folder,
    pictures: opt.Pictures = None,
    count: Annotated[int, typer.Option(help="how many pictures")] = 64,
    removals: Annotated[
        int,
        typer.Option(help="on how many of them roundings are taken out in turn; 0 leaves that out"),
    ] = 16,
    html: Annotated[Path | None, typer.Option(help="report to write, one .html file")] = None,
    as_json: opt.Json = False,
) -> None:
    """Where accuracy goes: float against integers, node by node, with causes and remedies."""
    from vitq.compiler.cli.explain_report import print_explanation
    from vitq.compiler.studies.explain import explain as stage
    from vitq.compiler.support.page import check_page

    check_page("--html", html)
    found = stage(folder, pictures, count, removals)
    if html is not None:
        from vitq.compiler.studies.explain_page import write_explanation

        write_explanation(found, html)
    if as_json:
        print_json(found.to_json())
        return
    print_explanation(found)
    if html is not None:
        typer.echo(html)
