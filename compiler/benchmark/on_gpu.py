"""Stage ``benchmark`` for a GPU: make a kit, run it here, show what it measured."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from vitq.compiler.benchmark.kit import PACKAGE, KitOptions
from vitq.compiler.benchmark.kit import kit as build_kit
from vitq.compiler.nvidia.driver import why_not_here
from vitq.compiler.target.choice import get_target
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)

DIFFERENT = 1
"""Exit code of a kit whose golden integers differ."""


def benchmark_gpu(folder: Path, target: str, batches: tuple[int, ...], rounds: int) -> Any:
    """Compare on this machine's GPU.

    Args:
        folder: of the artifact.
        target: one with a GPU.
        batches: to compare at.
        rounds: over all contestants.

    Returns:
        The kit's results (`compiler.gpu_kit`).

    Raises:
        VitqError: no GPU here, or a golden integer differs.
    """
    with tempfile.TemporaryDirectory(prefix="vitq-kit-") as temporary:
        options = KitOptions(
            out=Path(temporary) / "kit",
            target=get_target(target),
            batches=batches,
            contestants=True,
        )
        gpu = options.target.gpu
        assert gpu is not None
        if reason := why_not_here(gpu):
            raise VitqError(
                f"target {target} cannot be measured here: {reason}; vitq kit makes a folder that "
                "a GPU machine needs no TVM for"
            )
        kit, results = build_kit([folder], options), Path(temporary) / "results.json"
        command = [
            sys.executable, "-m", PACKAGE.name, "--out", str(results), "--rounds", str(rounds),
            "--skip", "tasks", "--compile",
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(kit)}
        done = subprocess.run(command, cwd=kit, env=environment, stdout=sys.stderr, check=False)
        if done.returncode not in (0, DIFFERENT) or not results.is_file():
            raise VitqError(f"the kit ended with code {done.returncode}: see its output above")
        content = json.loads(results.read_text())
    if done.returncode == DIFFERENT:
        raise VitqError("golden integers differ on this GPU: please report this")
    return content


def table_rows(content: dict[str, Any]) -> list[list[str]]:
    """Model, batch, contestant, median, p95, pictures in a second, and the ratio to vitq."""
    own = {
        (row["model"], row["batch"]): row["median_ms"]
        for row in content["rows"]
        if row["contestant"] == "vitq-int8"
    }
    rows = []
    for row in content["rows"]:
        ours = own.get((row["model"], row["batch"]), float("nan"))
        rows.append([
            row["model"], str(row["batch"]), row["contestant"], f"{row['median_ms']:.3f}",
            f"{row['p95_ms']:.3f}", f"{row['images_per_s']:.0f}", f"{ours / row['median_ms']:.2f}",
        ])  # fmt: skip
    return rows
