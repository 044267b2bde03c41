import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
)
from vitq.relay_passes.canonicalize_layout import CanonicalizeLayout
from vitq.relay_passes.expressions import constant

INPUT = {"x": ((3, 2, 4), "int8")}


def take(indices, axis):
    index = constant(np.asarray(indices, np.int64))
    return module(INPUT, lambda b, x: b(relax.op.take(x, index, axis=axis)))


@pytest.mark.parametrize(("index", "axis", "begin"), [(1, 0, 1), (-1, 2, 3), (0, -2, 0)])
def test_take_of_one_index_becomes_a_slice(index, axis, begin):
    shape = [size for at, size in enumerate((3, 2, 4)) if at != axis % 3]

    def expected(b, x):
        part = b(relax.op.strided_slice(x, [axis % 3], [begin], [begin + 1]))
        return b(relax.op.reshape(part, shape))

    before = take(index, axis)
    after = assert_rewrites(CanonicalizeLayout(), before, module(INPUT, expected))
    assert_same_results(before, after)


def test_take_of_consecutive_indices_becomes_a_slice():
    expected = module(INPUT, lambda b, x: b(relax.op.strided_slice(x, [2], [1], [3])))
    before = take([1, 2], 2)
    assert_same_results(before, assert_rewrites(CanonicalizeLayout(), before, expected))


def test_split_becomes_slices():
    def split(b, x):
        parts = b(relax.op.split(x, [1], axis=-1))
        return b(relax.TupleGetItem(parts, 1))

    before = module(INPUT, split)
    expected = module(INPUT, lambda b, x: b(relax.op.strided_slice(x, [2], [1], [4])))
    assert_same_results(before, assert_rewrites(CanonicalizeLayout(), before, expected))


def test_squeeze_and_expand_dims_become_reshapes():
    before = module(INPUT, lambda b, x: b(relax.op.expand_dims(x, [1])))
    expected = module(INPUT, lambda b, x: b(relax.op.reshape(x, (3, 1, 2, 4))))
    assert_same_results(before, assert_rewrites(CanonicalizeLayout(), before, expected))


def test_operators_that_change_nothing_disappear():
    def nothing(b, x):
        x = b(relax.op.broadcast_to(b(relax.op.reshape(x, (3, 2, 4))), (3, 2, 4)))
        return b(relax.op.permute_dims(b(relax.op.astype(x, "int8")), [1, 0, 2]))

    before = module(INPUT, nothing)
    expected = module(INPUT, lambda b, x: b(relax.op.permute_dims(x, [1, 0, 2])))
    assert_same_results(before, assert_rewrites(CanonicalizeLayout(), before, expected))


def test_scattered_indices_stay_a_take_counted_from_the_front():
    def moved(b, x):
        return b(relax.op.take(x, constant(np.array([0, 3], np.int64)), axis=2, mode="clip"))

    after = assert_rewrites(CanonicalizeLayout(), take([0, -1], -1), module(INPUT, moved))
    assert_declines(CanonicalizeLayout(), after)


def test_indices_of_several_axes_stay():
    assert_declines(CanonicalizeLayout(), take([[0, 2]], 2), "indices of shape (1, 2)")


def test_a_cast_to_another_type_stays():
    before = module(INPUT, lambda b, x: b(relax.op.astype(x, "int32")))
    assert_declines(CanonicalizeLayout(), before)
