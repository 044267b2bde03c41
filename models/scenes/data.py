"""Scenes: scikit-learn's handwritten digits at several scales on textured canvases.

How a scene of 64 x 64 pixels is made, from one frozen random stream and in integers only, so that
the same bytes come out on every machine:

1. Canvas: a base colour, and for each of three octaves (4, 8 and 16 cells a side) a grid of random
   numbers in each channel, bilinear between them; half of the scenes have stripes, too; noise of a
   few levels on every pixel.
2. One to four digits: a scan (8 x 8) is enlarged to a side between 14 and 32 pixels, bilinear. Its
   ink is how opaque it is. Its colour differs from the canvas in brightness by 70 levels at least,
   lighter or darker. A place is drawn until its box keeps 1 pixel from all others; after 30 tries
   the digit is left out.
3. Mask: class d + 1 where ink is at least 128 of 255, `IGNORE` from 48 to 127 (the rim of a
   stroke), background elsewhere. Box: the smallest that holds all ink of at least 48, as
   (x0, y0, x1, y1), the last exclusive.

Scans are split as those of `models.digits_vit.data`: scenes for training and calibration are made
of its training scans only, those for evaluation of the held-out ones. Calibration scenes are the
first ones of training.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vitq.models.digits_vit.data import bilinear_weights, load_scans, split_indices, upscale
from vitq.models.scenes import IGNORE, IMAGE_SIZE

OCTAVES = ((4, 40), (8, 24), (16, 12))
"""Cells a side, and the largest deviation from the base colour."""
SIDES = (14, 32)
MOST_DIGITS = 4
CONTRAST = 70
TRIES = 30
SOLID, RIM = 128, 48
TRAIN_SEED, EVAL_SEED = 1, 2
EVAL_COUNT = 200
"""Scenes that figures are about."""

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


class Scenes(NamedTuple):
    """Pictures and what is in them.

    Attributes:
        images: (N, 3, H, W) uint8.
        masks: (N, H, W) uint8, class of each pixel.
        boxes: for each picture (K, 4), x0, y0, x1, y1 in pixels.
        digits: for each picture (K,), 0 to 9.
    """

    images: UInt8Array
    masks: UInt8Array
    boxes: list[Int64Array]
    digits: list[Int64Array]


@cache
def _pools() -> tuple[Int64Array, Int64Array]:
    return split_indices(load_scans().labels)


@cache
def _smooth(cells: int) -> Int64Array:
    return bilinear_weights(IMAGE_SIZE, cells)


def _canvas(rng: np.random.RandomState) -> Int64Array:
    """Draw a textured canvas (3, H, W), 0..255."""
    canvas = np.broadcast_to(rng.randint(40, 216, (3, 1, 1)), (3, IMAGE_SIZE, IMAGE_SIZE)).copy()
    for cells, reach in OCTAVES:
        grid = rng.randint(-reach, reach + 1, (3, cells, cells))
        weights = _smooth(cells)
        canvas += weights @ grid @ weights.T // (2 * IMAGE_SIZE) ** 2
    if rng.randint(2):
        across, down, period = rng.randint(-3, 4), rng.randint(-3, 4), rng.randint(6, 20)
        y, x = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE]
        canvas += np.where((across * x + down * y) % period < period // 2, 14, -14)
    canvas += rng.randint(-6, 7, canvas.shape)
    return np.clip(canvas, 0, 255)


def _color(rng: np.random.RandomState, under: Int64Array) -> Int64Array:
    """Draw a colour (3, 1, 1) that is lighter or darker than what lies under it."""
    level = int(under.mean(axis=0).round().mean())
    lighter, darker = 255 - CONTRAST - level, level - CONTRAST
    is_lighter = lighter >= 0 and (darker < 0 or rng.randint(2))
    base = rng.randint(level + CONTRAST, 256) if is_lighter else rng.randint(0, darker + 1)
    return np.clip(base + rng.randint(-20, 21, (3, 1, 1)), 0, 255).astype(np.int64)


def _box(ink: Int64Array) -> Int64Array:
    rows, columns = (np.flatnonzero((ink >= RIM).any(axis=axis)) for axis in (1, 0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def _is_free(box: Int64Array, others: list[Int64Array]) -> bool:
    return all(box[0] > o[2] or o[0] > box[2] or box[1] > o[3] or o[1] > box[3] for o in others)


def _scene(
    rng: np.random.RandomState, pool: Int64Array
) -> tuple[UInt8Array, UInt8Array, Int64Array, Int64Array]:
    scans, labels = load_scans()
    canvas = _canvas(rng)
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    boxes: list[Int64Array] = []
    digits: list[int] = []
    for _ in range(rng.randint(1, MOST_DIGITS + 1)):
        index = pool[rng.randint(len(pool))]
        side = rng.randint(SIDES[0], SIDES[1] + 1)
        ink = upscale(scans[index][None], side)[0, 0].astype(np.int64)
        tight = _box(ink)
        for _ in range(TRIES):
            x, y = rng.randint(0, IMAGE_SIZE - side + 1, 2)
            box = tight + np.array([x, y, x, y])
            if _is_free(box, boxes):
                break
        else:
            continue
        place = np.s_[..., y : y + side, x : x + side]
        under = canvas[place]
        canvas[place] = (under * (255 - ink) + _color(rng, under) * ink + 127) // 255
        region = mask[place]
        region[(ink >= RIM) & (ink < SOLID) & (region == 0)] = IGNORE
        region[ink >= SOLID] = labels[index] + 1
        boxes.append(box)
        digits.append(int(labels[index]))
    return canvas.astype(np.uint8), mask, np.array(boxes), np.array(digits)


def make_scenes(count: int, seed: int, is_training: bool, first: int = 0) -> Scenes:
    """Make scenes; the n-th of a seed does not depend on how many are made.

    Args:
        count: how many.
        seed: which ones.
        is_training: whether of the training scans, not the held-out ones.
        first: which one to begin with.
    """
    pool = _pools()[0 if is_training else 1]
    # RandomState and not default_rng: NumPy guarantees that its stream never changes.
    streams = (np.random.RandomState([seed, place]) for place in range(first, first + count))
    made = [_scene(stream, pool) for stream in streams]
    images, masks, boxes, digits = zip(*made, strict=True)
    return Scenes(np.stack(images), np.stack(masks), list(boxes), list(digits))


def calibration_scenes(count: int = 32) -> UInt8Array:
    """Return the first training scenes, (count, 3, H, W)."""
    return make_scenes(count, TRAIN_SEED, is_training=True).images


@cache
def eval_scenes(count: int = EVAL_COUNT) -> Scenes:
    """Return the first held-out scenes."""
    return make_scenes(count, EVAL_SEED, is_training=False)
