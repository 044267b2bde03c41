"""`tune`, `benchmark` and `kit`: what takes time on hardware, here or elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitq.api.compile import opened
from vitq.api.library import Library
from vitq.api.quantize import Quantized
from vitq.compiler.benchmark.benchmark import BenchmarkOptions, Report
from vitq.compiler.benchmark.benchmark import benchmark as benchmark_stage
from vitq.compiler.benchmark.contestants import CONTESTANTS
from vitq.compiler.benchmark.kit import KitOptions
from vitq.compiler.benchmark.kit import kit as kit_stage
from vitq.compiler.stages.tune import TuneOptions
from vitq.compiler.stages.tune import tune as tune_stage
from vitq.compiler.target.choice import get_target
from vitq.numerics.errors import VitqError

if TYPE_CHECKING:
    from vitq.compiler.stages.tune import TuneResult


def tune(
    model: Quantized | Library | str | Path,
    *,
    target: str = "cpu",
    batch: int = 1,
    trials: int | None = None,
    minutes: float | None = None,
    threads: int = 1,
    log: str | Path | None = None,
    seed: int = 0,
    prune: bool = False,
) -> "TuneResult":
    """Search for faster schedules of a model's kernels; `compile` then uses them.

    Args:
        model: quantized, compiled, or the folder of an artifact.
        target: one whose kernels this machine can run or emulate.
        batch: static batch size.
        trials: measurements over all kernels, those in the log included; 32 for each kernel if this
            and `minutes` are None.
        minutes: how long to search.
        threads: that a kernel runs on.
        log: folder of the records, which grows; None for the target's own log, which `compile`
            reads.
        seed: of the search.
        prune: keep only the best records of each kernel.

    Returns:
        ``log``, ``tasks`` with the times of each kernel before and after, ``new_trials``,
        ``seconds``; ``untuned_us`` and ``tuned_us`` over all kernels.

    Raises:
        VitqError: nothing to tune, a target that this machine can neither run nor emulate, or
            another process tunes into the same log.

    Example:
        >>> vitq.tune(q, trials=500, log="my_log/")
        >>> lib = vitq.compile(q, tuning_log="my_log/")
    """
    source, workspace, _ = opened(model)
    options = TuneOptions(
        target=get_target(target),
        batch=batch,
        trials=trials,
        minutes=minutes,
        threads=threads,
        log=None if log is None else Path(log),
        seed=seed,
        prune=prune,
    )
    result = tune_stage(source, options)
    del workspace  # alive until here
    return result


def benchmark(
    model: Quantized | Library | str | Path,
    *,
    target: str | None = None,
    batches: Sequence[int] = (1,),
    threads: Sequence[int] = (1,),
    contestants: Sequence[str] | None = None,
    rounds: int = 20,
    profile: bool = False,
    scaling: Sequence[int] = (),
) -> Report:
    """Measure latency, throughput, memory and size beside other runtimes.

    Every contestant runs in a process of its own: a script that calls this needs
    ``if __name__ == "__main__":``.

    Args:
        model: quantized, compiled, or the folder of an artifact.
        target: None for that of a compiled model, else this machine's processor.
        batches: static batch sizes.
        threads: numbers of threads, each pinned to as many cores.
        contestants: which; None for all. What is not installed is skipped and named.
        rounds: over all contestants, in turn.
        profile: time every kernel, too.
        scaling: picture sizes to measure growth over, such as 224, 304, 384.

    Returns:
        ``machine``, ``rows`` (one for each contestant, batch and number of threads, with
        ``median_ms`` and more), ``skipped``, ``profiles``, ``scaling``.

    Raises:
        VitqError: an unknown contestant, sizes that cannot be measured, a target with a GPU (for
            one there is `kit`).

    Example:
        >>> report = vitq.benchmark(lib, contestants=["vitq-int8-tuned", "torch-float"])
        >>> [(row.name, row.median_ms) for row in report.rows]
    """
    chosen = model.target if isinstance(model, Library) and target is None else target
    if chosen is not None and get_target(chosen).gpu is not None:
        raise VitqError(
            f"target {chosen} has a GPU: vitq.kit makes a folder that measures it there"
        )
    options = BenchmarkOptions(
        target=chosen,
        batches=tuple(batches),
        threads=tuple(threads),
        contestants=tuple(CONTESTANTS) if contestants is None else tuple(contestants),
        rounds=rounds,
        profile=profile,
        scaling=tuple(scaling),
    )
    source, workspace, _ = opened(model)
    report = benchmark_stage(source, options)
    del workspace  # alive until here
    return report


def kit(
    models: Sequence[Quantized | Library | str | Path],
    out: str | Path,
    *,
    target: str = "cuda",
    batches: Sequence[int] = (1,),
    candidates: int = 0,
    architectures: Sequence[str] | None = None,
    contestants: bool = False,
) -> Path:
    """Put together what a machine with a GPU and without TVM needs: ``python3 -m gpu_kit`` there.

    Args:
        models: quantized, compiled, or folders of artifacts.
        out: folder of the kit; an earlier one is replaced.
        target: one with a GPU.
        batches: static batch sizes.
        candidates: schedules of each kernel to time there; 0 only compares and measures.
        architectures: of the GPUs, for target ``cuda``: ``["sm_75", "sm_90"]``.
        contestants: take TVM's float model and the QDQ file along (minutes).

    Returns:
        The folder.

    Raises:
        VitqError: a target without a GPU, no compiler, or other files in `out`.

    Example:
        >>> vitq.kit([q], "kit/", batches=[1, 8], candidates=24)
    """
    opening = [opened(model) for model in models]
    options = KitOptions(
        out=Path(out),
        target=get_target(target, None if architectures is None else tuple(architectures)),
        batches=tuple(batches),
        candidates=candidates,
        contestants=contestants,
    )
    return kit_stage([folder for folder, _, _ in opening], options)
