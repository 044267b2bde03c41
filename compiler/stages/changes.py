"""What changed since an artifact was made is said before anybody measures it."""

import logging
from pathlib import Path

from vitq.compiler.codegen.compiled import Compiled
from vitq.compiler.stages.identity import calibration_record
from vitq.compiler.support.artifacts import QUANTIZE_NAME, file_hash, open_artifact, read_json
from vitq.numerics.errors import VitqError

logger = logging.getLogger(__name__)


def warn_of_changes(compiled: Compiled) -> None:
    """Warn where an artifact is not what would be made today of what lies where it came from.

    Nothing is said of what is not there any more: an artifact travels without its pictures.
    """
    artifact = open_artifact(compiled.folder)
    compiled_from = compiled.metadata["sha256"].get(artifact.onnx.name)
    if artifact.onnx.is_file() and file_hash(artifact.onnx) != compiled_from:
        logger.warning(
            "WARNING: %s was written again since %s was compiled from it: compile again",
            *(artifact.onnx, compiled.folder),
        )
    if artifact.is_foreign:
        return
    facts = read_json(artifact.folder / QUANTIZE_NAME)["provenance"]
    record = facts.get("calibration", {}).get("record")
    if not record or not Path(record["path"]).exists():
        return
    try:
        now = calibration_record(record["path"], record["count"], record["seed"])
    except (VitqError, OSError) as error:
        logger.warning("WARNING: the calibration pictures changed since quantize: %s", error)
        return
    if now["files"] != record["files"]:
        logger.warning(
            "WARNING: the calibration pictures in %s changed since %s was quantized on them: "
            "quantize again to use them",
            *(record["path"], artifact.folder),
        )
