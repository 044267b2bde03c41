import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, assert_rewrites, module
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftgelu import gelu_params, shiftgelu
from vitq.numerics.twin import Twin
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_shiftgelu import LowerShiftgelu

INPUT = {"x": ((2, 5), "int16")}
X_SCALE, SCALE = 2e-4, 0.02
CODES = np.random.default_rng(0).integers(-30000, 30000, (2, 5)).astype(np.int16)


def twin_gelu(
    zero=-3,
    split=9,
    shift=3,
    levels=14,
    low=-8,
    coarse_zero=0,
    off=0.0,
    ratio=1.0,
    other=0.0,
    dtype="int8",
):
    """Two quantizers of one GELU and their sum's; what is given differs from how it should be."""

    def body(b, x):
        gelu = b(relax.op.nn.gelu(b.dq(x, X_SCALE)))
        meet = np.float32((split - zero + off) * np.float32(SCALE))
        above = b(relax.op.subtract(gelu, relax.const(meet)))
        fine = b.dq(b.q(gelu, SCALE, zero, bounds=(low, split)), SCALE + other, zero)
        step = np.float32(SCALE) * np.float32(2**shift * ratio)
        coarse = b.q(above, step, coarse_zero, bounds=(0, levels))
        total = b(relax.op.add(fine, b.dq(coarse, step, coarse_zero)))
        bounds = (-8, 127 if dtype == "int8" else 1000)
        return b.q(total, SCALE, zero, dtype, bounds=bounds)

    return module(INPUT, body)


@pytest.mark.parametrize(("zero", "split", "shift", "levels"), [(-3, 9, 3, 14), (0, 0, 4, 7)])
def test_twin_ranges(zero, split, shift, levels):
    out = QuantParams.per_tensor(SCALE, zero, -8, split + (levels << shift))
    params = gelu_params(float(np.float32(X_SCALE)), 0, out, Twin(split, shift))
    expected = module(INPUT, lambda b, x: b(dialect.shiftgelu(x, params, "int8")))
    before = twin_gelu(zero, split, shift, levels)
    after = assert_rewrites(LowerShiftgelu(), before, expected)
    want = shiftgelu(CODES, params)
    np.testing.assert_array_equal(interpret(after, [CODES])[0], want)
    away = np.abs(want - interpret(before, [CODES])[0].astype(int))
    assert np.count_nonzero(away) <= 1 and away.max() <= 1 << shift  # a code at a boundary


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"levels": 15}, "reach beyond"),
        ({"off": 0.5}, "does not split at a code"),
        ({"ratio": 1.5}, "no power of two"),
        ({"coarse_zero": 1}, "does not begin at 0"),
        ({"low": -9}, "reach beyond"),
        ({"other": 0.01}, "other steps"),
        ({"levels": 30, "dtype": "int16"}, "do not fit a byte"),
    ],
)
def test_refusals(options, reason):
    step = LowerShiftgelu()
    step(twin_gelu(**options))
    assert reason in " ".join(step.declines.values())


def test_a_sum_of_two_other_things_stays():
    def body(b, x):
        twice = [b.dq(b.q(b.dq(x, X_SCALE), 0.05), 0.05) for _ in range(2)]
        return b.q(b(relax.op.add(*twice)), 0.1)

    assert_declines(LowerShiftgelu(), module(INPUT, body))
