import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
)
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.fold_constants import FoldConstants

INPUT = {"x": ((3, 4), "float32")}


def test_gathers_index_arithmetic_becomes_a_constant():
    def gather(b, x):
        zero = relax.const(0, "int64")
        size = b(relax.op.shape_to_tensor(b(relax.op.shape_of(x))))
        moved = b(relax.op.add(relax.const(-1, "int64"), b(relax.op.take(size, zero, axis=0))))
        negative = b(relax.op.less(relax.const(-1, "int64"), zero))
        index = b(relax.op.where(negative, moved, relax.const(-1, "int64")))
        return b(relax.op.take(x, index, axis=0))

    before = module(INPUT, gather)
    expected = module(INPUT, lambda b, x: b(relax.op.take(x, relax.const(2, "int64"), axis=0)))
    assert_same_results(before, assert_rewrites(FoldConstants(), before, expected))


def test_constant_codes_move_and_keep_their_type():
    codes = np.arange(6, dtype=np.int16).reshape(1, 2, 3)

    def concat(b, x):
        repeated = b(relax.op.broadcast_to(constant(codes), (2, 2, 3)))
        return b(relax.op.concat([repeated, x], axis=1))

    inputs = {"x": ((2, 1, 3), "int16")}
    before = module(inputs, concat)
    known = constant(np.broadcast_to(codes, (2, 2, 3)))
    expected = module(inputs, lambda b, x: b(relax.op.concat([known, x], axis=1)))
    assert_same_results(before, assert_rewrites(FoldConstants(), before, expected))


def test_dequantize_of_a_constant_stays():
    codes = np.arange(12, dtype=np.int8).reshape(3, 4)
    assert_declines(
        FoldConstants(), module(INPUT, lambda b, x: b(relax.op.add(x, b.dq(codes, 0.5))))
    )


@pytest.mark.parametrize(("scale", "axis"), [(0.03, -1), ([0.03, 0.5, 0.11], 0)])
def test_a_quantized_constant_is_its_codes(scale, axis):
    real = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    real[0, :2] = 1e9, -1e9
    zero = 3 if axis < 0 else [3, 0, -7]

    def before(b, x):
        return b(
            relax.op.add(x, b.dq(b.q(constant(real), scale, zero, axis=axis), scale, zero, axis))
        )

    steps = np.asarray(scale, np.float32).reshape(-1, 1)
    codes = np.rint(real / steps) + np.reshape(zero, (-1, 1))
    codes = np.clip(codes, -128, 127).astype(np.int8)
    inputs = {"x": ((3, 4), "float32")}
    expected = module(inputs, lambda b, x: b(relax.op.add(x, b.dq(codes, scale, zero, axis))))
    after = assert_rewrites(FoldConstants(), module(inputs, before), expected)
    assert_same_results(module(inputs, before), after)


def test_a_constant_that_is_not_finite_has_no_codes():
    real = constant(np.array([[1, np.nan, 0, 2]], np.float32))
    mod = module(INPUT, lambda b, x: b(relax.op.add(x, b.dq(b.q(real, 0.5), 0.5))))
    assert_declines(FoldConstants(), mod, "not finite in steps of its scale")
