import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops, random_inputs
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import (
    SMALLEST_CODE_SUM,
    code_params,
    normalize_params,
    normalized_matmul,
    shiftmax_codes,
)
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_normalized_matmul import LowerNormalizedMatmul

INPUTS = {"s": ((2, 3, 5), "int16"), "v": ((2, 5, 4), "int8")}
PARAMS = code_params(2e-4)


def attention(sum_axis=-1, of_codes=True, sum_scale=1 / 255, out=(0.02, 5)):
    def body(b, s, v):
        codes = b(dialect.shiftmax_codes(s, PARAMS)) if of_codes else s
        codes = codes if of_codes else b.q(b.dq(s, 1e-5), 1 / 255, 0, "uint8")
        weights = b.dq(codes, 1 / 255)
        product = b(relax.op.matmul(weights, b.dq(v, 0.03, 2)))
        summed = weights if sum_scale == 1 / 255 else b.dq(codes, sum_scale)
        total = b(relax.op.sum(summed, axis=sum_axis, keepdims=True))
        if sum_axis != -1:
            total = b(relax.op.reshape(total, (2, 5, 1)))
            total = b(relax.op.strided_slice(total, [1], [0], [3]))
        return b.q(b(relax.op.divide(product, total)), *out)

    return module(INPUTS, body)


def test_integers_and_structure():
    after = LowerNormalizedMatmul()(attention())
    assert ops(after) == [names.SHIFTMAX_CODES, names.NORMALIZED_MATMUL]
    s, v = random_inputs(attention())
    out = QuantParams(np.float32(0.02), np.int32(5), -128, 127)
    factor = float(np.float32(0.03)) / float(np.float32(0.02))
    norm = normalize_params(factor, SMALLEST_CODE_SUM, out)
    want = normalized_matmul(shiftmax_codes(s, PARAMS), v, 2, norm)
    np.testing.assert_array_equal(interpret(after, [s, v])[0], want)
    assert np.abs(want - interpret(attention(), [s, v])[0]).max() <= 1  # ties


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (attention(of_codes=False), "do not come from a Shiftmax"),
        (attention(sum_scale=1 / 256), "other values than the weights"),
        (attention(out=(np.full(4, 0.02),)), "a scale for each channel"),
        (attention(sum_axis=1), "not (codes @ v) / sum(codes)"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerNormalizedMatmul(), mod, reason)
