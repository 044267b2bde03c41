"""Tables of rows: what moves, what is not there, and the smallest table that says it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitq.numerics.errors import VitqError
from vitq.numerics.rows import MISSING, GatherParams, gather_rows, row_table, split_table


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.data())
def test_a_table_moves_rows_and_fills_what_is_missing(
    groups: int, rows: int, channels: int, data: st.DataObject
) -> None:
    table = np.array(data.draw(st.lists(st.integers(MISSING, rows - 1), min_size=1, max_size=9)))
    x = np.random.default_rng(rows).integers(-128, 128, (groups, rows, channels), dtype=np.int8)
    found = gather_rows(x, table, GatherParams(-7))
    assert found.dtype == np.int8
    for g in range(groups):
        for m, row in enumerate(table):
            np.testing.assert_array_equal(found[g, m], -7 if row == MISSING else x[g, row])


@pytest.mark.parametrize("bad", [[0, 3], [-2], [-2, 1]])
def test_rows_that_do_not_exist_are_refused(bad: list[int]) -> None:
    with pytest.raises(VitqError, match=r"rows .* of 3"):
        gather_rows(np.zeros((1, 3, 2)), np.array(bad), GatherParams(0))


def test_a_window_is_read_from_element_numbers() -> None:
    ids = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    moved = np.roll(ids, (-1, -1), (1, 2)).reshape(2, 2, 2, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5)
    table = row_table(moved, 3)
    assert table is not None
    one, groups = split_table(table, 32)
    assert groups == 2 and one[:4].tolist() == [5, 6, 9, 10]
    x = np.random.default_rng(0).integers(-9, 9, (2, 16, 3))
    expected = x.reshape(-1)[moved.reshape(-1)]
    np.testing.assert_array_equal(gather_rows(x, one, GatherParams(0)).reshape(-1), expected)


def test_a_pad_is_missing_in_every_picture() -> None:
    ids = np.pad(np.arange(24).reshape(2, 2, 2, 3), ((0, 0), (0, 1), (0, 0), (0, 0)),
                 constant_values=MISSING)  # fmt: skip
    table = row_table(ids, 3)
    assert table is not None
    one, groups = split_table(table, 8)
    assert (one.tolist(), groups) == ([0, 1, 2, 3, MISSING, MISSING], 2)


@pytest.mark.parametrize(
    "ids",
    [[[1, 0, 2]], [[1, 2, 3]], [[0, 1], [2, 3]], [[0, 1, MISSING]], [[0, 1, 2], [4, 5, 6]]],
    ids=str,
)
def test_what_is_no_move_of_whole_rows(ids: list[list[int]]) -> None:
    assert row_table(np.array(ids), 3) is None


def test_rows_that_cross_groups_stay_one_table() -> None:
    table = np.array([1, 0, 2, 3])
    assert split_table(table, 4)[1] == 1
    assert split_table(np.array([1, 0, 3, 2]), 4)[1] == 2
    assert split_table(np.array([2, 3, 0, 1]), 4)[1] == 1
    one, groups = split_table(np.array([1, 0, 3, 2, 5, 4]), 6)
    assert (one.tolist(), groups) == ([1, 0], 3)
