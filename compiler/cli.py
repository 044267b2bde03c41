"""The command line: parses, calls the API of each stage, prints its result.

Every stage is imported when its command runs: ``quantize`` needs no TVM, ``compile`` no torch, and
``vitq --help`` neither. A user's error is one line on stderr and exit code 2; anything else keeps
its traceback.
"""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from compiler.report import print_artifact, print_json, print_table
from numerics.errors import VitqError

app = typer.Typer(
    help="Integer-only Vision Transformers, from PyTorch to the edge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130

ModelOption = Annotated[
    str, typer.Option(help="digits_vit (embedded), a timm name, or package.module:factory")
]
WeightsOption = Annotated[Path | None, typer.Option(help="safetensors or torch checkpoint")]
SeedOption = Annotated[int | None, typer.Option(help="seed of random weights, instead of weights")]
CalibOption = Annotated[
    str | None, typer.Option(help="calibration pictures: a folder, or .npy of uint8 (N, C, H, W)")
]
CountOption = Annotated[int, typer.Option(help="how many calibration pictures")]
RecipeOption = Annotated[str, typer.Option(help="widths, w<weights>a<activations>")]
MethodOption = Annotated[str, typer.Option(help="minmax, percentile or repq")]
NonlinearOption = Annotated[str, typer.Option(help="integer Softmax and GELU: vitq or ivit")]
SizeOption = Annotated[int | None, typer.Option(help="picture size, where the model does not say")]
MeanOption = Annotated[str | None, typer.Option(help="input mean, three numbers with commas")]
StdOption = Annotated[str | None, typer.Option(help="input standard deviation, likewise")]
ArtifactsOption = Annotated[Path, typer.Option(help="root folder of all artifacts")]
TargetOption = Annotated[str, typer.Option(help="what to compile for; see vitq targets")]
BatchOption = Annotated[int, typer.Option(help="static batch size")]
ThreadsOption = Annotated[int | None, typer.Option(help="threads of the library")]
PicturesOption = Annotated[str | None, typer.Option(help="pictures: a folder or .npy")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
UntunedOption = Annotated[bool, typer.Option("--untuned", help="every kernel's default schedule")]
TuningLogOption = Annotated[
    Path | None, typer.Option(help="folder of tuning records; the shipped one if absent")
]
FolderArgument = Annotated[Path, typer.Argument(help="the artifact's folder, or a target's in it")]


@app.callback()
def configure(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show DEBUG messages")] = False,
) -> None:
    """Set up logging: one INFO line for each stage, on stderr."""
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for package in ("compiler", "quantization", "export", "relay_passes"):
        logging.getLogger(package).setLevel(level)
    if not verbose:
        logging.getLogger("relay_passes").setLevel(logging.WARNING)


def _numbers(text: str | None, name: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise VitqError(f"--{name} {text!r}: write numbers with commas, 0.5,0.5,0.5") from error


@app.command()
def quantize(
    model: ModelOption = "digits_vit",
    weights: WeightsOption = None,
    random_weights: SeedOption = None,
    calib: CalibOption = None,
    calib_count: CountOption = 32,
    recipe: RecipeOption = "w8a8",
    method: MethodOption = "repq",
    nonlinear: NonlinearOption = "vitq",
    image_size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    artifacts: ArtifactsOption = Path("artifacts"),
) -> None:
    """Quantize a PyTorch model with a few pictures."""
    from compiler.quantize import quantize as stage

    options = _quantize_options(
        model, weights, random_weights, calib, calib_count, recipe, method, nonlinear,
        image_size, mean, std, artifacts,
    )  # fmt: skip
    typer.echo(stage(options).folder)


def _quantize_options(
    model: str,
    weights: Path | None,
    random_weights: int | None,
    calib: str | None,
    calib_count: int,
    recipe: str,
    method: str,
    nonlinear: Any,
    image_size: int | None,
    mean: str | None,
    std: str | None,
    artifacts: Path,
) -> Any:
    from compiler.quantize import QuantizeOptions

    return QuantizeOptions(
        model, weights, random_weights, calib, calib_count, recipe, method, nonlinear,
        image_size, _numbers(mean, "mean"), _numbers(std, "std"), artifacts,
    )  # fmt: skip


@app.command()
def export(folder: FolderArgument) -> None:
    """Write the quantized model as ONNX QDQ and measure its parity with PyTorch."""
    from compiler.artifacts import open_artifact
    from compiler.export import export as stage

    artifact = open_artifact(folder)
    stage(artifact)
    typer.echo(artifact.onnx)


@app.command(name="compile")
def compile_command(
    source: Annotated[Path, typer.Argument(help="the artifact's folder, or a QDQ .onnx file")],
    target: TargetOption = "cpu",
    batch: BatchOption = 1,
    mean: MeanOption = None,
    std: StdOption = None,
    nonlinear: Annotated[str | None, typer.Option(help="overrides the file's metadata")] = None,
    debug_dump: Annotated[Path | None, typer.Option(help="folder for the IR of each pass")] = None,
    artifacts: ArtifactsOption = Path("artifacts"),
    untuned: UntunedOption = False,
    tuning_log: TuningLogOption = None,
) -> None:
    """Compile a QDQ model to an integer-only library."""
    from compiler.compile import CompileOptions, compile_model

    normalization = _numbers(mean, "mean"), _numbers(std, "std")
    options = CompileOptions(
        target, batch, *normalization, _nonlinear(nonlinear), debug_dump, artifacts,
        not untuned, tuning_log,
    )  # fmt: skip
    typer.echo(compile_model(source, options))


def _nonlinear(name: str | None) -> Any:
    if name not in (None, "vitq", "ivit"):
        raise VitqError(f"--nonlinear {name!r}: choose vitq or ivit")
    return name


@app.command()
def tune(
    folder: FolderArgument,
    target: TargetOption = "cpu",
    batch: BatchOption = 1,
    trials: Annotated[
        int | None, typer.Option(help="measurements over all kernels, those in the log included")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="how long to search")] = None,
    threads: Annotated[int, typer.Option(help="threads of a kernel")] = 1,
    log: Annotated[
        Path | None, typer.Option(help="folder of the records; the shipped one if absent")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the search")] = 0,
    prune: Annotated[bool, typer.Option("--prune", help="keep only the best records")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search for faster schedules of a model's kernels; compile then uses them."""
    from compiler.report import print_tuning
    from compiler.tune import TuneOptions
    from compiler.tune import tune as stage

    options = TuneOptions(target, batch, trials, minutes, threads, log, seed, prune)
    result = stage(folder, options)
    if as_json:
        print_json(result.to_json())
        return
    print_tuning(result)


@app.command()
def verify(
    folder: FolderArgument,
    pictures: PicturesOption = None,
    count: Annotated[int, typer.Option(help="how many real pictures")] = 64,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the library with the integer reference, bit for bit."""
    from compiler.verify import verify as stage

    checks = stage(folder, pictures, count, threads)
    if as_json:
        print_json({"checks": [check.to_json() for check in checks]})
        return
    print_table(
        ["pictures", "number", "integers", "different", "against"],
        [[c.name, str(c.pictures), str(c.values), str(c.different), c.against] for c in checks],
        f"bit-exact: {folder}",
    )


@app.command()
def evaluate(
    folder: FolderArgument,
    pictures: PicturesOption = None,
    count: Annotated[int | None, typer.Option(help="how many pictures, all if absent")] = None,
    backends: Annotated[
        str, typer.Option(help="which, with commas")
    ] = "float,onnxruntime,reference,library",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Accuracy and closeness to the float model of every step."""
    from compiler.evaluate import evaluate as stage
    from compiler.evaluate import table_rows

    rows = stage(folder, pictures, count, tuple(backends.split(",")), threads)
    if as_json:
        print_json({"rows": [row.to_json() for row in rows]})
        return
    head = ["backend", "top-1", "top-5", "agreement", "cosine", "SQNR dB", "seconds"]
    print_table(head, list(table_rows(rows)), f"{rows[0].images} pictures: {folder}")


@app.command()
def benchmark(
    folder: FolderArgument,
    target: Annotated[
        str | None, typer.Option(help="as for compile; the folder's own if absent")
    ] = None,
    batch: Annotated[str, typer.Option(help="batch sizes, with commas")] = "1",
    threads: Annotated[str, typer.Option(help="numbers of threads (pinned cores)")] = "1",
    contestants: Annotated[
        str | None, typer.Option(help="which, with commas; all if absent")
    ] = None,
    rounds: Annotated[int, typer.Option(help="over all contestants, in turn")] = 20,
    profile: Annotated[bool, typer.Option("--profile", help="time every kernel")] = False,
    scaling: Annotated[
        str | None, typer.Option(help="picture sizes to measure growth over: 224,304,384")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="picture of the latencies to write")] = None,
    roofline: Annotated[Path | None, typer.Option(help="roofline picture to write")] = None,
    as_json: JsonOption = False,
) -> None:
    """Latency, throughput, memory and size beside other runtimes; a profile against the peak."""
    from compiler.benchmark.show import BenchmarkRequest, run_benchmark

    request = BenchmarkRequest(
        target, batch, threads, contestants, rounds, profile, scaling, plot, roofline, as_json
    )
    run_benchmark(folder, request)


@app.command()
def run(
    folder: FolderArgument,
    input_path: Annotated[Path, typer.Option("--input", help=".npy, uint8 (N, C, H, W)")],
    output_path: Annotated[Path, typer.Option("--output", help=".npy to write")],
    raw: Annotated[bool, typer.Option("--raw", help="write integer codes, not logits")] = False,
    backend: Annotated[str, typer.Option(help="library or reference")] = "library",
    threads: ThreadsOption = None,
) -> None:
    """Run raw pixels through a compiled model."""
    from compiler.run import run as stage

    if backend not in ("library", "reference"):
        raise VitqError(f"--backend {backend!r}: choose library or reference")
    stage(folder, input_path, output_path, raw, "library" if backend == "library" else "reference",
          threads)  # fmt: skip
    typer.echo(output_path)


@app.command()
def deploy(
    folder: FolderArgument,
    out: Annotated[Path, typer.Option(help="folder of the bundle; an earlier one is replaced")],
    flavour: Annotated[
        str, typer.Option(help="vm (TVM's virtual machine) or static (plain C, no TVM)")
    ] = "vm",
    labels: Annotated[Path | None, typer.Option(help="file with a class name on each line")] = None,
    to: Annotated[
        str | None, typer.Option(help="copy it to user@host[:folder] and verify it there")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a bundle together with which a device runs the model, without Python."""
    from compiler.deploy.bundle import DeployOptions
    from compiler.deploy.bundle import deploy as stage
    from compiler.deploy.device import send
    from compiler.deploy.show import bundle_rows

    bundle = stage(folder, DeployOptions(out, flavour, labels))
    said = send(out, to) if to else None
    if as_json:
        print_json(bundle.to_json() | {"device": said})
        return
    print_table(["bundle", str(out)], bundle_rows(bundle, said), "")


@app.command()
def inspect(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Show what is in an artifact: I/O, operators, scales, sizes, float islands, provenance."""
    from compiler.inspection import inspect as stage

    content = stage(folder)
    if as_json:
        print_json(content)
        return
    print_artifact(content)


@app.command()
def targets(as_json: JsonOption = False) -> None:
    """List the targets."""
    from compiler.targets import TARGETS, get_target

    native = get_target("cpu").description
    rows = [["cpu", f"this machine: {native}"]]
    rows += [[target.name, target.description] for target in TARGETS.values()]
    if as_json:
        print_json({"targets": [{"name": name, "description": text} for name, text in rows]})
        return
    print_table(["target", "description"], rows, "")


@app.command()
def build(
    model: ModelOption = "digits_vit",
    target: TargetOption = "cpu",
    batch: BatchOption = 1,
    weights: WeightsOption = None,
    random_weights: SeedOption = None,
    calib: CalibOption = None,
    calib_count: CountOption = 32,
    recipe: RecipeOption = "w8a8",
    method: MethodOption = "repq",
    nonlinear: NonlinearOption = "vitq",
    pictures: PicturesOption = None,
    count: Annotated[int | None, typer.Option(help="how many pictures to evaluate")] = None,
    image_size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    artifacts: ArtifactsOption = Path("artifacts"),
    threads: ThreadsOption = None,
    untuned: UntunedOption = False,
    tuning_log: TuningLogOption = None,
) -> None:
    """The whole job: quantize, export, compile, verify, evaluate."""
    from compiler.compile import CompileOptions, compile_model
    from compiler.export import export as export_stage
    from compiler.quantize import quantize as quantize_stage
    from compiler.run import open_compiled
    from compiler.targets import get_target

    get_target(target)  # a typo should not cost a calibration
    options = _quantize_options(
        model, weights, random_weights, calib, calib_count, recipe, method, nonlinear,
        image_size, mean, std, artifacts,
    )  # fmt: skip
    artifact = quantize_stage(options)
    export_stage(artifact)
    compiling = CompileOptions(target, batch, tuned=not untuned, tuning_log=tuning_log)
    folder = compile_model(artifact.folder, compiling)
    verify(folder, pictures, threads=threads)
    if pictures is None and open_compiled(folder).own_pictures is None:
        typer.echo("evaluate: skipped, no --pictures to evaluate on", err=True)
    else:
        evaluate(folder, pictures, count, threads=threads)
    typer.echo(folder)


def main() -> None:
    """Entry point: user errors become one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except VitqError as error:
        line = " ".join(str(error).split())
        typer.echo(f"vitq: {line}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()  # the parser's own usage errors
        sys.exit(getattr(error, "exit_code", 2))
    if code == INTERRUPTED:  # typer returns it for Ctrl-C
        typer.echo("vitq: interrupted; nothing half-written is left", err=True)
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
