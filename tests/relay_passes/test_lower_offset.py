import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, assert_rewrites, module
from tests.relay_passes.proving import check
from vitq.numerics.attention import AttentionParams
from vitq.numerics.dyadic import to_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.offset import HIDDEN, OFFSET_LIMIT, REACH, offset_codes
from vitq.numerics.qparams import QuantParams
from vitq.numerics.requantize import RequantizeParams
from vitq.numerics.shiftmax import (
    SCORE_LIMIT,
    SMALLEST_CODE_SUM,
    code_params,
    normalize_params,
)
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.lower_offset import LowerOffset

SHAPE = (8, 3, 5, 5)
INPUTS = {"acc": (SHAPE, "int32")}
RNG = np.random.default_rng(0)
BIAS = RNG.normal(size=(3, 5, 5)).astype(np.float32)
MASK = np.where(RNG.random((4, 1, 5, 5)) < 0.5, -np.inf, 0).astype(np.float32)
SCALE = 1e-3
NORM = normalize_params(1.7, SMALLEST_CODE_SUM, QuantParams(np.float32(1), np.int32(3), -128, 127))


def scores(b, acc, scale=SCALE):
    return b.real(acc, scale)


def test_a_bias_and_a_mask_behind_a_view_and_a_factor():
    def before(b, acc):
        x = b(relax.op.add(scores(b, acc), constant(BIAS)))
        x = b(relax.op.multiply(x, constant(np.float32(0.5))))
        x = b(relax.op.reshape(x, (2, 4, *SHAPE[1:])))
        x = b(relax.op.add(x, constant(MASK)))
        return b(relax.op.reshape(x, SHAPE))

    def after(b, acc):
        x = b(dialect.offset(acc, offset_codes(BIAS, SCALE)))
        x = b(relax.op.reshape(x, (2, 4, *SHAPE[1:])))
        x = b(dialect.offset(x, offset_codes(np.maximum(MASK, -(2.0**15)), SCALE / 2)))
        return b.real(b(relax.op.reshape(x, SHAPE)), SCALE / 2)

    assert_rewrites(LowerOffset(), module(INPUTS, before), module(INPUTS, after))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((7, 8, 3, 5, 5), "added to smaller scores"), ((3, 5, 5), "a scale for each channel")],
)
def test_refusals(shape, reason):
    def body(b, acc):
        x = b(dialect.dequantize(acc, np.full(5, 0.1), np.zeros(5, int), 3))
        x = x if "channel" in reason else scores(b, acc)
        return b(relax.op.add(x, constant(np.zeros(shape, np.float32))))

    assert_declines(LowerOffset(), module(INPUTS, body), reason)


def test_sums_of_codes_and_biases_of_layers_are_left_alone():
    def codes(b, acc):
        return b(relax.op.add(scores(b, acc), b.dq(np.ones((5,), np.int8), 0.1)))

    def floats(b, x):
        return b(relax.op.add(x, constant(BIAS)))

    assert_declines(LowerOffset(), module(INPUTS, codes))
    assert_declines(LowerOffset(), module({"x": (SHAPE, "float32")}, floats))


def proven(value, reach):
    """The bounds of an offset behind codes of +-reach."""
    params = RequantizeParams(to_dyadic(0.5), 0, 0, -reach, reach)

    def body(b, x):
        return b(dialect.offset(b(dialect.requantize(x, params, "int32")), np.array(value)))

    found = check({"x": ((2, 4), "int16")}, body)
    return {what: bound for (op, what), bound in found.items() if op == "offset"}


def test_the_sum_is_proven_and_its_bound_is_reached():
    found = proven([-7, 9, 0, 3], 100)
    assert (found["sum"].low, found["sum"].high) == (-107, 109)
    assert "score beside a mask" not in found
    assert proven([SCORE_LIMIT - 100], 100)["sum"].high == SCORE_LIMIT
    with pytest.raises(RangeError, match="its sum can reach"):
        proven([SCORE_LIMIT - 99], 100)


def test_scores_beside_a_mask_are_proven_to_stay_above_it():
    found = proven([-OFFSET_LIMIT, 50, -70, 0], 100)["score beside a mask"]
    assert (found.low, found.high) == (-170, 170)
    proven([-OFFSET_LIMIT, -70], REACH - 70)
    with pytest.raises(RangeError, match="its score beside a mask can reach"):
        proven([-OFFSET_LIMIT, -70], REACH - 69)


def fused(offsets, width=2):
    """The bounds of attention with constants, all codes and zero points 0."""
    params = AttentionParams(0, 0, 0, *code_params(1e-3), *NORM)
    index = np.zeros((1, 1), np.int32)

    def body(b, qkv):
        return b(dialect.offset_attention(qkv, np.array([offsets]), index, params, "int8"))

    found = check({"qkv": ((1, 2, 3, 1, width), "int8")}, body)
    return {what: bound for (op, what), bound in found.items() if op == "offset_attention"}


def test_the_fused_scores_and_masks_are_proven():
    score = 2 * 128 * 128
    found = fused([[0, -7], [9, 0]])
    assert (found["score"].low, found["score"].high) == (-score - 7, score + 9)
    assert "score beside a mask" not in found
    found = fused([[0, -7], [9, -HIDDEN]])["score beside a mask"]
    assert (found.low, found.high) == (-score - 9, score + 9)
    fused([[0, -HIDDEN], [score - REACH, 0]])
    with pytest.raises(RangeError, match="its score beside a mask can reach"):
        fused([[0, -HIDDEN], [score - REACH - 1, 0]])
    with pytest.raises(RangeError, match="its score can reach"):
        fused([[0, 0], [SCORE_LIMIT - score + 1, 0]])
