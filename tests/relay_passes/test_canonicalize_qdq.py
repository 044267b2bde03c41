import numpy as np
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
)
from vitq.relay_passes.canonicalize_qdq import CanonicalizeQdq
from vitq.relay_passes.expressions import constant

INPUT = {"x": ((3, 4), "float32")}
CODES = {"x": ((3, 4), "int8")}


def test_unsigned_weights_become_signed():
    weight = np.arange(100, 120, dtype=np.uint8).reshape(4, 5)
    signed = (weight.astype(int) - 110).astype(np.int8)

    def product(codes, zero_point):
        return lambda b, x: b(relax.op.matmul(x, b.dq(codes, [0.5] * 5, zero_point, axis=1)))

    before, expected = module(INPUT, product(weight, 110)), module(INPUT, product(signed, 0))
    assert_same_results(before, assert_rewrites(CanonicalizeQdq(), before, expected))


def test_constants_go_to_the_right():
    two = constant(np.float32(2))
    before = module(INPUT, lambda b, x: b(relax.op.multiply(two, x)))
    expected = module(INPUT, lambda b, x: b(relax.op.multiply(x, two)))
    assert_same_results(before, assert_rewrites(CanonicalizeQdq(), before, expected))


def pair(scale=0.5, zero_point=3, dtype="int8", bounds=None):
    def body(b, x):
        return b.dq(b.q(b.dq(x, 0.5, 3), scale, zero_point, dtype, bounds=bounds), 0.5, 3)

    return module(CODES, body)


def test_a_quantizer_that_repeats_its_input_disappears():
    expected = module(CODES, lambda b, x: b.dq(x, 0.5, 3))
    assert_same_results(pair(), assert_rewrites(CanonicalizeQdq(), pair(), expected))


def test_bounds_that_the_codes_already_have_disappear():
    bounds = (-8, 7)

    def twice(b, x):
        inner = b(relax.op.reshape(b.q(x, 0.5, bounds=bounds), (12,)))
        return b.dq(b.q(b.dq(inner, 0.5), 0.5, bounds=bounds), 0.5)

    def once(b, x):
        return b.dq(b(relax.op.reshape(b.q(x, 0.5, bounds=bounds), (12,))), 0.5)

    before = module(INPUT, twice)
    after = assert_rewrites(CanonicalizeQdq(), before, module(INPUT, once))
    assert_same_results(before, after)


def test_other_parameters_stay():
    assert_declines(CanonicalizeQdq(), pair(scale=0.25))
    assert_declines(CanonicalizeQdq(), pair(zero_point=2))
    assert_declines(CanonicalizeQdq(), pair(bounds=(-8, 7)))
    assert_declines(CanonicalizeQdq(), pair(dtype="uint8"), "another storage type")


def test_weights_that_do_not_fit_int8_stay():
    weight = np.array([[0], [255]], np.uint8)
    before = module(
        {"x": ((3, 2), "float32")}, lambda b, x: b(relax.op.matmul(x, b.dq(weight, 0.5, 1)))
    )
    assert_declines(CanonicalizeQdq(), before)
