"""The command ``zoo``, and its table."""

import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from vitq.compiler.cli import options as opt
from vitq.compiler.support.tables import print_json, print_table
from vitq.numerics.errors import VitqError

HEAD = ["model", "recipe", "target", "batch", "integers", "MB", "ms", "accuracy"]


def zoo(
    models: Annotated[list[str], typer.Argument(help="names, as quantize takes them")],
    recipes: Annotated[str, typer.Option(help="widths, with commas")] = "w8a8",
    targets: Annotated[str, typer.Option(help="of vitq targets, with commas")] = "cpu",
    batch: Annotated[str, typer.Option(help="batch sizes, with commas")] = "1",
    method: Annotated[str, typer.Option(help="of quantize")] = "repq",
    weights: Annotated[
        Path | None,
        typer.Option(help="folder with <model>.safetensors; others get random ones, seed 0"),
    ] = None,
    random_weights: Annotated[
        int | None,
        typer.Option(help="their seed; with it factories and folders get random ones, too"),
    ] = None,
    model_kwargs: Annotated[
        list[str] | None,
        typer.Option(help="key=value for timm.create_model, of all models; may be repeated"),
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(help="of the input of all models: one number, or height,width")
    ] = None,
    preprocessor: Annotated[
        Path | None,
        typer.Option(help="a Hugging Face preprocessor_config.json, for models that say nothing"),
    ] = None,
    calib: Annotated[
        str | None,
        typer.Option(help="calibration pictures, as of quantize; noise if absent"),
    ] = None,
    calib_count: Annotated[int, typer.Option(help="how many calibration pictures")] = 32,
    pictures: opt.Pictures = None,
    count: opt.EvaluateCount = None,
    parallel: Annotated[int, typer.Option(help="cells at once, on this machine")] = 1,
    dask: Annotated[
        str | None, typer.Option(help="host:port of a dask scheduler, whose workers run the cells")
    ] = None,
    arch: opt.Arch = None,
    artifacts: opt.Artifacts = Path("artifacts"),
    as_json: opt.Json = False,
) -> None:
    """Build and prove models x recipes x targets, in one table; what is refused says why.

    Each cell is kept when it is done: a run that is stopped goes on where it was.
    """
    from vitq.compiler.stages.quantize_options import QuantizeOptions
    from vitq.compiler.studies.spreading import Spread
    from vitq.compiler.studies.zoo import ZooOptions, with_weights
    from vitq.compiler.studies.zoo import zoo as stage
    from vitq.compiler.target.choice import get_target
    from vitq.compiler.target.host import host_cpu
    from vitq.quantization.model.names import parse_kwargs

    variants = [
        with_weights(
            QuantizeOptions.parse(
                model=model, recipe=recipe, method=method, calib=calib, calib_count=calib_count,
                artifacts=artifacts, model_kwargs=parse_kwargs(model_kwargs or ()),
                image_size=opt.image_size(image_size), preprocessor=preprocessor,
            ),
            weights,
            random_weights,
        )
        for model in models
        for recipe in recipes.split(",")
    ]  # fmt: skip
    archs = opt.words(arch)
    named = targets.split(",")
    options = ZooOptions(
        targets=[get_target(name, archs if name == "cuda" else None) for name in named],
        batches=opt.integers(batch, "batch"),
        pictures=pictures,
        count=count,
        spread=Spread(parallel, dask),
    )
    result = stage(variants, options)
    if as_json:
        about = {"command": f"vitq {shlex.join(sys.argv[1:])}", "date": str(date.today())}
        print_json({**about, "machine": host_cpu(), **result.to_json()})
    else:
        rows, notes = zoo_rows(result.cells)
        print_table(HEAD, rows, "")
        for note in notes:
            typer.echo(note)
    if result.differing:
        names = ", ".join(f"{cell.model} {cell.recipe} {cell.target}" for cell in result.differing)
        raise VitqError(f"integers differ in {len(result.differing)} cells: {names}")
    if result.is_all_refused:
        raise VitqError(f"all cells ({len(result.cells)}) are refused: the table says why")


def zoo_rows(cells: Sequence[Any]) -> tuple[list[list[str]], list[str]]:
    """Return a row for each `compiler.studies.zoo_cell.ZooCell`, and what does not fit in one.

    Returns:
        The rows, and lines below: refusals by their number, and whose weights the models have.
    """
    from vitq.compiler.studies.zoo_cell import titled

    reasons: dict[str, int] = {}
    rows = []
    for cell in cells:
        name = titled(cell.model, cell.arguments)
        first = [name, cell.recipe, cell.target, str(cell.batch)]
        size = "-" if cell.size_bytes is None else f"{cell.size_bytes / 1e6:.2f}"
        time = "-" if cell.latency_ms is None else f"{cell.latency_ms:.2f}"
        if cell.refused is None:
            integers = proven(cell)
        else:
            number = reasons.setdefault(cell.refused, len(reasons) + 1)
            integers = f"{'DIFFER' if cell.differs else f'{cell.stage} refuses'} [{number}]"
        rows.append([*first, integers, size, time, accuracy(cell)])
    notes = [f"[{number}] {reason}" for reason, number in reasons.items()]
    weights = {
        cell.weights: [c.model for c in cells if c.weights == cell.weights] for cell in cells
    }
    named = (f"{', '.join(dict.fromkeys(models))}: {whose}" for whose, models in weights.items())
    return rows, [*notes, f"weights: {'; '.join(named)}"]


def proven(cell: Any) -> str:
    """Return how many integers of a cell are known to be right, and how."""
    how = {"emulated": " (emulated)", "kernels": " (kernels, emulated)"}.get(cell.proven, "")
    integers = f"0 of {cell.compared} differ{how}" if cell.compared else str(cell.proven)
    left = cell.float_operators
    return f"{integers}, {left} float operators" if left else integers


def accuracy(cell: Any) -> str:
    """Right answers beside the float model's, or how near the outputs are to its."""
    row = cell.row
    if row is None:
        return "-"
    cosine = "" if row.mean_cosine is None else f"cosine {row.mean_cosine:.4f}"
    if row.top1 is None:
        return cosine
    return f"{row.top1} (float {cell.float_top1}) of {row.images}, {cosine}"
