"""Pictures that a model was made with say too much of its accuracy; which ones, content tells.

``quantize`` keeps a mark of each picture that calibrated, and of each whose answer decided about a
bound (``--max-drop``); ``evaluate`` marks what it sees, so that the same pictures are noticed
whatever they come from: a folder, another name of it, a ``.npy``, an array.

    seen.calibrated   some accuracy too much: ranges were taken from them
    seen.decided      the bound holds on them by construction, so that they cannot confirm it
"""

import hashlib
import logging
from collections.abc import Iterable

import numpy as np

from vitq.compiler.codegen.compiled import Compiled
from vitq.compiler.support.artifacts import QUANTIZE_NAME, open_artifact, read_json
from vitq.compiler.support.embedded import GENERATED
from vitq.numerics.arrays import UInt8Array
from vitq.quantization.pictures.given import GivenPictures

logger = logging.getLogger(__name__)

SEEN = "seen"
MARK_BYTES = 8
"""Of a million pictures two have the same mark with a probability of 3e-8."""


def marks(pixels: UInt8Array) -> list[str]:
    """Return what tells pictures (N, C, H, W) uint8 apart, 16 hexadecimal digits each."""
    found = (hashlib.blake2b(np.ascontiguousarray(p).data, digest_size=MARK_BYTES) for p in pixels)
    return [each.hexdigest() for each in found]


def seen(
    source: str | GivenPictures | None, calibrated: UInt8Array, decided: UInt8Array
) -> dict[str, list[str]]:
    """Mark what a model is made with, for its provenance.

    Args:
        source: of the calibration pictures; made ones are no pictures that anybody evaluates on.
        calibrated: (N, C, H, W) uint8.
        decided: likewise, about a bound; changed copies of others may be among them.
    """
    used = [] if source in GENERATED else marks(calibrated)
    return {"calibrated": used, "decided": marks(decided)}


class Overlap:
    """How many of the pictures that are evaluated on made the model.

    Args:
        compiled: the model. A foreign file, a library without its artifact and an artifact of an
            earlier version do not say.
    """

    def __init__(self, compiled: Compiled) -> None:
        found = {} if compiled.is_foreign else _kept(compiled)
        self._kept = {name: frozenset(found.get(name, ())) for name in ("calibrated", "decided")}
        self._number = dict.fromkeys(self._kept, 0)
        self._total = 0

    def add(self, pixels: UInt8Array) -> None:
        """Look at some pictures."""
        self._total += len(pixels)
        if not any(self._kept.values()):
            return
        found = marks(pixels)
        for name, known in self._kept.items():
            self._number[name] += sum(mark in known for mark in found)

    def say(self, source: str) -> None:
        """Say what was found; nothing of pictures that the model did not see.

        Args:
            source: of the pictures.
        """
        if decided := self._number["decided"]:
            logger.warning(
                "WARNING: %s: %d of %d pictures also decided about --max-drop, which holds on "
                "them by construction: evaluate on pictures that are not of --calib",
                *(source, decided, self._total),
            )
        if calibrated := self._number["calibrated"]:
            logger.info(
                "evaluate: %d of %d pictures also calibrated the model: of others it may be less "
                "accurate",
                *(calibrated, self._total),
            )


def _kept(compiled: Compiled) -> dict[str, Iterable[str]]:
    path = open_artifact(compiled.folder).folder / QUANTIZE_NAME
    if not path.is_file():
        return {}
    found: dict[str, Iterable[str]] = read_json(path)["provenance"].get(SEEN, {})
    return found
