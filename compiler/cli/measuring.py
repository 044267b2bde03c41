"""Commands that take time on hardware: tune, benchmark, kit."""

from pathlib import Path
from typing import Annotated

import typer

from vitq.compiler.cli import options as opt
from vitq.compiler.support.tables import print_json


def tune(
    folder: opt.Folder,
    target: opt.Target = "cpu",
    batch: opt.Batch = 1,
    trials: Annotated[
        int | None, typer.Option(help="measurements over all kernels, those in the log included")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="how long to search")] = None,
    threads: Annotated[int, typer.Option(help="threads of a kernel")] = 1,
    log: Annotated[
        Path | None,
        typer.Option(
            help="folder of the records; a checkout's tuning_logs, or the user's, if absent"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="of the search")] = 0,
    prune: Annotated[bool, typer.Option("--prune", help="keep only the best records")] = False,
    tracker: opt.TrackerAddress = None,
    key: opt.Key = None,
    results: Annotated[
        Path | None, typer.Option(help="results.json of a kit that ran on a GPU machine")
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Search for faster schedules of a model's kernels; compile then uses them."""
    from vitq.compiler.cli.report import print_tuning
    from vitq.compiler.stages.tune import TuneOptions
    from vitq.compiler.stages.tune import tune as stage
    from vitq.compiler.target.choice import get_target

    fleet = opt.tracker(tracker, key, lambda: target)
    options = TuneOptions(
        target=get_target(target),
        batch=batch,
        trials=trials,
        minutes=minutes,
        threads=threads,
        log=log,
        seed=seed,
        prune=prune,
        tracker=fleet,
        results=results,
    )
    result = stage(folder, options)
    if as_json:
        print_json(result.to_json())
        return
    print_tuning(result)


def benchmark(
    folders: opt.Folders,
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
    tracker: opt.TrackerAddress = None,
    key: opt.Key = None,
    as_json: opt.Json = False,
) -> None:
    """Latency, throughput, memory and size beside other runtimes; a profile against the peak."""
    from vitq.compiler.cli.benchmark_report import BenchmarkRequest, run_benchmark

    request = BenchmarkRequest(
        target, batch, threads, contestants, rounds, profile, scaling, plot, roofline, as_json,
        opt.tracker(tracker, key, lambda: target or ""), tuple(folders[1:]),
    )  # fmt: skip
    run_benchmark(folders[0], request)


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
    as_json: opt.Json = False,
) -> None:
    """Make what a machine with a GPU and without TVM needs: there, python3 -m gpu_kit."""
    from vitq.compiler.benchmark.kit import KitOptions
    from vitq.compiler.benchmark.kit import kit as stage
    from vitq.compiler.target.choice import get_target

    batches = opt.integers(batch, "batch")
    options = KitOptions(
        out=out,
        target=get_target(target, opt.words(arch)),
        batches=batches,
        candidates=candidates,
        contestants=contestants,
    )
    made = stage(folders, options)
    if as_json:
        print_json({"folder": str(made)})
        return
    typer.echo(made)
