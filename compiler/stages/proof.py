"""What verify has proven of a library stays beside it, for who would compute it again.

    <target>/verified.json   hashes of the library and of what it was held against, and the checks

A record counts for these very files only. Where it may not be written (a shared, read-only folder)
nothing is lost but time.
"""

import logging
from collections.abc import Sequence
from typing import Any

from vitq.compiler.codegen.compiled import Compiled
from vitq.compiler.support.artifacts import (
    GOLDEN_NAME,
    LIBRARY_NAME,
    file_hash,
    open_artifact,
    read_json,
    versions,
    write_json,
)
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)

PROOF_NAME = "verified.json"
NEEDED = {"golden", "random"}
"""Pictures without which a record proves little."""


def keep_proof(compiled: Compiled, checks: Sequence[dict[str, Any]]) -> None:
    """Write what verify found on this machine: no integer differs.

    Args:
        compiled: the library.
        checks: `compiler.stages.verify.Check`, as JSON.
    """
    content = {
        **_identity(compiled),
        "checks": list(checks),
        "versions": versions(("apache-tvm", "apache-tvm-ffi", "numpy")),
    }
    path = compiled.folder / PROOF_NAME
    try:
        write_json(path, content)
    except OSError as error:
        logger.warning("%s is not written: %s", path, error.strerror)


def proven_integers(compiled: Compiled) -> int:
    """How many integers verify found equal for this library and reference; 0 without a record."""
    path = compiled.folder / PROOF_NAME
    if not path.is_file():
        return 0
    try:
        record = read_json(path)
        if any(record[key] != value for key, value in _identity(compiled).items()):
            return 0
        checks = record["checks"]
        if any(check["different"] != 0 or check["device"] for check in checks):
            return 0
        names = {check["name"] for check in checks}
        return sum(check["values"] for check in checks) if names >= NEEDED else 0
    except (VitqError, KeyError, TypeError):
        return 0  # damaged: as if it were not there


def _identity(compiled: Compiled) -> dict[str, str]:
    """Hash the library, and what its integers are held against."""
    from vitq.quantization.graph.artifact import TENSORS_NAME

    artifact = open_artifact(compiled.folder)
    model = artifact.onnx if artifact.is_foreign else artifact.folder / TENSORS_NAME
    return {
        "library": file_hash(compiled.folder / LIBRARY_NAME),
        "golden": file_hash(compiled.folder / GOLDEN_NAME),
        "reference": file_hash(model),
    }
