import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, assert_rewrites, module
from vitq.export.qdq import LOG_OF_2
from vitq.numerics.log_codes import log_code_params
from vitq.numerics.shiftmax import shiftmax_codes
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_shiftmax import LowerShiftmax

INPUT = {"x": ((2, 3, 7), "int32")}
SCALE = 0.00123456789
SCORES = np.random.default_rng(1).integers(-5000, 5000, (2, 3, 7)).astype(np.int32)


def number(value):
    return relax.const(np.float32(value))


def on_a_grid(
    r=2.0, last=15.0, zero=False, up=None, half=0.5, beyond=1000.0, size=None, axis=-1, other=False
):
    """An exponential on a grid; what is given differs from how it should be written."""

    def body(b, x):
        x = b.real(x, SCALE)
        distance = b(relax.op.subtract(b(relax.op.max(x, axis=axis, keepdims=True)), x))
        up_by = r * np.log2(np.e) if up is None else up
        k = b(relax.op.multiply(distance, number(up_by)))
        k = b(relax.op.floor(b(relax.op.add(k, number(half)))))
        read = b(relax.op.add(k, number(1))) if other else k
        far = b(relax.op.greater(read, number(last)))
        k = b(relax.op.where(far, number(beyond if zero else last), k))
        k = b(relax.op.multiply(k, number(-LOG_OF_2 / r if size is None else size)))
        return b.q(b(relax.op.exp(k)), 1 / 255, 0, "uint8")

    return module(INPUT, body)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize(("steps", "bits"), [(1, 4), (2, 4), (2, 3), (4, 5), (8, 8)])
def test_log_codes(steps, bits, zero):
    params = log_code_params(SCALE, steps, 2**bits, zero)
    expected = module(INPUT, lambda b, x: b(dialect.shiftmax_codes(x, params)))
    before = on_a_grid(float(steps), 2.0**bits - 1, zero)
    after = assert_rewrites(LowerShiftmax(), before, expected)
    want = shiftmax_codes(SCORES, params)
    np.testing.assert_array_equal(interpret(after, [SCORES])[0], want)
    # One step of a weight where the polynomial's mantissa rounds the other way.
    assert np.abs(want - interpret(before, [SCORES])[0].astype(int)).max() <= int(steps > 2)


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (on_a_grid(r=3.0), "none of numerics.log_codes"),
        (on_a_grid(last=14.0), "none of numerics.log_codes"),
        (on_a_grid(up=2.8), "none of numerics.log_codes"),
        (on_a_grid(size=-0.35), "none of numerics.log_codes"),
        (on_a_grid(half=0.0), "not rounded half up"),
        (on_a_grid(zero=True, beyond=17.0), "neither what that does nor 0"),
        (on_a_grid(zero=True, other=True), "neither what that does nor 0"),
        (on_a_grid(axis=1), "not over the last axis"),
    ],
)
def test_other_grids_stay(mod, reason):
    assert_declines(LowerShiftmax(), mod, reason)


def test_an_exponential_of_a_product_stays():
    def body(b, x):
        x = b.real(x, SCALE)
        scaled = b(relax.op.multiply(b(relax.op.subtract(x, b(relax.op.max(x, -1, True)))), x))
        return b.q(b(relax.op.exp(scaled)), 1 / 255, 0, "uint8")

    assert_declines(LowerShiftmax(), module(INPUT, body), "not constant")
