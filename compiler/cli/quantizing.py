"""Commands around quantization, and the options that all of them share."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from vitq.compiler.cli import options as opt
from vitq.compiler.stages.quantize_options import Option, QuantizeOptions
from vitq.compiler.support.limits import check_number
from vitq.compiler.support.tables import print_json, print_table
from vitq.numerics.errors import VitqError
from vitq.quantization.model.names import parse_kwargs

if TYPE_CHECKING:
    from vitq.compiler.studies.compare_methods import Comparison

TEXTS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "calib": (str | None, lambda text: text),
    "preprocessor": (Path | None, lambda path: path),
    "image_size": (str | None, opt.image_size),
    "mean": (str | None, functools.partial(opt.numbers, name="mean")),
    "std": (str | None, functools.partial(opt.numbers, name="std")),
    "output_features": (str | None, lambda text: () if text is None else tuple(text.split(","))),
    "model_kwargs": (list[str] | None, lambda texts: parse_kwargs(texts or ())),
}
"""What is text on the command line and something else in the options: its type, what reads it."""
LARGEST_BUDGET = 1e18
BUDGET = {"budget_bytes": opt.BudgetBytes, "budget_bitops": opt.BudgetBitops}


def _shared() -> dict[str, inspect.Parameter]:
    """Return the options that all commands around quantization take, as typer reads them."""
    kinds: dict[str, tuple[Any, Any]] = {}
    read = inspect.signature(QuantizeOptions.parse).parameters
    fields, texts = (
        get_type_hints(source, include_extras=True)
        for source in (QuantizeOptions, QuantizeOptions.parse)
    )
    for name, hint in {**fields, **texts}.items():
        option = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Option)), None)
        if option is None:
            continue
        kind = TEXTS[name][0] if name in TEXTS else hint.__origin__
        default = read[name].default if name in read else getattr(QuantizeOptions, name)
        if name in TEXTS and default == ():
            default = None  # as a text it would be "()"
        kinds[name] = (Annotated[kind, typer.Option(help=option.help)], default)
    kinds |= {name: (kind, None) for name, kind in BUDGET.items()}
    return {
        name: inspect.Parameter(
            name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind
        )
        for name, (kind, default) in kinds.items()
    }


SHARED = _shared()


def quantize_options(**given: Any) -> Any:
    """Return what the shared options say, as `compiler.stages.quantize_options.QuantizeOptions`.

    Recipe ``mixed`` is measured (once) and allocated here, and becomes a recipe's file.

    Args:
        given: a value for each of `SHARED`, as typer read it.
    """
    from vitq.compiler.studies.sensitivity import MIXED, mixed_options

    read = {
        name: TEXTS[name][1](given[name]) if name in TEXTS else given[name]
        for name in SHARED
        if name not in BUDGET
    }
    if given["recipe"] != MIXED:
        return QuantizeOptions.parse(**read)
    budget = _budget(*(given[name] for name in BUDGET))
    return mixed_options(QuantizeOptions.parse(**{**read, "recipe": "w8a8"}), budget)


def _budget(*limits: float | None) -> Any:
    """Bytes or bit operations, as `quantization.mixed.budget.Budget`."""
    from vitq.quantization.mixed.budget import Budget

    for name, limit in zip(BUDGET, limits, strict=True):
        check_number(f"--{name.replace('_', '-')}", limit, 1, LARGEST_BUDGET)
    return Budget(*(None if limit is None else int(limit) for limit in limits))


def with_quantize_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `quantize_options` before its own.

    Args:
        command: its first parameter, ``given``, is `quantize_options` with what the user gave
            filled in: ``given()`` makes the options, ``given(recipe="w4a8")`` with a change.

    Returns:
        The command with the whole signature, as typer reads it.
    """
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        filled = {name: arguments.pop(name) for name in SHARED}
        command(functools.partial(quantize_options, **filled), **arguments)

    parameters = [*SHARED.values(), *own]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


@with_quantize_options
def quantize(given: Callable[..., Any], as_json: opt.Json = False) -> None:
    """Quantize a PyTorch model with a few pictures, or with none."""
    from vitq.compiler.stages.quantize import quantize as stage
    from vitq.compiler.support.artifacts import QUANTIZE_NAME, read_json

    folder = stage(given()).folder
    if as_json:
        facts = read_json(folder / QUANTIZE_NAME)["provenance"]
        print_json({"folder": str(folder), "provenance": facts})
        return
    typer.echo(folder)


@with_quantize_options
def where(
    given: Callable[..., Any],
    target: Annotated[str | None, typer.Option(help="print its library's folder instead")] = None,
    batch: opt.Batch = 1,
    untuned: opt.Untuned = False,
    as_json: opt.Json = False,
) -> None:
    """Print the folder of an artifact, or of a library in it, made or not."""
    from vitq.compiler.stages.compile import CompileOptions
    from vitq.compiler.stages.where import where as stage
    from vitq.compiler.studies.sensitivity import MIXED
    from vitq.compiler.target.choice import get_target

    if target is None and (batch != 1 or untuned):
        raise VitqError("--batch and --untuned tell libraries apart: give --target, too")
    asked, budget = given.keywords, None  # type: ignore[attr-defined]
    if asked["recipe"] == MIXED:
        budget = _budget(asked["budget_bytes"], asked["budget_bitops"])
        given = functools.partial(given, recipe="w8a8")
    library = None
    if target is not None:
        library = CompileOptions(target=get_target(target), batch=batch, tuned=not untuned)
    folder = stage(given(), library, budget)
    if as_json:
        print_json({"folder": str(folder)})
        return
    typer.echo(folder)


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
    if as_json:
        print_json(result.to_json())
    else:
        head, rows = sensitivity_rows(result)
        print_table(head, rows, f"{result.model}, {result.pictures} pictures")
    if plot is not None:
        plot_sensitivity(result, plot)


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
    if as_json:
        print_json(result.to_json())
    else:
        _print_comparison(result, comparison_rows(result), len(drawn))
    if plot is not None:
        plot_comparison(result, plot)


def _print_comparison(result: "Comparison", rows: list[list[str]], draws: int) -> None:
    """Show a comparison, of one or of several draws."""
    head = ["calibration", "recipe", "method", "top-1", "top-5", "agreement", "cosine", "SQNR dB"]
    title = f"{result.model}, {result.float_row.images} pictures, backend {result.backend}"
    if draws > 1:
        title += f", mean and standard deviation over {draws} draws of calibration pictures"
    print_table(head, rows, title)
