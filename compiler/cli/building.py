"""Commands that make a library: export, compile, and build, which does the whole job."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vitq.compiler.cli import options as opt
from vitq.compiler.cli.quantizing import with_quantize_options
from vitq.compiler.cli.report import print_checks, print_evaluation
from vitq.compiler.support.tables import print_json


def export(folder: opt.Folder, as_json: opt.Json = False) -> None:
    """Write the quantized model as ONNX QDQ and measure its parity with PyTorch."""
    from vitq.compiler.stages.export import export as stage
    from vitq.compiler.support.artifacts import open_artifact

    artifact = open_artifact(folder)
    content = stage(artifact)
    if as_json:
        print_json({"onnx": str(artifact.onnx), **content})
        return
    typer.echo(artifact.onnx)


def compile_command(
    source: Annotated[Path, typer.Argument(help="the artifact's folder, or a QDQ .onnx file")],
    target: opt.Target = "cpu",
    batch: opt.Batch = 1,
    mean: opt.Mean = None,
    std: opt.Std = None,
    preprocessor: opt.Preprocessor = None,
    crop_fraction: opt.CropFraction = None,
    resize: opt.Resizing = None,
    interpolation: opt.Filter = None,
    color: opt.Channels = None,
    nonlinear: Annotated[str | None, typer.Option(help="overrides the file's metadata")] = None,
    debug_dump: Annotated[Path | None, typer.Option(help="folder for the IR of each pass")] = None,
    artifacts: opt.Artifacts = Path("artifacts"),
    untuned: opt.Untuned = False,
    tuning_log: opt.TuningLog = None,
    arch: opt.Arch = None,
    as_json: opt.Json = False,
) -> None:
    """Compile a QDQ model to an integer-only library."""
    from vitq.compiler.stages.compile import CompileOptions, compile_model
    from vitq.compiler.support.artifacts import METADATA_NAME, read_json
    from vitq.compiler.target.choice import get_target

    options = CompileOptions(
        target=get_target(target, opt.words(arch)),
        batch=batch,
        mean=opt.numbers(mean, "mean"),
        std=opt.numbers(std, "std"),
        pictures=opt.pictures(preprocessor, crop_fraction, resize, interpolation, color),
        nonlinear=opt.family(nonlinear),
        debug_dump=debug_dump,
        artifacts=artifacts,
        tuned=not untuned,
        tuning_log=tuning_log,
    )
    folder = compile_model(source, options)
    if as_json:
        print_json({"folder": str(folder), **read_json(folder / METADATA_NAME)})
        return
    typer.echo(folder)


@with_quantize_options
def build(
    given: Callable[..., Any],
    target: opt.Target = "cpu",
    batch: opt.Batch = 1,
    pictures: opt.Pictures = None,
    count: Annotated[int | None, typer.Option(help="how many pictures to evaluate")] = None,
    classes: opt.Classes = None,
    threads: opt.Threads = None,
    untuned: opt.Untuned = False,
    tuning_log: opt.TuningLog = None,
    arch: opt.Arch = None,
    as_json: opt.Json = False,
) -> None:
    """Do the whole job: quantize, export, compile, verify, evaluate."""
    from vitq.compiler.stages.build import build as stage
    from vitq.compiler.stages.compile import CompileOptions
    from vitq.compiler.target.choice import get_target

    compiling = CompileOptions(
        target=get_target(target, opt.words(arch)),
        batch=batch,
        tuned=not untuned,
        tuning_log=tuning_log,
    )
    built = stage(given(), compiling, pictures, count, threads, classes)
    if as_json:
        print_json(built.to_json())
        return
    if built.checks:
        print_checks(built.checks, built.folder, ("pictures", "number"))
    for line in built.skipped:
        typer.echo(line, err=True)
    if built.rows:
        print_evaluation(built.rows, built.folder)
    typer.echo(built.folder)
