"""One cell of the zoo: a model at a recipe for a target, from PyTorch to proven integers.

    quantize -> export -> compile -> proof of the integers -> time, and accuracy with pictures

How the integers are proven depends on the machine: it runs the library (`verify`), or an emulator
runs a static bundle of the same kernels on the same random and extreme pictures, or the kernels of
a GPU run one by one (`verify --emulate`).
"""

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.codegen.compiled import Compiled, open_compiled
from vitq.compiler.codegen.hardware import can_run_here
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.evaluate import evaluate
from vitq.compiler.stages.export import export
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.scores import Row
from vitq.compiler.stages.verify import IntegersDifferError, made_pictures, verify, verify_emulated
from vitq.compiler.support.artifacts import LIBRARY_NAME
from vitq.compiler.target.host import host_cpu
from vitq.compiler.target.table import Target
from vitq.numerics.errors import VitqError, reason
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.pictures.pictures import EVALUATION, open_pictures
from vitq.quantization.pictures.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

FOLDER_PREFIX = "vitq-zoo."
VERIFIED = 8
"""Real pictures of which every integer is compared, where there are some."""
WARM_UP, ROUNDS, ENOUGH_S = 1, 20, 2.0
"""Runs that are timed end after so many, or so much time."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a cell is to be.

    Attributes:
        options: of the quantized model.
        weights: whose weights these are, in words.
        target: to compile for.
        batch: static batch size.
        pictures: to evaluate on; None for the embedded model's own, or none.
        count: how many of them, None for all.
    """

    options: QuantizeOptions
    weights: str
    target: Target
    batch: int
    pictures: str | GivenPictures | None
    count: int | None

    @property
    def title(self) -> str:
        """What the cell is called in a message."""
        size = "" if self.batch == 1 else f", batch {self.batch}"
        name = titled(self.options.model, asked(self.options))
        return f"{name} {self.options.recipe.name} {self.target.name}{size}"


def asked(options: QuantizeOptions) -> dict[str, Any]:
    """Return what a model is built with beside its name."""
    size = {} if options.image_size is None else {"image_size": list(options.image_size)}
    return {**options.model_arguments, **size}


def titled(model: str, arguments: Mapping[str, Any]) -> str:
    """Return a model's name with the arguments that it was built with: ``NAME(depth=2)``."""
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{model}({given})" if given else model


@dataclass(frozen=True, kw_only=True)
class ZooCell:
    """What became of one.

    Attributes:
        model: its name.
        recipe: widths.
        method: of calibration.
        calibration: source of its pictures.
        target: compiled for.
        batch: static batch size.
        weights: whose, in words.
        stage: that refused the model, or where integers differed; None where all went well.
        refused: why.
        differs: whether it was refused because integers differ.
        float_operators: left in the integer module.
        proven: how the integers were compared: ``library``, ``emulated``, ``kernels``, or why not.
        compared: integers, none of which differs.
        size_bytes: of the library.
        latency_ms: median of a batch on one thread, where this machine runs it; beside other work.
        seconds: that the whole cell took.
        row: of the evaluation; None without pictures.
        float_top1: right answers of the float model, None without labels.
        machine: processor that it ran on.
        arguments: that the model was built with, beside its name.
    """

    model: str
    recipe: str
    method: str
    calibration: str
    target: str
    batch: int
    weights: str
    stage: str | None = None
    refused: str | None = None
    differs: bool = False
    float_operators: int | None = None
    proven: str | None = None
    compared: int | None = None
    size_bytes: int | None = None
    latency_ms: float | None = None
    seconds: float = 0.0
    row: Row | None = None
    float_top1: int | None = None
    machine: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "ZooCell":
        """Read what `to_json` made."""
        row = content["row"]
        return cls(**{**content, "row": None if row is None else Row.from_json(row)})


def blank(plan: Plan) -> ZooCell:
    """Return a cell of which nothing is known yet."""
    options = plan.options
    return ZooCell(
        model=options.model, recipe=options.recipe.name, method=options.method.name,
        calibration=options.calibration_name, target=plan.target.name, batch=plan.batch,
        weights=plan.weights, arguments=asked(options),
    )  # fmt: skip


def run_cell(plan: Plan) -> ZooCell:
    """Run all stages of a cell; whatever is refused, or fails, is told in it."""
    started = time.perf_counter()
    work = _Work(plan)
    try:
        work.run()
    except IntegersDifferError as error:
        work.cell = replace(work.cell, refused=str(error), differs=True)
    except (VitqError, OSError) as error:
        work.cell = replace(work.cell, refused=str(error))
    except Exception as error:
        logger.exception("zoo: %s: a mistake of the program", plan.title)
        work.cell = replace(work.cell, refused=f"a mistake of the program: {_where(error)}")
    stage = None if work.cell.refused is None else work.stage
    seconds = round(time.perf_counter() - started, 1)
    return replace(work.cell, stage=stage, seconds=seconds, machine=host_cpu())


def _where(error: Exception) -> str:
    """Return an exception and the line of the project that it came from, in one line."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if "vitq" in path.parts:
            place = f" ({path.name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {reason(error)}{place}"


class _Work:
    """The stages of one cell; `stage` is the one that runs, `cell` what is known so far."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self.stage, self.cell = plan, "quantize", blank(plan)

    def run(self) -> None:
        plan = self._plan
        artifact = quantize(plan.options, self._meet)
        self.stage = "export"
        export(artifact)
        self.stage = "compile"
        options = CompileOptions(target=plan.target, batch=plan.batch)
        compiled = open_compiled(compile_model(artifact.folder, options))
        self.cell = replace(
            self.cell,
            float_operators=len(compiled.metadata["float_islands"]),
            size_bytes=(compiled.folder / LIBRARY_NAME).stat().st_size,
        )
        self.stage = "verify"
        proven, compared = _proof(compiled, plan.pictures)
        self.cell = replace(self.cell, proven=proven, compared=compared)
        runs_here = can_run_here(plan.target)
        if runs_here:
            self.cell = replace(self.cell, latency_ms=_latency_ms(compiled))
        self.stage = "evaluate"
        if plan.pictures is not None or compiled.own_pictures is not None:
            self._evaluate(compiled, "library" if runs_here else "reference")

    def _meet(self, classes: int | None, prep: Preprocessing) -> None:
        """Refuse pictures that are not for this model before it is quantized."""
        pictures, count = self._plan.pictures, self._plan.count
        if pictures is not None:
            open_pictures(pictures, prep, count, EVALUATION, 0, None, classes, is_said=False)

    def _evaluate(self, compiled: Compiled, backend: str) -> None:
        plan = self._plan
        rows = evaluate(compiled.folder, plan.pictures, plan.count, ("float", backend), 1)
        named = {row.name: row for row in rows}
        self.cell = replace(self.cell, row=named[backend], float_top1=named["float"].top1)


def _proof(compiled: Compiled, pictures: str | GivenPictures | None) -> tuple[str, int]:
    """Compare integers as this machine can.

    Returns:
        How, or why it cannot; and how many.

    Raises:
        IntegersDifferError: if one differs.
    """
    target = compiled.target
    if can_run_here(target):
        checks = verify(compiled.folder, pictures, VERIFIED, 1)
        return "library", sum(check.values for check in checks)
    if target.gpu is not None:
        return "kernels", sum(check.values for check in verify_emulated(compiled.folder))
    from vitq.compiler.target.qemu import why_not

    missing = "no emulator of its processor" if target.emulation is None else why_not(target)
    return (missing, 0) if missing else ("emulated", _emulated(compiled))


def _emulated(compiled: Compiled) -> int:
    """Run a bundle under an emulator, on its golden, random and extreme pictures."""
    from vitq.compiler.deploy.bundle import RUNNER, DeployOptions, write_bundle
    from vitq.compiler.target.qemu import EMULATOR, SYSTEM_ROOT
    from vitq.compiler.target.tools import run_tool

    emulation = compiled.target.emulation
    assert emulation is not None
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX) as scratch:
        folder = Path(scratch)
        bundle = write_bundle(
            compiled.folder, DeployOptions(out=folder / "bundle", flavour="static")
        )
        golden = np.load(bundle.folder / "golden_codes.npy")
        channels, height, width = compiled.input_shape[1:]
        pixels = np.concatenate([made for _, made in made_pictures((channels, height, width))])
        np.save(folder / "made.npy", pixels)
        start = [EMULATOR, "-L", str(SYSTEM_ROOT), "-cpu", emulation.cpu]
        command = [*start, str(bundle.folder / RUNNER), "infer", "--raw", str(folder / "made.npy")]
        said = run_tool(command, "running the bundle")
    wanted = compiled.reference()(pixels)
    found = np.array(said.split(), np.int64).reshape(wanted.shape)
    different = int(np.count_nonzero(found != wanted))
    if different:
        raise IntegersDifferError(
            f"{compiled.folder}: {different} of {wanted.size} integers differ from the reference "
            f"(random and extreme pictures under {EMULATOR}); please report this"
        )
    return golden.size + wanted.size


def _latency_ms(compiled: Compiled) -> float:
    """Median time of a batch on one thread; random pixels."""
    library = compiled.library(1)
    pixels = np.random.default_rng(0).integers(0, 256, compiled.input_shape, dtype=np.uint8)
    times: list[float] = []
    for _ in range(WARM_UP):
        library(pixels)
    while len(times) < ROUNDS and sum(times) < ENOUGH_S:
        started = time.perf_counter()
        library(pixels)
        times.append(time.perf_counter() - started)
    return round(1000 * float(np.median(times)), 3)
