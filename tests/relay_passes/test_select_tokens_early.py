import numpy as np
import tvm
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
)
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.select_tokens_early import SelectTokensEarly

INPUT = {"x": ((2, 5, 8), "float32")}
GAMMA = constant(np.linspace(-1, 2, 8, dtype=np.float32))
BETA = constant(np.linspace(0, 1, 8, dtype=np.float32))


def norm(b, x):
    return b(relax.op.nn.layer_norm(x, GAMMA, BETA, axes=[-1], epsilon=3e-3))


def token(b, x, axis=1):
    return b(relax.op.strided_slice(x, [axis], [0], [1]))


def test_slice_moves_above_layer_norm():
    before = module(INPUT, lambda b, x: token(b, norm(b, x)))
    expected = module(INPUT, lambda b, x: norm(b, token(b, x)))
    assert_same_results(before, assert_rewrites(SelectTokensEarly(), before, expected))


def test_slice_moves_above_the_quantizer_too():
    before = module(INPUT, lambda b, x: token(b, b.q(norm(b, x), 0.02, 3)))
    expected = module(INPUT, lambda b, x: b.q(norm(b, token(b, x)), 0.02, 3))
    assert_same_results(before, assert_rewrites(SelectTokensEarly(), before, expected))


def test_bounds_of_the_quantizer_are_kept():
    before = module(INPUT, lambda b, x: token(b, b.q(norm(b, x), 0.02, 3, bounds=(-8, 7))))
    expected = module(INPUT, lambda b, x: b.q(norm(b, token(b, x)), 0.02, 3, bounds=(-8, 7)))
    tvm.ir.assert_structural_equal(SelectTokensEarly()(before), expected)


def test_a_slice_of_channels_stays():
    before = module(INPUT, lambda b, x: token(b, norm(b, x), axis=2))
    assert_declines(SelectTokensEarly(), before, "cuts the normalized axis")


def test_other_readers_keep_all_tokens():
    def body(b, x):
        y = norm(b, x)
        return [token(b, y), b(relax.op.exp(y))]

    assert_declines(SelectTokensEarly(), module(INPUT, body), "something else reads")
