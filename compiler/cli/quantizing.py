"""Commands around quantization, and the options that all of them share."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vitq.compiler.cli import options as opt
from vitq.compiler.support.tables import print_json, print_table
from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear


def quantize_options(
    model: opt.Model = "digits_vit",
    weights: opt.Weights = None,
    random_weights: opt.Seed = None,
    calib: opt.Calib = None,
    calib_count: opt.Count = 32,
    calib_seed: opt.CalibSeed = 0,
    calib_steps: opt.CalibSteps = None,
    save_images: opt.SaveImages = None,
    recipe: opt.Recipe = "w8a8",
    method: opt.Method = "repq",
    nonlinear: opt.NonlinearName = "vitq",
    image_size: opt.Size = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    artifacts: opt.Artifacts = Path("artifacts"),
    budget_bytes: opt.BudgetBytes = None,
    budget_bitops: opt.BudgetBitops = None,
) -> Any:
    """What the shared options say, as `compiler.stages.quantize_options.QuantizeOptions`.

    Recipe ``mixed`` is measured (once) and allocated here, and becomes a recipe's file.
    """
    from vitq.compiler.stages.quantize_options import QuantizeOptions
    from vitq.compiler.studies.sensitivity import MIXED, mixed_options

    options = QuantizeOptions(
        model=model,
        weights=weights,
        random_weights=random_weights,
        calib=calib,
        calib_count=calib_count,
        calib_seed=calib_seed,
        calib_steps=calib_steps,
        save_images=save_images,
        recipe="w8a8" if recipe == MIXED else recipe,
        method=method,
        nonlinear=Nonlinear.parse(nonlinear),
        image_size=image_size,
        mean=opt.numbers(mean, "mean"),
        std=opt.numbers(std, "std"),
        artifacts=artifacts,
    )
    if recipe != MIXED:
        return options
    return mixed_options(options, _budget(budget_bytes, budget_bitops))


def _budget(*limits: float | None) -> Any:
    """Bytes or bit operations, as `quantization.mixed.budget.Budget`."""
    from vitq.quantization.mixed.budget import Budget

    return Budget(*(None if limit is None else int(limit) for limit in limits))


def with_quantize_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `quantize_options` before its own.

    Args:
        command: its first parameter, ``given``, is `quantize_options` with what the user gave
            filled in: ``given()`` makes the options, ``given(recipe="w4a8")`` with a change.

    Returns:
        The command with the whole signature, as typer reads it.
    """
    shared = inspect.signature(quantize_options).parameters
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        filled = {name: arguments.pop(name) for name in shared}
        command(functools.partial(quantize_options, **filled), **arguments)

    parameters = [*shared.values(), *own]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


@with_quantize_options
def quantize(given: Callable[..., Any]) -> None:
    """Quantize a PyTorch model with a few pictures, or with none."""
    from vitq.compiler.stages.quantize import quantize as stage

    typer.echo(stage(given()).folder)


@with_quantize_options
def where(
    given: Callable[..., Any],
    target: Annotated[str | None, typer.Option(help="print its library's folder instead")] = None,
    batch: opt.Batch = 1,
    untuned: opt.Untuned = False,
) -> None:
    """Print the folder of an artifact, or of a library in it, made or not."""
    from vitq.compiler.stages.compile import CompileOptions
    from vitq.compiler.studies.sensitivity import MIXED, mixed_artifact
    from vitq.compiler.target.choice import get_target

    if target is None and (batch != 1 or untuned):
        raise VitqError("--batch and --untuned tell libraries apart: give --target, too")
    asked = given.keywords  # type: ignore[attr-defined]
    if asked["recipe"] == MIXED:
        budget = _budget(asked["budget_bytes"], asked["budget_bitops"])
        artifact = mixed_artifact(given(recipe="w8a8"), budget)
    else:
        artifact = given().artifact
    if target is None:
        typer.echo(artifact.folder)
        return
    options = CompileOptions(get_target(target).name, batch, tuned=not untuned)
    typer.echo(artifact.target_folder(options.target, options.batch, options.tuned))


@with_quantize_options
def sensitivity(
    given: Callable[..., Any],
    widths: Annotated[str, typer.Option(help="to measure beside 8, with commas")] = "3,4,6",
    plot: opt.Plot = None,
    as_json: opt.Json = False,
) -> None:
    """How much narrower weights or inputs of each layer change the logits, measured."""
    from vitq.compiler.cli.sensitivity_report import plot_sensitivity, sensitivity_rows
    from vitq.compiler.studies.sensitivity import sensitivity as stage
    from vitq.compiler.support.plotting import check_plot

    check_plot("--plot", plot)
    result = stage(given(), opt.integers(widths, "widths"))
    if plot is not None:
        plot_sensitivity(result, plot)
    if as_json:
        print_json(result.to_json())
        return
    head, rows = sensitivity_rows(result)
    print_table(head, rows, f"{result.model}, {result.pictures} pictures")


@with_quantize_options
def compare_methods(
    given: Callable[..., Any],
    pictures: opt.Pictures = None,
    count: opt.EvaluateCount = None,
    backend: Annotated[
        str,
        typer.Option(
            help="fake (quantizers simulated, fast), reference (integers) or library (compiled for "
            "this machine and verified)"
        ),
    ] = "fake",
    seeds: Annotated[
        str | None, typer.Option(help="of the calibration pictures, with commas; for mean, spread")
    ] = None,
    plot: opt.Plot = None,
    as_json: opt.Json = False,
) -> None:
    """Methods x widths x calibration sources: several of --method, --recipe, --calib with commas.

    With several --seeds every combination is calibrated on as many draws of pictures. Each
    combination is kept when it is done: a run that is stopped goes on where it was.
    """
    from vitq.compiler.cli.comparison_report import comparison_rows, plot_comparison
    from vitq.compiler.studies.compare_methods import compare_methods as stage
    from vitq.compiler.support.plotting import check_plot

    check_plot("--plot", plot)
    asked = given.keywords  # type: ignore[attr-defined]
    drawn = (asked["calib_seed"],) if seeds is None else opt.integers(seeds, "seeds")
    sources = (asked["calib"] or "").split(",")
    variants = [
        given(calib=source or None, recipe=recipe, method=method, calib_seed=seed)
        for source in sources
        for recipe in asked["recipe"].split(",")
        for method in asked["method"].split(",")
        for seed in drawn
    ]
    result = stage(variants, pictures, count, backend)
    if plot is not None:
        plot_comparison(result, plot)
    if as_json:
        print_json(result.to_json())
        return
    head = ["calibration", "recipe", "method", "top-1", "top-5", "agreement", "cosine", "SQNR dB"]
    title = f"{result.model}, {result.float_row.images} pictures, backend {result.backend}"
    if len(drawn) > 1:
        title += f", mean and standard deviation over {len(drawn)} draws of calibration pictures"
    print_table(head, comparison_rows(result), title)
