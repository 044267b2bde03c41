import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
    ops,
)
from tests.relay_passes.proving import one
from vitq.numerics.errors import RangeError
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.lower_row_moves import LowerRowMoves

B, SIDE, C = 2, 4, 3
INPUT = {"x": ((B, SIDE * SIDE, C), "int8")}


def grid(b, x):
    return b(relax.op.reshape(x, (B, SIDE, SIDE, C)))


def roll(b, x, shift):
    for axis in (1, 2):
        indices = np.roll(np.arange(SIDE), shift)
        x = b(relax.op.take(x, constant(indices), axis=axis))
    return x


def partition(b, x):
    x = b(relax.op.reshape(x, (B, 2, 2, 2, 2, C)))
    return b(relax.op.permute_dims(x, [0, 1, 3, 2, 4, 5]))


def windows(b, x):
    return b(relax.op.reshape(partition(b, roll(b, grid(b, x), -1)), (B * 4, 4, C)))


def test_roll_and_partition_are_one_table():
    rows = np.roll(np.arange(16).reshape(4, 4), (-1, -1), (0, 1))
    rows = rows.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(-1)

    def moved(b, x):
        x = b(dialect.gather_rows(b(relax.op.reshape(x, (B, 16, C))), rows))
        return b(relax.op.reshape(x, (B * 4, 4, C)))

    before = module(INPUT, windows)
    after = LowerRowMoves()(before)
    assert_same_results(before, after)
    assert ops(after) == ["reshape", names.GATHER_ROWS, "reshape"]
    assert_same_results(after, module(INPUT, moved))


def test_merging_four_tokens_is_one_table_too():
    def merge(b, x):
        x = b(relax.op.reshape(x, (B, 2, 2, 2, 2, C)))
        return b(relax.op.reshape(b(relax.op.permute_dims(x, [0, 1, 3, 4, 2, 5])), (B, 4, 4 * C)))

    before = module(INPUT, merge)
    after = LowerRowMoves()(before)
    assert ops(after) == ["reshape", names.GATHER_ROWS, "reshape"]
    assert_same_results(before, after)


def test_a_pad_fills_rows_with_its_code_and_a_crop_ends_before_them():
    def padded(b, x):
        pad = b(relax.op.nn.pad(grid(b, x), [0, 0, 0, 1, 0, 2, 0, 0], pad_value=-5))
        return b(relax.op.permute_dims(pad, [0, 2, 1, 3]))

    def cropped(b, x):
        return b(relax.op.strided_slice(roll(b, grid(b, x), 1), [1, 2], [0, 0], [3, 2]))

    for body in (padded, cropped):
        before = module(INPUT, body)
        after = LowerRowMoves()(before)
        assert ops(after).count(names.GATHER_ROWS) == 1
        assert_same_results(before, after)


@pytest.mark.parametrize(
    "body",
    [
        lambda b, x: b(relax.op.permute_dims(x, [0, 2, 1])),  # channels
        lambda b, x: b(relax.op.strided_slice(x, [1], [0], [1])),  # a slice alone
        lambda b, x: b(relax.op.reshape(x, (B * 16, C))),
        lambda b, x: b(relax.op.permute_dims(b(relax.op.permute_dims(x, [1, 0, 2])), [1, 0, 2])),
    ],
)
def test_what_stays(body):
    assert_declines(LowerRowMoves(), module(INPUT, body))


def test_pads_of_two_codes_are_refused():
    def body(b, x):
        x = b(relax.op.nn.pad(grid(b, x), [0, 0, 0, 1, 0, 0, 0, 0], pad_value=1))
        return b(relax.op.nn.pad(x, [0, 0, 0, 1, 0, 0, 0, 0], pad_value=2))

    assert_declines(LowerRowMoves(), module(INPUT, body), "pads of different codes: [1, 2]")


def test_a_table_is_proven_to_name_rows_that_exist():
    bound = one({"x": ((1, 4, 2), "int8")}, lambda x: dialect.gather_rows(x, np.array([-1, 2])))
    assert bound["gather_rows", "row"].high == 2
    with pytest.raises(RangeError, match="its row can reach"):
        one({"x": ((1, 4, 2), "int8")}, lambda x: dialect.gather_rows(x, np.array([4])))


def test_the_pass_changes_a_module_and_only_once():
    after = LowerRowMoves()(module(INPUT, windows))
    assert_declines(LowerRowMoves(), after)
    assert_rewrites(LowerRowMoves(), module(INPUT, windows), after)
