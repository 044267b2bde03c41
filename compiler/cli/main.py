"""The command line: parses, calls the API of each stage, prints its result.

Every stage is imported when its command runs: ``quantize`` needs no TVM, ``compile`` no torch, and
``vitq --help`` neither. A user's error is one line on stderr and exit code 2; anything else keeps
its traceback.
"""

import logging
import os
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer

from vitq.compiler.cli import building as cli_building
from vitq.compiler.cli import explaining as cli_explaining
from vitq.compiler.cli import measuring as cli_measuring
from vitq.compiler.cli import options as opt
from vitq.compiler.cli import quantizing as cli_quantize
from vitq.compiler.cli import running as cli_running
from vitq.compiler.cli import zoo as cli_zoo
from vitq.compiler.cli.ending import (
    BROKEN_PIPE,
    INTERRUPTED,
    MISTAKE,
    OUTPUT,
    Interrupts,
    Output,
    describe,
    is_reader_gone,
    leave,
)
from vitq.compiler.cli.report import print_artifact, print_checks, print_evaluation
from vitq.compiler.support.tables import print_json, print_table
from vitq.numerics.errors import VitqError, plain, reason

app = typer.Typer(
    help="Integer-only Vision Transformers, from PyTorch to the edge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

logger = logging.getLogger(__name__)


def _version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"vitq {version('vitq')}")
        raise typer.Exit


@app.callback()
def configure(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show DEBUG messages")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    """Set up logging: one INFO line for each stage, on stderr."""
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("vitq").setLevel(level)
    if not verbose:
        logging.getLogger("vitq.relay_passes").setLevel(logging.WARNING)
    # Pillow's, of a picture that is refused in one line.
    warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")


app.command()(cli_quantize.quantize)
app.command()(cli_quantize.where)
app.command()(cli_quantize.sensitivity)
app.command(name="compare-methods")(cli_quantize.compare_methods)
app.command()(cli_zoo.zoo)
app.command()(cli_measuring.kit)


app.command()(cli_building.export)
app.command(name="compile")(cli_building.compile_command)
app.command()(cli_measuring.tune)


@app.command()
def verify(
    folder: opt.Folder,
    pictures: opt.Pictures = None,
    count: Annotated[int, typer.Option(help="how many real pictures")] = 64,
    threads: opt.Threads = None,
    tracker: opt.TrackerAddress = None,
    key: opt.Key = None,
    emulate: opt.Emulate = False,
    as_json: opt.Json = False,
) -> None:
    """Compare the library with the integer reference, bit for bit."""
    from vitq.compiler.codegen.compiled import open_compiled
    from vitq.compiler.stages.verify import verify as stage
    from vitq.compiler.stages.verify import verify_emulated

    fleet = opt.tracker(tracker, key, lambda: open_compiled(folder).metadata["target"])
    if emulate and (pictures or fleet):
        raise VitqError("--emulate runs single kernels: leave --pictures and --tracker out")
    if emulate:
        checks = verify_emulated(folder)
    else:
        checks = stage(folder, pictures, count, threads, fleet)
    if as_json:
        print_json({"checks": [check.to_json() for check in checks]})
        return
    print_checks(checks, folder, ("kernel", "batch") if emulate else ("pictures", "number"))


@app.command()
def evaluate(
    folder: opt.Folder,
    pictures: opt.Pictures = None,
    count: Annotated[int | None, typer.Option(help="how many pictures, all if absent")] = None,
    classes: opt.Classes = None,
    backends: Annotated[
        str | None,
        typer.Option(
            help="float, onnxruntime, reference, library, with commas: each on every picture; "
            "absent: all, the reference on a few pictures"
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="all backends on every picture")] = False,
    threads: opt.Threads = None,
    as_json: opt.Json = False,
) -> None:
    """Accuracy and closeness to the float model of every step."""
    from vitq.compiler.stages.evaluate import BACKENDS
    from vitq.compiler.stages.evaluate import evaluate as stage

    if every and backends is not None:
        raise VitqError("give --all or --backends, not both")
    chosen = BACKENDS if every else opt.words(backends)
    rows = stage(folder, pictures, count, chosen, threads, classes=classes, keep=True)
    if as_json:
        print_json({"rows": [row.to_json() for row in rows]})
        return
    print_evaluation(rows, folder)


app.command()(cli_measuring.benchmark)


app.command()(cli_running.run)
app.command()(cli_explaining.explain)
app.command()(cli_explaining.report)


@app.command()
def deploy(
    folder: opt.Folder,
    out: Annotated[Path, typer.Option(help="folder of the bundle; an earlier one is replaced")],
    flavour: Annotated[
        str, typer.Option(help="vm (TVM's virtual machine) or static (plain C, no TVM)")
    ] = "vm",
    labels: Annotated[Path | None, typer.Option(help="file with a class name on each line")] = None,
    to: Annotated[
        str | None, typer.Option(help="copy it to user@host[:folder] and verify it there")
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Put a bundle together with which a device runs the model, without Python."""
    from vitq.compiler.cli.deploy_report import bundle_rows
    from vitq.compiler.deploy.bundle import DeployOptions
    from vitq.compiler.stages.deploy import deploy as stage

    bundle = stage(folder, DeployOptions(out=out, flavour=flavour, labels=labels), to)
    if as_json:
        print_json(bundle.to_json())
        return
    print_table(["bundle", str(out)], bundle_rows(bundle), "")


@app.command()
def inspect(folder: opt.Folder, as_json: opt.Json = False) -> None:
    """Show what is in an artifact: I/O, operators, scales, sizes, float islands, provenance."""
    from vitq.compiler.stages.inspect import inspect as stage

    content = stage(folder)
    if as_json:
        print_json(content)
        return
    print_artifact(content)


@app.command()
def targets(as_json: opt.Json = False) -> None:
    """List the targets."""
    from vitq.compiler.stages.targets import targets as stage

    rows = [[name, description] for name, description in stage().items()]
    if as_json:
        print_json({"targets": [{"name": name, "description": text} for name, text in rows]})
        return
    print_table(["target", "description"], rows, "")


@app.command()
def doctor(as_json: opt.Json = False) -> None:
    """Look at this machine: compilers, emulators, GPU, extras, and what each lack costs."""
    from vitq.compiler.stages.doctor import doctor as stage

    findings = stage()
    if as_json:
        print_json({"findings": [finding.to_json() for finding in findings]})
        return
    rows = [[finding.what, finding.found or "-", finding.lack] for finding in findings]
    print_table(["what", "found", "what its lack costs"], rows, "")


app.command()(cli_building.build)


def main() -> None:
    """Entry point: whatever ends the program, it is one line and a fixed exit code."""
    with Interrupts() as interrupts:
        try:
            code = _run()
        except BaseException as error:
            interrupted = interrupts.received or isinstance(error, KeyboardInterrupt)
            code = INTERRUPTED if interrupted else _report(error)
    if interrupts.received or code == INTERRUPTED:
        typer.echo("vitq: interrupted; nothing half-written is left", err=True)
        code = INTERRUPTED
    sys.exit(code)


def program() -> None:
    """Run `main` as a process of its own.

    PyTorch's idle threads sleep and do not spin: as fast alone, and several times faster beside
    other work. What is benchmarked keeps its own ways, and a user's setting counts.
    """
    if "benchmark" not in sys.argv:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        main()
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            leave(INTERRUPTED)
        raise


def _run() -> int:
    """Parse and run; typer's own runner takes every broken pipe for its output's.

    Returns:
        The exit code.
    """
    command = typer.main.get_command(app)
    output = Output(sys.stdout)
    try:
        with redirect_stdout(cast(TextIO, output)):
            with command.make_context("vitq", sys.argv[1:]) as context:
                command.invoke(context)
            output.flush()
    except typer.Exit as stop:
        return stop.exit_code
    except OSError as error:
        if error.filename == OUTPUT:
            output.abandon()
        raise
    return 0


def _report(error: BaseException) -> int:
    """Say what went wrong.

    Returns:
        The exit code.

    Raises:
        BaseException: it is nothing that a user can mend.
    """
    if is_reader_gone(error):
        return BROKEN_PIPE
    if isinstance(error, VitqError | OSError):
        line = describe(error) if isinstance(error, OSError) else plain(str(error))
        logger.debug("vitq: where it happened", exc_info=error)
        typer.echo(f"vitq: {line}", err=True)
        return MISTAKE
    if isinstance(error, MemoryError):
        said = reason(error).replace("MemoryError", "not enough of it")
        typer.echo(f"vitq: memory: {said}: give fewer pictures, a smaller batch or model", err=True)
        return MISTAKE
    show = getattr(error, "show", None)
    if show is None:
        typer.echo(
            "vitq: a mistake of the program, not yours: please report it with this", err=True
        )
        raise error
    show()  # the parser's own usage errors
    return int(getattr(error, "exit_code", MISTAKE))


if __name__ == "__main__":
    program()
