"""The embedded pictures: ``digits`` with classes (`models.digits_vit.data`), ``scenes`` with masks.

Their first ones calibrate; another seed draws from the training part; the held-out part evaluates.
"""

import numpy as np

from vitq.models import DIGITS, SCENES
from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.decoding import OpenPictures
from vitq.quantization.pictures.draws import drawn

EMBEDDED = (DIGITS, SCENES)
CALIBRATION = "calibration"
USUAL = 32
SCENE_POOL = 1000
"""Training scenes that another seed draws from."""
Found = tuple[UInt8Array, IntArray | None]


def open_embedded(
    name: str, limit: int | None, split: str, input_shape: tuple[int, int, int], seed: int
) -> OpenPictures:
    """Open an embedded set.

    Args:
        name: one of `EMBEDDED`.
        limit: how many; None for all, of calibration for `USUAL`.
        split: `CALIBRATION` or another part.
        input_shape: (C, H, W) of the model.
        seed: which ones of calibration.

    Raises:
        VitqError: the model takes another size, or there are fewer.
    """
    from vitq.models import digits_vit, scenes

    side = (digits_vit if name == DIGITS else scenes).IMAGE_SIZE
    if input_shape != (3, side, side):
        raise VitqError(f"the embedded {name} do not fit an input of {input_shape}: give pictures")
    load = _digits if name == DIGITS else _scenes
    try:
        pixels, labels = load(limit, split, seed)
    except ValueError as error:
        raise VitqError(f"the embedded {name}: {error}") from error
    is_drawn = split == CALIBRATION and seed != 0
    described = f"{name}, seed {seed}" if is_drawn else name
    return OpenPictures(len(pixels), labels, described, pixels.__getitem__, input_shape)


def _digits(limit: int | None, split: str, seed: int) -> Found:
    from vitq.models.digits_vit.data import calibration_images, eval_images, load_digits_split

    if split != CALIBRATION:
        images, labels = eval_images(limit)
        return np.asarray(images), np.asarray(labels)
    if seed == 0:
        return np.asarray(calibration_images(limit or USUAL)), None
    pool = load_digits_split().train.images
    return pool[drawn(len(pool), limit or USUAL, seed, DIGITS)], None


def _scenes(limit: int | None, split: str, seed: int) -> Found:
    from vitq.models.scenes.data import EVAL_COUNT, calibration_scenes, eval_scenes

    if split != CALIBRATION:
        if limit is not None and limit > EVAL_COUNT:
            raise ValueError(f"cannot take {limit} eval images: choose 1 to {EVAL_COUNT}")
        return eval_scenes().images[:limit], None
    if limit is not None and limit > SCENE_POOL:
        raise ValueError(f"cannot take {limit} calibration images: choose 1 to {SCENE_POOL}")
    if seed == 0:
        return calibration_scenes(limit or USUAL), None
    return calibration_scenes(SCENE_POOL)[drawn(SCENE_POOL, limit or USUAL, seed, SCENES)], None
