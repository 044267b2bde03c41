"""Scenes of digits, and the committed models on them."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vitq.models import scenes_yolos
from vitq.models.digits_vit.data import load_scans, normalize, split_indices
from vitq.models.scenes import CLASS_NAMES, IGNORE, IMAGE_SIZE
from vitq.models.scenes.data import (
    EVAL_SEED,
    TRAIN_SEED,
    calibration_scenes,
    eval_scenes,
    make_scenes,
)
from vitq.models.scenes_swin import CHECKPOINT, scenes_swin
from vitq.models.scenes_swin.train import mean_iou
from vitq.models.scenes_yolos.train import generalized_iou, measure

REPOSITORY = Path(__file__).parents[2]
MAX_CHECKPOINT_BYTES = 3_000_000
FEW = 24


def test_the_same_bytes_come_out_everywhere() -> None:
    found = make_scenes(4, EVAL_SEED, is_training=False)
    digest = hashlib.sha256(found.images.tobytes() + found.masks.tobytes()).hexdigest()
    assert digest == "2e65e85e7ee4d06f8e26bd808c4d5f104b478e67bf3b124309245afc5238e1b8"
    later = make_scenes(2, EVAL_SEED, is_training=False, first=2)
    np.testing.assert_array_equal(later.images, found.images[2:])


def test_masks_and_boxes_say_the_same() -> None:
    scenes = make_scenes(FEW, TRAIN_SEED, is_training=True)
    assert scenes.images.shape == (FEW, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert set(np.unique(scenes.masks)) <= {*range(len(CLASS_NAMES)), IGNORE}
    for mask, boxes, digits in zip(scenes.masks, scenes.boxes, scenes.digits, strict=True):
        assert 1 <= len(boxes) == len(digits) <= 4
        outside = np.ones_like(mask, bool)
        for (x0, y0, x1, y1), digit in zip(boxes, digits, strict=True):
            inside = mask[y0:y1, x0:x1]
            assert set(np.unique(inside)) <= {0, digit + 1, IGNORE}
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any(), "it is tight"
            outside[y0:y1, x0:x1] = False
        assert not mask[outside].any()


def test_held_out_scenes_are_of_held_out_scans() -> None:
    train, test = split_indices(load_scans().labels)
    assert not set(train) & set(test)
    first = make_scenes(1, EVAL_SEED, is_training=True).masks
    assert (first != make_scenes(1, EVAL_SEED, is_training=False).masks).any()
    np.testing.assert_array_equal(
        calibration_scenes(2), make_scenes(2, TRAIN_SEED, is_training=True).images
    )


def test_the_segmenter_is_as_good_as_its_checkpoint_says() -> None:
    assert CHECKPOINT.stat().st_size < MAX_CHECKPOINT_BYTES
    model = scenes_swin().eval()
    model.load_state_dict(load_file(CHECKPOINT), strict=True)
    scenes = eval_scenes()
    with torch.inference_mode():
        maps = model(torch.from_numpy(normalize(scenes.images[:FEW]))).argmax(1).numpy()
    with safe_open(CHECKPOINT, framework="pt") as file:
        recorded = float(file.metadata()["miou"])
    assert mean_iou(maps, scenes.masks[:FEW]) == pytest.approx(recorded, abs=0.12), "of few"


def test_the_detector_finds_what_its_checkpoint_says() -> None:
    assert scenes_yolos.CHECKPOINT.stat().st_size < MAX_CHECKPOINT_BYTES
    model = scenes_yolos.scenes_yolos().eval()
    model.load_state_dict(load_file(scenes_yolos.CHECKPOINT), strict=True)
    with safe_open(scenes_yolos.CHECKPOINT, framework="pt") as file:
        recorded = float(file.metadata()["recall50"])
    assert measure(model)["recall50"] == pytest.approx(recorded, rel=0, abs=0.01)


def test_generalized_iou() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1]])
    b = torch.tensor([[1.0, 0, 3, 2], [2, 0, 3, 1]])
    torch.testing.assert_close(generalized_iou(a, b), torch.tensor([1 / 3, -1 / 3]))


def test_mean_iou_leaves_rims_out() -> None:
    masks = np.arange(11, dtype=np.uint8).repeat(2).reshape(1, 2, 11)
    maps = masks.copy()
    assert mean_iou(maps, masks) == 1
    masks[0, 0, 0], maps[0, 0, 0] = IGNORE, 5
    assert mean_iou(maps, masks) == 1
    maps[0, 0, 1] = 5
    assert mean_iou(maps, masks) < 1


def test_import_is_light() -> None:
    code = (
        "import sys, vitq.models.scenes_swin, vitq.models.scenes_yolos;"
        "sys.exit(bool({'torch', 'timm', 'sklearn'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
