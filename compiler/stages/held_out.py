"""At the end of `quantize`: does the result answer as the float model does, on other pictures?

Ranges are taken from the calibration pictures alone, so that the error on those says nothing of the
next ones. All of them calibrate (integers do not depend on this check), and what is compared on is

    others   pictures of the same source that calibration left, evenly spaced over it
    changed  where there are none: calibration pictures mirrored, shifted and enlarged by 1/7

Before the long work it is said if the calibration pictures are poor: of one class, near duplicates
(`quantization.pictures.likeness`), or all alike to the float model. After it one line has the
agreement, the logits' SQNR and the quantizer that cuts most off (`quantization.run.judge`); where
the answers are others than the float model's, a warning with the likely cause and the remedy. One
picture also goes through the integer reference: integers that leave their ranges are refused here,
with the layer's name, and not two stages later.
"""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitq.compiler.support.embedded import EMBEDDED_PICTURES, GENERATED
from vitq.numerics.arrays import FloatArray, IntArray, UInt8Array
from vitq.numerics.errors import RangeError, VitqError
from vitq.quantization.pictures.given import GivenPictures

if TYPE_CHECKING:
    from vitq.compiler.stages.quantize_options import QuantizeOptions
    from vitq.quantization.graph.graph import Graph
    from vitq.quantization.graph.outputs import OutputLayout
    from vitq.quantization.pictures.decoding import OpenPictures, Pictures
    from vitq.quantization.pictures.preprocessing import Preprocessing
    from vitq.quantization.plan.recipe import Recipe
    from vitq.quantization.run.judge import Judgement

logger = logging.getLogger(__name__)

SHARE, LEAST, MOST = 4, 4, 16
"""A fourth as many as calibrate, within these limits: a tenth of quantize's time."""
BOUNDED = 200
"""As many decide about a bound (`compiler.stages.max_drop`): one of them is half a percent."""
FEW = 16
"""Fewer calibration pictures than that are named as a likely cause."""
NARROW = 6
"""Widths below are named as a likely cause."""
COLLAPSED_AGREEMENT, COLLAPSED_DB = 0.5, 3.0
"""DeiT-Tiny at W8/A8 on good pictures: 0.97 and 21 dB; on crops of one picture, without
`quantization.ranges.evidence`: 0.4 to 0.6 and 2 dB."""
SATURATED = 0.05
ZOOM = 7


@dataclass(frozen=True)
class HeldOut:
    """What a quantized model will be compared on.

    Attributes:
        pixels: (N, C, H, W) uint8.
        kind: `others` or `changed`.
        logits: (N, classes) of the float model, or rows of its results.
        poor: what is wrong with the calibration pictures; empty if nothing is.
    """

    pixels: UInt8Array
    kind: str
    logits: FloatArray
    poor: str


def hold_out(
    options: "QuantizeOptions", graph: "Graph", prep: "Preprocessing", pictures: "Pictures"
) -> HeldOut:
    """Take pictures aside, ask the float model, and say if the calibration pictures are poor.

    Args:
        options: where pictures come from.
        graph: float, as traced.
        prep: what its input means.
        pictures: those that calibrate.

    Returns:
        What `check_held_out` compares on.
    """
    from vitq.quantization.run.judge import answers, float_logits

    few = min(max(len(pictures) // SHARE, LEAST), MOST)
    count = few if options.max_drop is None else BOUNDED
    pixels, kind = _others(options, prep, pictures.pixels, count), "others"
    if len(pixels) < LEAST:
        pixels, kind = _changed(_spaced(pictures.pixels, count)), "changed"
    logits = float_logits(graph, pixels, prep.mean, prep.std)
    asked = _spaced(pictures.pixels, few)
    given = answers(float_logits(graph, asked, prep.mean, prep.std), graph.layout)
    poor = _poor(options, pictures, given)
    is_said = _is_one_class(pictures) and isinstance(options.calibration_source, str)
    if poor and not is_said:
        logger.warning(
            "WARNING: %s: %s; the quantized model may fail on others: give more various pictures",
            *(pictures.source, poor),
        )
    return HeldOut(pixels, kind, logits, poor)


def check_held_out(
    options: "QuantizeOptions",
    recipe: "Recipe",
    graph: "Graph",
    held: HeldOut,
    judged: "Judgement | None" = None,
) -> dict[str, Any]:
    """Compare the quantized model with the float one, and say how it went.

    Args:
        options: for the message, and the bound.
        recipe: the widths that the graph has.
        graph: quantized.
        held: from `hold_out`.
        judged: how close it is, where that is known already.

    Returns:
        The figures, for the provenance.

    Raises:
        VitqError: if an integer leaves its range.
    """
    from vitq.quantization.run.judge import judge
    from vitq.quantization.run.reference import IntegerReference

    try:
        IntegerReference(graph)(held.pixels[:1])
    except RangeError as error:
        raise VitqError(
            f"{error} (the layer's weights or values are too large or too small for integers: "
            "check them, the input's mean and std, and the calibration pictures)"
        ) from error
    found = judged or judge(graph, held.pixels, held.logits)
    worst = next(iter(found.saturation.items()), None)
    answer = "answer" if graph.layout.classes else "nearest neighbour"
    logger.info(
        "quantize: %d of %d %s pictures get the float model's %s, SQNR %.1f dB%s",
        *(found.agreeing, found.pictures, _KINDS[held.kind], answer, found.sqnr_db),
        "" if worst is None else f", {worst[0]} cuts off {100 * worst[1]:.2g} % of its values",
    )
    bound = options.max_drop
    if bound is not None and not found.is_within(bound):
        logger.warning(
            "WARNING: --max-drop %g is missed: with 8 bits everywhere %d of %d %s pictures get the "
            "float model's %s, %.2g %% do not (SQNR %.1f dB); likely: %s",
            *(bound, found.agreeing, found.pictures, _KINDS[held.kind], answer),
            *(100 * (1 - found.agreeing / found.pictures), found.sqnr_db),
            _cause(options, recipe, held, found),
        )
    elif _is_collapsed(found, graph.layout) and options.random_weights is None:
        logger.warning(
            "WARNING: the quantized model gives the float model's %s for only %d of %d %s "
            "pictures (SQNR %.1f dB); likely: %s",
            *(answer, found.agreeing, found.pictures, _KINDS[held.kind], found.sqnr_db),
            _cause(options, recipe, held, found),
        )
    return {"kind": held.kind, **found.to_json(), "poor": held.poor}


_KINDS = {"others": "other", "changed": "changed"}


def _is_collapsed(found: "Judgement", layout: "OutputLayout") -> bool:
    """Whether the answers are others; neighbours change places at errors that harm nobody."""
    is_far = found.sqnr_db < COLLAPSED_DB and found.agreeing < found.pictures
    is_other = found.agreeing < COLLAPSED_AGREEMENT * found.pictures
    return is_far or (is_other and layout.classes is not None)


def _cause(options: "QuantizeOptions", recipe: "Recipe", held: HeldOut, found: "Judgement") -> str:
    """Name the likeliest cause and its remedy."""
    if held.poor:
        return f"{held.poor}; give pictures of all kinds, or take --method minmax"
    if min(recipe.weight_bits, recipe.activation_bits) < NARROW:
        remedy = "take --method best, wider ones, or --max-drop 1"
        return f"the widths of {recipe.name} are narrow; {remedy}"
    worst = next(iter(found.saturation.items()), ("", 0.0))
    if worst[1] > SATURATED:
        return (
            f"{worst[0]} cuts off {100 * worst[1]:.0f} % of its values, as these reach further "
            "than on the calibration pictures; give more of them, or take --method minmax"
        )
    if options.calib_count < FEW:
        return f"{options.calib_count} calibration pictures are few; give 32 or more"
    return "try --method minmax, and check mean and std"


def _poor(options: "QuantizeOptions", pictures: "Pictures", answers: IntArray) -> str:
    """Say what is wrong with the calibration pictures, if anything is."""
    from vitq.quantization.pictures.likeness import different_pictures

    number = len(pictures)
    if options.calib in GENERATED or number < LEAST:
        return ""
    if _is_one_class(pictures):
        return f"all {number} calibration pictures are of one class ({pictures.labels[0]})"  # type: ignore[index]
    different = different_pictures(pictures.pixels)
    if 2 * different <= number:
        return f"of {number} calibration pictures only {different} are no near duplicates of others"
    is_trained = options.random_weights is None
    if is_trained and len(answers) >= LEAST and len(set(answers.tolist())) == 1:
        return (
            f"the float model gives the same answer (class {int(answers[0])}) for each of "
            f"{len(answers)} calibration pictures"
        )
    return ""


def _is_one_class(pictures: "Pictures") -> bool:
    """Whether the labels say so; of files `load_pictures` has said it then."""
    return pictures.labels is not None and len(set(pictures.labels.tolist())) == 1


def _others(
    options: "QuantizeOptions", prep: "Preprocessing", taken: UInt8Array, count: int
) -> UInt8Array:
    """Pictures of the source that calibration left, as many as there are up to `count`.

    What cannot be read is passed over: it does not calibrate.
    """
    from vitq.quantization.pictures.pictures import CALIBRATION, open_pictures

    source = options.calibration_source
    if not isinstance(source, GivenPictures) and source in GENERATED:
        return taken[:0]
    limit = options.calib_count + max(count, MOST) if source in EMBEDDED_PICTURES else None
    try:
        opened = open_pictures(source, prep, limit, CALIBRATION, is_said=False)
    except VitqError as error:
        logger.debug("held out: %s", error)
        return taken[:0]
    found: list[UInt8Array] = []
    known = {picture.tobytes() for picture in taken}
    # All of `taken` may be among those tried, and as many as wanted may be unreadable.
    for place in itertools.islice(_places(len(opened), count), len(taken) + 2 * count):
        picture = None if len(found) == count else _read(opened, place)
        if picture is not None and picture.tobytes() not in known:
            found.append(picture)
            known.add(picture.tobytes())
    return np.stack(found) if found else taken[:0]


def bound_files(folder: Path, taken: int) -> list[Path]:
    """Return the files of a folder that may decide about a bound: they decide integers, too.

    Args:
        folder: of calibration pictures.
        taken: how many of them calibrate.
    """
    from vitq.quantization.pictures.pictures import folder_files

    files = folder_files(folder)
    places = itertools.islice(_places(len(files), BOUNDED), taken + 2 * BOUNDED)
    return [files[place] for place in places]


def _places(number: int, count: int) -> Iterator[int]:
    """Each of `number` places once, evenly spaced ones first, `count` or so at a time."""
    step = max(1, number // count)
    for start in sorted(range(step), key=lambda place: abs(place - step // 2)):
        yield from range(start, number, step)


def _read(opened: "OpenPictures", place: int) -> UInt8Array | None:
    try:
        return opened.read(place)
    except VitqError as error:
        logger.debug("held out: %s", error)
        return None


def _spaced(pixels: UInt8Array, count: int) -> UInt8Array:
    """`count` of some pictures, evenly spaced."""
    chosen = np.unique(np.linspace(0, len(pixels) - 1, count).astype(int))
    return pixels[chosen]


def _changed(pixels: UInt8Array) -> UInt8Array:
    """Mirror pictures and enlarge a part of them."""
    import torch
    from torch.nn import functional

    height, width = pixels.shape[2:]
    top, left = height // ZOOM, width // ZOOM
    part = torch.from_numpy(pixels[:, :, top:, ::-1][:, :, :, left:].copy()).float()
    large = functional.interpolate(part, (height, width), mode="bilinear", antialias=True)
    found: UInt8Array = large.round().clamp(0, 255).to(torch.uint8).numpy()
    return found
