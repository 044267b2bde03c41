"""Stage ``verify``: the library against the independent integer reference, bit for bit."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitq.compiler.codegen.compiled import Compiled, open_compiled
from vitq.compiler.remote.tracker import Tracker
from vitq.compiler.stages.changes import warn_of_changes
from vitq.compiler.stages.identity import changed_files, describe_changed
from vitq.compiler.stages.proof import keep_proof
from vitq.compiler.support.artifacts import QUANTIZE_NAME, open_artifact, read_json
from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.given import GivenPictures

logger = logging.getLogger(__name__)

RANDOM_PICTURES = 4
SEED = 20_220


class IntegersDifferError(VitqError):
    """The library does not compute the reference's integers."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: which pictures; of an emulated kernel which one, and on which codes.
        pictures: how many.
        values: integers compared.
        different: how many of them differ.
        largest_difference: in steps of the logits.
        against: ``reference``, ``golden``, ``interpreter`` for a foreign model, or ``contract`` for
            an emulated kernel.
        device: that the library ran on; empty for this machine.
    """

    name: str
    pictures: int
    values: int
    different: int
    largest_difference: int
    against: str
    device: str = ""

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def verify(
    folder: Path,
    pictures: str | GivenPictures | None = None,
    count: int | None = 64,
    threads: int | None = None,
    tracker: Tracker | None = None,
    keep: bool = True,
) -> list[Check]:
    """Compare integer logits.

    Args:
        folder: the target's folder.
        pictures: folder or ``.npy`` of real pictures, or some in hand; None for the embedded
            model's own, or none.
        count: how many of them, None for all.
        threads: of the library.
        tracker: of the devices of which one runs the library; None for this machine.
        keep: whether to write what was proven beside the library (`compiler.stages.proof`).

    Returns:
        One check for the golden file, real pictures, random pixels, and each extreme.

    Raises:
        IntegersDifferError: if one integer differs; the message names the first set with one.
    """
    compiled = open_compiled(folder)
    _warn_of_changes(compiled)
    warn_of_changes(compiled)
    if tracker is None:
        checks = _check(compiled, compiled.library(threads), pictures, count)
    else:
        from vitq.compiler.remote.library import open_remote

        path, batch = compiled.library_path(), compiled.batch
        with open_remote(path, batch, compiled.target, tracker, threads or 1) as library:
            found = _check(compiled, library, pictures, count)
        checks = [replace(check, device=library.device.title) for check in found]
    _require_equal(compiled, checks)
    if keep and tracker is None:
        keep_proof(compiled, [check.to_json() for check in checks])
    return checks


def _warn_of_changes(compiled: Compiled) -> None:
    """Say that the float model's files are others than they were at quantize."""
    if compiled.is_foreign:
        return
    facts = read_json(open_artifact(compiled.folder).folder / QUANTIZE_NAME)["provenance"]
    changed = changed_files(facts)
    if changed:
        logger.warning("verify: %s: %s", compiled.folder, describe_changed(changed))


def verify_emulated(folder: Path) -> list[Check]:
    """Compare every kernel of a CUDA library with the arithmetic contract, without a GPU.

    Args:
        folder: the target's folder.

    Returns:
        One check for each kernel, with its schedule, on random and on extreme codes.

    Raises:
        IntegersDifferError: if one integer differs.
        VitqError: another target's library, or one of another version.
    """
    compiled = open_compiled(folder)
    if compiled.target.gpu is None:
        raise VitqError(
            f"{compiled.folder} is for {compiled.target.name}: --emulate is for GPUs; deploy "
            "verifies another processor's bundle under qemu"
        )
    from vitq.compiler.stages.emulate import compare_kernels

    mod, schedules = compiled.imported().integer.mod, compiled.metadata["schedules"]
    checks = [
        _difference(one.name, compiled.batch, one.found, one.expected, "contract")
        for one in compare_kernels(mod, compiled.target, schedules)
    ]
    _require_equal(compiled, checks)
    return checks


def _require_equal(compiled: Compiled, checks: list[Check]) -> None:
    """Refuse a difference.

    Raises:
        IntegersDifferError: the message names the first.
    """
    bad = [check for check in checks if check.different]
    if bad:
        where = f" on device {bad[0].device}" if bad[0].device else ""
        raise IntegersDifferError(
            f"{compiled.folder}{where}: {bad[0].different} of {bad[0].values} integers differ from "
            f"the {bad[0].against} ({bad[0].name}; by at most {bad[0].largest_difference}); please "
            "report this with the artifact's metadata.json"
        )


def _check(
    compiled: Compiled, library: Any, pictures: str | GivenPictures | None, count: int | None
) -> list[Check]:
    pixels, codes = compiled.golden()
    checks = [_compare("golden", pixels, library, codes, "golden")]
    reference, against = compiled.reference(), "reference"
    if compiled.is_foreign:
        against = "interpreter"
    for name, pixels in _inputs(compiled, pictures, count):
        checks.append(_compare(name, pixels, library, reference(pixels), against))
    return checks


def _compare(
    name: str, pixels: UInt8Array, library: Any, expected: IntArray, against: str
) -> Check:
    return _difference(name, len(pixels), library(pixels), expected, against)


def _difference(
    name: str, pictures: int, found: IntArray, expected: IntArray, against: str
) -> Check:
    difference = np.abs(found.astype(np.int64) - expected.astype(np.int64))
    return Check(
        name,
        pictures,
        difference.size,
        int(np.count_nonzero(difference)),
        int(difference.max()),
        against,
    )


def _inputs(
    compiled: Compiled, pictures: str | GivenPictures | None, count: int | None
) -> Iterator[tuple[str, UInt8Array]]:
    """Real pictures, then those of `made_pictures`."""
    from vitq.quantization.pictures.pictures import EVALUATION, open_pictures

    channels, height, width = compiled.input_shape[1:]
    shape = (channels, height, width)
    pictures = pictures or compiled.own_pictures
    if pictures is not None:
        prep = compiled.preprocessing
        yield "real", open_pictures(pictures, prep, count, EVALUATION, is_said=False).load().pixels
    yield from made_pictures(shape)


def made_pictures(shape: tuple[int, int, int]) -> Iterator[tuple[str, UInt8Array]]:
    """Yield random and extreme pictures of (C, H, W), by name."""
    _, height, width = shape
    random = np.random.default_rng(SEED)
    yield "random", random.integers(0, 256, (RANDOM_PICTURES, *shape), dtype=np.uint8)
    checkerboard = np.indices((height, width)).sum(axis=0) % 2 * 255
    extremes = {
        "all 0": np.zeros(shape),
        "all 255": np.full(shape, 255),
        "checkerboard": np.broadcast_to(checkerboard, shape),
    }
    for name, picture in extremes.items():
        yield name, picture[None].astype(np.uint8)
