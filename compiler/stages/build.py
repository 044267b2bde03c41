"""Stage ``build``: the whole job, from a float model to a library that is verified and evaluated.

quantize, export, compile, and on a machine that runs the library verify and evaluate it.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitq.compiler.codegen.compiled import open_compiled
from vitq.compiler.codegen.hardware import can_run_here
from vitq.compiler.stages.compile import CompileOptions, compile_model
from vitq.compiler.stages.evaluate import BACKENDS, evaluate
from vitq.compiler.stages.export import export
from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.stages.scores import Row
from vitq.compiler.stages.verify import Check, verify
from vitq.quantization.pictures.pictures import EVALUATION, check_source, open_pictures

if TYPE_CHECKING:
    from vitq.quantization.pictures.preprocessing import Preprocessing

logger = logging.getLogger(__name__)

LIBRARY = "library"
VERIFIED = 8
"""Real pictures that verify compares; evaluate holds the library against the reference again."""
NOT_HERE = (
    "verify: skipped, this machine does not run {}: deploy verifies the bundle under an emulator "
    "and on the device, verify --tracker on a device that serves"
)
NO_GPU = (
    "verify: skipped, this machine does not run {}: vitq kit makes what a machine with a GPU "
    "needs, and verify --emulate runs the kernels without one"
)
NO_PICTURES = "evaluate: skipped, no --pictures to evaluate on"


@dataclass(frozen=True)
class Built:
    """What the job came to.

    Attributes:
        folder: of the target.
        checks: of verify; none where this machine cannot run the library.
        rows: of evaluate; none without pictures.
        skipped: which of both was left out, why, and what to do, a line each.
    """

    folder: Path
    checks: tuple[Check, ...]
    rows: tuple[Row, ...]
    skipped: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {
            "folder": str(self.folder),
            "checks": [check.to_json() for check in self.checks],
            "rows": [row.to_json() for row in self.rows],
            "skipped": list(self.skipped),
        }


def build(
    quantizing: QuantizeOptions,
    compiling: CompileOptions,
    pictures: str | None = None,
    count: int | None = None,
    threads: int | None = None,
    classes: Path | None = None,
) -> Built:
    """Run all stages.

    Args:
        quantizing: what to quantize and how.
        compiling: target and batch.
        pictures: folder or ``.npy`` to evaluate on; None for the embedded model's own, or none.
        count: how many of them, None for all.
        threads: of the library.
        classes: file with the model's classes, for the labels of the pictures.

    Returns:
        The library's folder, and what was found.

    Raises:
        VitqError: as of each stage.
    """
    target = compiling.target
    runs_here = can_run_here(target)
    if pictures is not None:
        check_source(pictures, classes)

    def meet(outputs: int | None, prep: "Preprocessing") -> None:
        if pictures is not None:
            kind = EVALUATION
            open_pictures(pictures, prep, count, kind, 0, classes, outputs, is_said=False)

    artifact = quantize(quantizing, meet)
    export(artifact)
    folder = compile_model(artifact.folder, compiling)
    checks: list[Check] = []
    rows: list[Row] = []
    skipped = []
    if runs_here:
        checks = verify(folder, pictures, VERIFIED, threads)
        logger.info("verify: 0 of %d integers differ", sum(check.values for check in checks))
    else:
        message = NOT_HERE if target.gpu is None else NO_GPU
        skipped.append(message.format(target.name))
    if pictures is None and open_compiled(folder).own_pictures is None:
        skipped.append(NO_PICTURES)
    else:
        backends = None if runs_here else tuple(name for name in BACKENDS if name != LIBRARY)
        rows = evaluate(folder, pictures, count, backends, threads, classes=classes, keep=True)
    return Built(folder, tuple(checks), tuple(rows), tuple(skipped))
