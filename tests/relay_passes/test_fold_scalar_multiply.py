import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
)
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.fold_scalar_multiply import FoldScalarMultiply

INPUT = {"x": ((3, 4), "int32")}
CODES = {"x": ((3, 4), "int8"), "y": ((3, 4), "int8")}
FACTOR = np.float32(8**-0.5)


def scaled(operator, factor):
    return module(INPUT, lambda b, x: b(operator(b.real(x, 0.01), constant(factor))))


@pytest.mark.parametrize(
    ("operator", "scale"),
    [
        (relax.op.multiply, 0.01 * float(FACTOR)),
        (relax.op.divide, 0.01 / float(FACTOR)),
    ],
)
def test_a_factor_changes_the_scale(operator, scale):
    before = scaled(operator, FACTOR)
    expected = module(INPUT, lambda b, x: b.real(x, scale))
    after = assert_rewrites(FoldScalarMultiply(), before, expected)
    assert_same_results(before, after, atol=1e-3)  # float64 products in another order


def test_zero_point_and_axis_are_kept():
    scale = np.array([0.5, 1, 2, 4], np.float32)
    before = module(
        {"x": ((3, 4), "int8")},
        lambda b, x: b(relax.op.multiply(b.dq(x, scale, [1, 2, 3, 4], axis=1), constant(FACTOR))),
    )
    expected = module(
        {"x": ((3, 4), "int8")},
        lambda b, x: b(
            dialect.dequantize(x, scale.astype(np.float64) * float(FACTOR), [1, 2, 3, 4], 1)
        ),
    )
    assert_rewrites(FoldScalarMultiply(), before, expected)


def test_the_mean_of_two_heads():
    half = constant(np.float32(0.5))
    before = module(
        CODES, lambda b, x, y: b(relax.op.multiply(b(relax.op.add(b.dq(x, 1), b.dq(y, 2))), half))
    )
    expected = module(CODES, lambda b, x, y: b(relax.op.add(b.real(x, 0.5), b.real(y, 1.0))))
    assert_same_results(before, assert_rewrites(FoldScalarMultiply(), before, expected))


def test_a_factor_of_constant_codes_is_a_factor():
    before = module(
        {"x": ((3, 4), "int8")},
        lambda b, x: b(
            relax.op.multiply(
                b(relax.op.multiply(b.dq(x, 0.5), constant(FACTOR))),
                b.dq(np.array(3, np.int8), 0.25),
            )
        ),
    )
    expected = module({"x": ((3, 4), "int8")}, lambda b, x: b.real(x, 0.5 * float(FACTOR) * 0.75))
    assert_rewrites(FoldScalarMultiply(), before, expected)


def test_the_steps_of_a_gelu_stay():
    def gelu(b, x):
        x = b.dq(x, 0.5)
        erf = b(relax.op.erf(b(relax.op.divide(x, constant(np.float32(2**0.5))))))
        half = b(relax.op.multiply(x, constant(np.float32(0.5))))
        return b(relax.op.multiply(half, b(relax.op.add(erf, constant(np.float32(1))))))

    assert_declines(FoldScalarMultiply(), module({"x": ((3, 4), "int8")}, gelu))


@pytest.mark.parametrize(
    ("factor", "reason"),
    [(np.float32(-1), "not positive"), (np.ones(4, np.float32), "not a scalar")],
)
def test_refusals(factor, reason):
    assert_declines(FoldScalarMultiply(), scaled(relax.op.multiply, factor), reason)
