"""Stage ``zoo``: models x recipes x targets, each built and proven, in one table.

Every cell is kept when it is done, so that a run of many hours can be stopped and goes on where it
was:

    artifacts/<model>/zoo/<hash>.json

The hash is that of everything that decides the cell: model, weights, options, pictures, target,
code. A refusal is not kept: what a machine lacks may be installed before the next run, and all
that was made before the stage that refused lies in the artifact.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vitq.compiler.stages.identity import file_hashes, quantize_fingerprint
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.studies.spreading import Spread, spread_out
from vitq.compiler.studies.zoo_cell import Plan, ZooCell, blank, run_cell
from vitq.compiler.support.artifacts import (
    fingerprint,
    is_current,
    read_json,
    source_hash,
    versions,
    write_json,
)
from vitq.compiler.support.embedded import EMBEDDED_MODELS, GENERATED
from vitq.compiler.support.limits import LARGEST_BATCH, check_number
from vitq.compiler.support.progress import progress_bar
from vitq.compiler.target.host import host_cpu
from vitq.compiler.target.table import Target
from vitq.numerics.errors import VitqError
from vitq.numerics.files import require_writable
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.pictures.pictures import check_source, picture_files

logger = logging.getLogger(__name__)

PACKAGES = ("numerics", "quantization", "export", "relay_passes", "compiler")
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
NOISE = "noise"
SEED = 0
"""Of random weights, unless another is asked for."""


@dataclass(frozen=True)
class Zoo:
    """The table.

    Attributes:
        cells: models in the order given, of each the recipes, targets and batch sizes.
    """

    cells: list[ZooCell]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    @property
    def is_all_refused(self) -> bool:
        """Whether no cell at all was built and proven."""
        return all(cell.refused is not None for cell in self.cells)

    @property
    def differing(self) -> list[ZooCell]:
        """Cells whose library does not compute the reference's integers."""
        return [cell for cell in self.cells if cell.differs]


@dataclass(frozen=True, kw_only=True)
class ZooOptions:
    """What the table is of.

    Attributes:
        targets: to compile for.
        batches: static batch sizes.
        pictures: to evaluate on; None for the embedded models' own.
        count: how many, None for all.
        spread: how cells are spread over processes and machines.
    """

    targets: Sequence[Target]
    batches: Sequence[int] = (1,)
    pictures: str | GivenPictures | None = None
    count: int | None = None
    spread: Spread = field(default_factory=Spread)

    def __post_init__(self) -> None:
        """Refuse what can be refused before anything runs."""
        if not self.targets:
            raise VitqError("no targets: give some of vitq targets, with commas")
        for batch in self.batches:
            check_number("batch", batch, 1, LARGEST_BATCH)
        if self.count is not None and self.count < 1:
            raise VitqError(f"the number of pictures is {self.count}: give at least 1")
        if isinstance(self.pictures, str):
            check_source(self.pictures)


def zoo(variants: Sequence[tuple[QuantizeOptions, str]], options: ZooOptions) -> Zoo:
    """Build and prove every variant for every target.

    Args:
        variants: what to quantize, and whose weights they have (`with_weights`).
        options: targets, pictures, and where cells run.

    Returns:
        The table; what is refused, fails or differs is told in its cell.

    Raises:
        VitqError: no models, no calibration pictures where they should be, or no workers.
        OSError: the artifacts' folder cannot be written to.
    """
    if not variants:
        raise VitqError("no models: give names, as --model of quantize takes them")
    for source in dict.fromkeys(variant.calib for variant, _ in variants):
        if isinstance(source, str) and source not in GENERATED:
            check_source(source)
    plans = [
        Plan(
            options=replace(variant, artifacts=variant.artifacts.resolve()), weights=weights,
            target=target, batch=batch, pictures=options.pictures, count=options.count,
        )
        for variant, weights in variants
        for target in options.targets
        for batch in options.batches
    ]  # fmt: skip
    common = _common_content(options.pictures)
    keys = [_key(plan, common) for plan in plans]
    cells = {
        place: kept for place in range(len(plans)) if (kept := _kept(plans[place], keys[place]))
    }
    missing = _spaced([place for place in range(len(plans)) if place not in cells], plans)
    if cells:
        logger.info("zoo: %d of %d cells are kept from before", len(cells), len(plans))
    for plan in (plans[place] for place in missing[:1]):
        require_writable(plan.options.artifacts / "x")
    done = spread_out(run_cell, [plans[place] for place in missing], options.spread)
    for index, result in progress_bar(done, "zoo", len(missing), "cell"):
        place = missing[index]
        cells[place] = _finished(plans[place], result, keys[place])
    return Zoo([cells[place] for place in range(len(plans))])


def with_weights(
    options: QuantizeOptions, folder: Path | None, seed: int | None = None
) -> tuple[QuantizeOptions, str]:
    """Give a model weights and pictures to calibrate on, as far as it has none of its own.

    Args:
        options: of the model.
        folder: with ``<model>.safetensors`` (or .pth, .pt, .bin) of some models.
        seed: of random weights, which factories and folders of a model get, too, unless it is None.

    Returns:
        The options, and whose weights these are.

    Raises:
        VitqError: the folder does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise VitqError(f"--weights {folder} is no folder: give one with <model>.safetensors")
    embedded = options.model in EMBEDDED_MODELS
    if options.calib is None and not embedded:
        options = replace(options, calib=NOISE)
    if embedded or (":" in options.model and seed is None):
        return options, "its own"
    names = [options.model + suffix for suffix in WEIGHT_SUFFIXES]
    found = [folder / name for name in names if folder is not None and (folder / name).is_file()]
    if found:
        return replace(options, weights=found[0].resolve()), found[0].name
    seed = SEED if seed is None else seed
    return replace(options, random_weights=seed), f"random, seed {seed}"


def _spaced(places: list[int], plans: list[Plan]) -> list[int]:
    """Order cells so that those of one artifact, which wait for each other, are far apart."""
    seen: dict[Path, int] = {}
    turns = {}
    for place in places:
        folder = plans[place].options.artifact.folder
        turns[place] = seen[folder] = seen.get(folder, -1) + 1
    return sorted(places, key=turns.__getitem__)


def _common_content(pictures: str | GivenPictures | None) -> dict[str, Any]:
    """Return what decides all cells."""
    if isinstance(pictures, GivenPictures):
        content: Any = pictures.digest
    else:
        content = None if pictures is None else _file_content(pictures)
    return {
        "pictures": content,
        "source": source_hash(PACKAGES),
        "versions": versions(("apache-tvm", "apache-tvm-ffi", "onnx", "torch", "timm")),
    }


def _file_content(source: str) -> list[str]:
    return list(file_hashes(picture_files(source, None)).values())


def _key(plan: Plan, common: dict[str, Any]) -> str | None:
    """Fingerprint of a cell; None where a file is missing, which the cell will tell."""
    try:
        quantized = quantize_fingerprint(plan.options)
    except VitqError:
        return None
    target = plan.target
    return fingerprint({
        **common,
        "quantized": quantized,
        "target": [target.name, target.tvm_config(), target.features, target.gpu],
        "batch": plan.batch,
        "count": plan.count,
        "machine": host_cpu(),  # that times are of, unless dask chose another
    })


def _path(plan: Plan, key: str) -> Path:
    return plan.options.artifact.folder.parent / "zoo" / f"{key[:16]}.json"


def _kept(plan: Plan, key: str | None) -> ZooCell | None:
    if key is None or not is_current(path := _path(plan, key), key):
        return None
    return ZooCell.from_json(read_json(path)["cell"])


def _finished(plan: Plan, result: ZooCell | str, key: str | None) -> ZooCell:
    """Say what became of a cell, and keep it if it is whole."""
    if isinstance(result, str):
        ended = f"{result}: out of memory, or a crash; run it again alone"
        result = replace(blank(plan), stage="unknown", refused=ended)
    if result.refused is not None:
        logger.warning("zoo: %s: %s refused: %s", plan.title, result.stage, result.refused)
        return result
    if key is not None:
        write_json(_path(plan, key), {"fingerprint": key, "cell": result.to_json()})
    logger.info("zoo: %s: %s (%.1f s)", plan.title, _said(result), result.seconds)
    return result


def _said(cell: ZooCell) -> str:
    if not cell.compared:
        return f"built, not compared: {cell.proven}"
    return f"0 of {cell.compared} integers differ ({cell.proven})"
