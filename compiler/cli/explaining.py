"""Commands that look at results: explain, report."""

from pathlib import Path
from typing import Annotated

import typer

from vitq.compiler.cli import options as opt
from vitq.compiler.support.tables import print_json, print_table
from vitq.numerics.errors import VitqError
from vitq.numerics.files import require_file


def explain(
    folder: opt.Folder,
    pictures: opt.Pictures = None,
    count: Annotated[int, typer.Option(help="how many pictures")] = 64,
    removals: Annotated[
        int,
        typer.Option(help="on how many of them roundings are taken out in turn; 0 leaves that out"),
    ] = 16,
    html: Annotated[Path | None, typer.Option(help="report to write, one .html file")] = None,
    wider: Annotated[
        Path | None,
        typer.Option(help="recipe to write, NAME.json: the dearest layers at 8 bits"),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Where accuracy goes: float against integers, node by node, with causes and remedies."""
    from vitq.compiler.cli.explain_report import print_explanation
    from vitq.compiler.studies.explain import explain as stage
    from vitq.compiler.studies.wider import write_wider
    from vitq.compiler.support.page import check_page

    check_page("--html", html)
    if wider is not None and wider.suffix != ".json":
        raise VitqError(f"--wider {wider}: a recipe's file is called NAME.json")
    if wider is not None:
        require_file(wider)
    found = stage(folder, pictures, count, removals)
    # Shown first: a disk that is full at the end costs the files, not the answer.
    if as_json:
        print_json(found.to_json())
    else:
        print_explanation(found)
    if html is not None:
        from vitq.compiler.studies.explain_page import write_explanation

        write_explanation(found, html)
    if wider is not None:
        write_wider(found, wider)
    if not as_json:
        _say_written(html, wider)


def report(
    folders: Annotated[list[Path], typer.Argument(help="artifacts' folders, or targets' in them")],
    html: Annotated[Path | None, typer.Option(help="page to write, one .html file")] = None,
    as_json: opt.Json = False,
) -> None:
    """Several artifacts side by side: accuracy, size, time, widths, integers.

    Accuracy is that of the last evaluate of each library, times those of the last benchmark.
    """
    from vitq.compiler.studies.report import report as stage
    from vitq.compiler.studies.report_page import HEAD, report_rows, write_report
    from vitq.compiler.support.page import check_page

    check_page("--html", html)
    entries = stage(folders)
    if as_json:
        print_json({"entries": [entry.to_json() for entry in entries]})
    else:
        print_table(list(HEAD), [[cell.text for cell in row] for row in report_rows(entries)], "")
    if html is not None:
        write_report(entries, html)
    if not as_json:
        _say_written(html)


def _say_written(*paths: Path | None) -> None:
    for path in paths:
        if path is not None:
            typer.echo(path)
