"""From the command line's texts to the stage, and from its report to tables, JSON and pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitq.compiler.benchmark.benchmark import BenchmarkOptions, Report, benchmark
from vitq.compiler.benchmark.contestants import CONTESTANTS
from vitq.compiler.cli.options import integers
from vitq.compiler.support.artifacts import METADATA_NAME, read_json
from vitq.compiler.support.plotting import check_plot
from vitq.compiler.target.choice import get_target
from vitq.numerics.errors import VitqError

DIGITS = 5


@dataclass(frozen=True)
class BenchmarkRequest:
    """The command's options as they were written; see ``vitq benchmark --help``."""

    target: str | None
    batch: str
    threads: str
    contestants: str | None
    rounds: int
    profile: bool
    scaling: str | None
    plot: Path | None
    roofline: Path | None
    as_json: bool
    tracker: Any = None
    beside: tuple[Path, ...] = ()

    def options(self) -> BenchmarkOptions:
        """Parse what was given.

        Raises:
            VitqError: naming the option that is wrong.
        """
        for name, path in (("--plot", self.plot), ("--roofline", self.roofline)):
            check_plot(name, path)
        names = tuple(CONTESTANTS)
        if self.contestants is not None:
            names = tuple(name for name in self.contestants.split(",") if name)
        return BenchmarkOptions(
            self.target,
            integers(self.batch, "batch"),
            integers(self.threads, "threads"),
            names,
            self.rounds,
            self.profile or self.roofline is not None,
            () if self.scaling is None else integers(self.scaling, "scaling"),
            self.tracker,
            self.beside,
        )


def run_benchmark(folder: Path, request: BenchmarkRequest) -> None:
    """Run the stage and show its report in every form that was asked for."""
    if request.target is not None and get_target(request.target).gpu is not None:
        if request.beside:
            raise VitqError(f"several artifacts: not for {request.target}, vitq kit takes them")
        _run_on_gpu(folder, request, request.target)
        return
    report = benchmark(folder, request.options())
    if report.rows and request.tracker is None:
        _keep(folder, report, request.target)
    if request.as_json:
        from vitq.compiler.support.tables import print_json

        print_json(rounded(report.to_json()))
    else:
        from vitq.compiler.cli.benchmark_tables import print_report

        print_report(report)
    if request.plot is not None and report.rows:
        from vitq.compiler.cli.benchmark_plots import plot_rows

        plot_rows(report.rows, report.machine, request.plot, _model(report))
    if request.roofline is not None and report.profiles:
        from vitq.compiler.cli.benchmark_plots import plot_roofline

        plot_roofline(report.profiles[0], report.machine, request.roofline, _model(report))


def _model(report: Report) -> str:
    """Return model and recipe, which an artifact's folder is called by."""
    return " ".join(report.artifact.resolve().parts[-2:])


def _keep(folder: Path, report: Report, target: str | None) -> None:
    """Keep the rows of this artifact for ``vitq report``."""
    from vitq.compiler.stages.records import keep_benchmark

    metadata = folder / METADATA_NAME
    if target is None:
        target = read_json(metadata)["target"] if metadata.is_file() else "cpu"
    rows = [row.to_json() for row in report.rows]
    keep_benchmark(folder, target, report.machine.get("processor", "unknown"), rows)


def _run_on_gpu(folder: Path, request: BenchmarkRequest, target: str) -> None:
    from vitq.compiler.benchmark.on_gpu import benchmark_gpu, table_rows
    from vitq.compiler.support.tables import print_json, print_table

    batches = integers(request.batch, "batch")
    content = benchmark_gpu(folder, target, batches, request.rounds)
    if request.as_json:
        print_json(rounded(content))
        return
    head = ["model", "batch", "contestant", "median ms", "p95 ms", "images/s", "vitq / this"]
    print_table(head, table_rows(content), str(content["gpu"]))


def rounded(content: Any) -> Any:
    """JSON-able content with its floats at `DIGITS` significant digits."""
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [rounded(value) for value in content]
    return float(f"{content:.{DIGITS}g}") if isinstance(content, float) else content
