"""Which pictures are drawn to calibrate with, and what is said of them."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.quantization.test_pictures import DIGITS, PREP, SHAPE, flat, load, paint
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.pictures import load_pictures, picture_files
from vitq.quantization.pictures.pixels import load_picture


def test_seed_draws_the_files_that_are_read(tmp_path: Path) -> None:
    """The same ones by both functions; another seed others; seed 0 evenly spaced ones."""
    for index in range(12):
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(tmp_path / f"{index:02d}.png")
    stack = np.stack([np.full(SHAPE, index, np.uint8) for index in range(12)])
    np.save(tmp_path / "all.npy", stack)
    chosen = {}
    for seed in (0, 1, 2):
        files = [int(path.stem) for path in picture_files(str(tmp_path), 4, seed)]
        for source in (tmp_path, tmp_path / "all.npy"):
            found = load_pictures(str(source), PREP, 4, "calibration", seed)
            assert found.pixels[:, 0, 0, 0].tolist() == files
        assert found.source.endswith(f", seed {seed}") == (seed > 0)
        chosen[seed] = files
    assert chosen[0] == [0, 3, 6, 9]
    assert len({tuple(sorted(files)) for files in chosen.values()}) == 3
    assert all(len(set(files)) == 4 for files in chosen.values())


def test_seed_draws_digits() -> None:
    sets = [load_pictures("digits", DIGITS, 5, "calibration", seed).pixels for seed in (0, 1, 1, 2)]
    assert np.array_equal(sets[1], sets[2])
    assert not np.array_equal(sets[0], sets[1]) and not np.array_equal(sets[1], sets[3])


def test_nothing_to_draw_from_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "four.npy", np.zeros((4, *SHAPE), np.uint8))
    with pytest.raises(VitqError, match=r"holds 4 pictures: seed 1 has none to draw 4 from"):
        load_pictures(str(tmp_path / "four.npy"), PREP, 4, "calibration", 1)


def classes(folder: Path, **numbers: int) -> Path:
    """A folder for each class with so many pictures; the gray is 10 * class + picture."""
    for place, (name, number) in enumerate(numbers.items()):
        for index in range(number):
            paint(folder / name / f"{index}.png", 10 * place + index)
    return folder


def grays(source: Path, limit: int, seed: int = 0) -> list[int]:
    """Of the calibration pictures; `picture_files` must name the same ones."""
    found = load_pictures(str(source), PREP, limit, "calibration", seed)
    files = [p for p in picture_files(str(source), limit, seed) if p.name != "labels.csv"]
    values = [int(p[0, 14, 14]) for p in found.pixels]
    assert [int(load_picture(p, PREP)[0, 14, 14]) for p in files] == values
    return values


def test_draws_go_round_class_folders(tmp_path: Path) -> None:
    folder = classes(tmp_path, ape=4, bee=1, cat=4)
    assert grays(folder, 2) == [0, 10]
    assert grays(folder, 6) == [0, 10, 20, 1, 21, 2]
    assert grays(folder, 9) == [0, 1, 2, 3, 10, 20, 21, 22, 23]
    labels = load_pictures(str(folder), PREP, 6, "calibration").labels
    assert labels is not None and labels.tolist() == [0, 1, 2, 0, 2, 0]


def test_other_seeds_draw_evenly_from_class_folders(tmp_path: Path) -> None:
    folder = classes(tmp_path, ape=8, bee=8, cat=8)
    draws = [grays(folder, 7, seed) for seed in range(1, 7)]
    for draw in draws:
        assert len(set(draw)) == 7
        assert sorted([v // 10 for v in draw].count(c) for c in range(3)) == [2, 2, 3]
    assert len({tuple(sorted(draw)) for draw in draws}) > 1
    assert len({draw[0] // 10 for draw in draws}) > 1
    assert grays(folder, 7, 3) == draws[2]


def test_a_table_keeps_its_order_unless_that_misses_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(6):
        paint(tmp_path / f"{index}.png", index)
    table = tmp_path / "labels.csv"
    table.write_text("".join(f"{i}.png,{label}\n" for i, label in enumerate([7, 7, 5, 5, 7, 9])))
    with caplog.at_level(logging.INFO, "vitq.quantization.pictures.pictures"):
        assert grays(tmp_path, 1) == [0] and grays(tmp_path, 6) == [0, 1, 2, 3, 4, 5]
        assert "goes round" not in caplog.text
        assert grays(tmp_path, 3) == [0, 2, 5]
        assert "labels.csv: its order misses classes, the draw goes round them" in caplog.text
    caplog.clear()
    table.write_text("".join(f"{i}.png,{i % 2}\n" for i in range(6)))
    with caplog.at_level(logging.INFO, "vitq.quantization.pictures.pictures"):
        assert grays(tmp_path, 3) == [0, 1, 2]
    assert caplog.text == ""


def test_calibrating_on_one_class_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = classes(tmp_path / "one", ape=3)
    two = classes(tmp_path / "two", ape=3, bee=3)
    with caplog.at_level(logging.WARNING, "vitq.quantization.pictures.pictures"):
        grays(two, 2)
        load(one, 2)  # to evaluate on
        grays(flat(tmp_path / "flat"), 2)
        assert caplog.text == ""
        grays(one, 2)
    assert "all 2 calibration pictures are of one class (0)" in caplog.text
