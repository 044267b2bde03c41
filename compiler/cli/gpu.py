"""Commands for machines with GPUs; the command line's rules are those of `compiler.cli.main`."""

from pathlib import Path
from typing import Annotated

import typer

from vitq.compiler.cli import options as opt


def kit(
    folders: Annotated[list[Path], typer.Argument(help="artifacts' folders")],
    out: Annotated[Path, typer.Option(help="folder of the kit; an earlier one is replaced")],
    target: opt.Target = "cuda",
    batch: Annotated[str, typer.Option(help="batch sizes, with commas")] = "1",
    candidates: Annotated[
        int, typer.Option(help="schedules of each kernel to time there; 0: only compare")
    ] = 0,
    arch: opt.Arch = None,
    contestants: Annotated[
        bool, typer.Option("--contestants", help="TVM's float model and the QDQ file, too: minutes")
    ] = False,
) -> None:
    """What a machine with a GPU and without TVM needs: there, python3 -m gpu_kit."""
    from vitq.compiler.benchmark.kit import KitOptions
    from vitq.compiler.benchmark.kit import kit as stage

    batches = opt.integers(batch, "batch")
    options = KitOptions(out, target, batches, candidates, opt.words(arch), contestants)
    typer.echo(stage(folders, options))
