"""The command ``run``: the best classes of pictures, or logits into a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vitq.compiler.cli import options as opt
from vitq.compiler.support.tables import print_json, print_table
from vitq.numerics.errors import VitqError

if TYPE_CHECKING:
    from vitq.compiler.stages.run import Answer, Guess


def run(
    folder: opt.Folder,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(help="pictures, folders of pictures, .npy of uint8 (N, C, H, W)"),
    ] = None,
    input_path: Annotated[
        Path | None, typer.Option("--input", help="with --output: a picture, folder or .npy")
    ] = None,
    output_path: Annotated[
        Path | None,
        typer.Option("--output", help=".npy of logits, or .npz of all results, to write"),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="write integer codes, not logits")] = False,
    backend: Annotated[str, typer.Option(help="library or reference")] = "library",
    top: Annotated[int, typer.Option(help="how many classes of each picture")] = 5,
    labels: Annotated[Path | None, typer.Option(help="file with a class name on each line")] = None,
    result: Annotated[
        str | None, typer.Option(help="which one --output FILE.npy holds, of several")
    ] = None,
    threads: opt.Threads = None,
    as_json: opt.Json = False,
) -> None:
    """Run pictures through a compiled model: the best classes, or its results as a file."""
    from vitq.compiler.stages import run as stage

    sources = [*(pictures or ()), *([input_path] if input_path else ())]
    chosen: Literal["library", "reference"] = "library" if backend == "library" else "reference"
    if backend not in ("library", "reference"):
        raise VitqError(f"--backend {backend!r}: choose library or reference")
    if not sources:
        raise VitqError("nothing to run: name pictures, a folder of pictures, or a .npy file")
    if output_path is None:
        if raw:
            raise VitqError("--raw writes integers: give --output FILE.npy")
        if result is not None:
            raise VitqError("--result chooses what is written: give --output FILE.npy")
        answers = stage.classify(folder, sources, top, labels, chosen, threads)
        print_answers(list(answers), as_json)
        return
    if len(sources) > 1:
        raise VitqError(f"--output takes one source, and {len(sources)} are given")
    stage.run(folder, sources[0], output_path, raw, chosen, threads, result)
    typer.echo(output_path)


def print_answers(answers: "Sequence[Answer]", as_json: bool) -> None:
    """Print the best classes of each picture."""
    if as_json:
        print_json({"answers": [answer.to_json() for answer in answers]})
        return
    rows = [[answer.picture, *map(_cell, answer.best)] for answer in answers]
    head = ["picture", "best", *(f"{n + 1}." for n in range(1, len(rows[0]) - 1))]
    print_table(head, rows, "")


def _cell(guess: "Guess") -> str:
    name = f"class {guess.number}" if guess.name is None else guess.name
    return f"{name} {100 * guess.probability:.1f} %"
