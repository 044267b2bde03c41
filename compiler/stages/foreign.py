"""The artifact around a QDQ file from elsewhere.

    artifacts/<stem>/onnx/           of the first file of that name; source.json says which one
    artifacts/<stem>-<hash>/onnx/    of another one: the hash is that of its place

So ``a/model.onnx`` and ``b/model.onnx`` never replace each other's libraries, and each file finds
its own again.
"""

import hashlib
import logging
from pathlib import Path

from vitq.compiler.support.artifacts import Artifact, read_json, write_json
from vitq.compiler.support.locks import writing_to
from vitq.numerics.errors import VitqError
from vitq.numerics.files import write_atomically

logger = logging.getLogger(__name__)

SOURCE_NAME = "source.json"
KIND = "onnx"
SHORT_HASH = 8


def foreign_artifact(path: Path, content: bytes, artifacts: Path) -> Artifact:
    """Make or find the artifact around a file.

    Args:
        path: of the file.
        content: of it, with external data inside.
        artifacts: root folder of all.

    Returns:
        The artifact, which holds the content.
    """
    place = path.resolve()
    plain = Artifact(artifacts / path.stem / KIND)
    if plain.onnx.resolve() == place:
        return plain
    digest = hashlib.sha256(str(place).encode()).hexdigest()[:SHORT_HASH]
    with writing_to(plain.folder.parent):
        artifact = plain
        if not _is_free(plain, place, content):
            artifact = Artifact(artifacts / f"{path.stem}-{digest}" / KIND)
            logger.info("compile: %s is of another %s: this one is in %s",
                        plain.folder, path.name, artifact.folder)  # fmt: skip
        write_json(artifact.folder / SOURCE_NAME, {"source": str(place)})
        write_atomically(artifact.onnx, content)
    return artifact


def _is_free(artifact: Artifact, place: Path, content: bytes) -> bool:
    """Whether an artifact is this file's, or nobody's."""
    owner = artifact.folder / SOURCE_NAME
    if owner.is_file():
        try:
            return read_json(owner).get("source") == str(place)
        except VitqError:
            return False
    return not artifact.onnx.is_file() or artifact.onnx.read_bytes() == content
