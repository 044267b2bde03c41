"""Pictures that are decoded when they are asked for: order, memory, errors, arrays with labels."""

import logging
import random
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.decoding import AHEAD, OpenPictures
from vitq.quantization.pictures.given import GivenPictures
from vitq.quantization.pictures.pictures import load_pictures, open_pictures, picture_files

SHAPE = (3, 64, 64)
SIZE = 3 * 64 * 64


def painted(number: int) -> UInt8Array:
    """A picture with its number in each pixel."""
    return np.full(SHAPE, number % 251, np.uint8)


def test_order_is_kept_however_long_one_takes() -> None:
    delays = random.Random(0)

    def read(place: int) -> UInt8Array:
        time.sleep(delays.random() * 0.002)
        return painted(place)

    batches = list(OpenPictures(150, None, "lazy", read, SHAPE).batches(32))
    assert [len(batch) for batch in batches] == [32, 32, 32, 32, 22]
    found = [int(picture[0, 0, 0]) for batch in batches for picture in batch]
    assert found == list(range(150))


def test_memory_does_not_grow_with_the_number_of_pictures() -> None:
    """50,000 pictures of 12 KiB are 586 MiB; one batch and those ahead are 2."""
    pictures = OpenPictures(50_000, None, "lazy", painted, SHAPE)
    tracemalloc.start()
    try:
        total = sum(int(batch[:, 0, 0, 0].sum(dtype=np.int64)) for batch in pictures.batches(64))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == sum(number % 251 for number in range(50_000))
    assert peak < 3 * (AHEAD + 64) * SIZE


def test_an_error_comes_out_and_ends_the_threads() -> None:
    def read(place: int) -> UInt8Array:
        if place == 70:
            raise VitqError("picture 70 cannot be read")
        return painted(place)

    seen: list[int] = []
    with pytest.raises(VitqError, match="picture 70"):
        seen.extend(map(len, OpenPictures(10_000, None, "lazy", read, SHAPE).batches(10)))
    assert seen == [10] * 7
    assert not [t for t in threading.enumerate() if t.name.startswith("vitq-decode")]


def test_who_stops_early_leaves_no_threads() -> None:
    batches = OpenPictures(10_000, None, "lazy", painted, SHAPE).batches(8)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("vitq-decode")]


def stored(path: Path, number: int, labels: IntArray | None = None, name: str = "") -> str:
    """An array of pictures with their numbers, and labels beside it."""
    np.save(path, np.stack([painted(index) for index in range(number)]))
    if labels is not None:
        np.save(path.with_name(name), labels)
    return str(path)


@pytest.mark.parametrize("name", ["x-labels.npy", "labels.npy"])
def test_arrays_with_labels_beside_them(name: str, tmp_path: Path) -> None:
    labels = np.repeat(np.arange(4, dtype=np.int32), 5)
    source = stored(tmp_path / "x.npy", 20, labels, name)
    found = load_pictures(source, SHAPE, 8, "calibration")
    assert found.labels is not None and found.labels.tolist() == [0, 1, 2, 3] * 2
    assert found.pixels[:, 0, 0, 0].tolist() == [0, 5, 10, 15, 1, 6, 11, 16]
    assert picture_files(source, 8) == [tmp_path / "x.npy", tmp_path / name]
    with pytest.raises(VitqError, match=r"label of picture 3 is 3, but the model has 3 outputs"):
        open_pictures(source, SHAPE, 8, "evaluation", outputs=3)


def test_labels_of_other_arrays_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = stored(tmp_path / "x.npy", 6, np.arange(9), "labels.npy")
    with caplog.at_level(logging.INFO, "vitq"):
        found = load_pictures(source, SHAPE, 3, "calibration")
    assert found.labels is None and found.pixels[:, 0, 0, 0].tolist() == [0, 2, 4]
    assert "are not used: another number than the pictures in x.npy" in caplog.text
    assert "3 of 6 pictures, evenly spaced" in caplog.text


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(5), r"x-labels\.npy holds int64 of shape \(5,\): give integers, one for each"),
        (np.zeros(6), r"holds float64 of shape \(6,\)"),
        (np.array([0, 1, 2, -1, 0, 0]), r"x-labels\.npy\[3\] is -1: class numbers are 0 to"),
        (np.array([0, 2**63, 2, 1, 0, 0], np.uint64), r"\[1\] is 9223372036854775808"),
    ],
)
def test_labels_that_are_none(labels: IntArray, message: str, tmp_path: Path) -> None:
    source = stored(tmp_path / "x.npy", 6, labels, "x-labels.npy")
    with pytest.raises(VitqError, match=message):
        load_pictures(source, SHAPE, None, "evaluation")


def test_an_array_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    source = stored(tmp_path / "x.npy", 6)
    opened = open_pictures(source, SHAPE, None, "evaluation")
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content[: -SIZE - 1])
    with pytest.raises(VitqError, match=r"became shorter while it was read: picture 4 is gone"):
        list(opened.batches(2))
    (tmp_path / "x.npy").unlink()
    with pytest.raises(VitqError, match=r"the array .*x\.npy cannot be read: No such file"):
        list(opened.batches(2))


def test_pictures_in_hand_with_labels_are_drawn_round_the_classes() -> None:
    images = np.stack([painted(index) for index in range(12)])
    given = GivenPictures(images, np.repeat([3, 1, 2], 4))
    found = load_pictures(given, SHAPE, 6, "calibration")
    assert found.pixels[:, 0, 0, 0].tolist() == [0, 4, 8, 1, 5, 9]
    assert found.labels is not None and found.labels.tolist() == [3, 1, 2, 3, 1, 2]
    assert load_pictures(GivenPictures(images), SHAPE, 3, "calibration").pixels[
        :, 0, 0, 0
    ].tolist() == [0, 4, 8]
    with pytest.raises(VitqError, match="label of picture 0 is 3, but the model has 2 outputs"):
        open_pictures(given, SHAPE, None, "evaluation", outputs=2)
