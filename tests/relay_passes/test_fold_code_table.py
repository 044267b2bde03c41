import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, assert_rewrites, module
from vitq.numerics.log_codes import log_code_params
from vitq.numerics.shiftmax import code_params, shiftmax_codes
from vitq.numerics.twin_codes import TwinCodes, twin_weights
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.fold_code_table import FoldCodeTable
from vitq.relay_passes.interpreter.interpreter import interpret

INPUT = {"x": ((2, 3, 7), "int32")}
SCALE = 0.0123456789
SCORES = np.random.default_rng(1).integers(-200, 200, (2, 3, 7)).astype(np.int32)
UNIFORM = code_params(SCALE)


def looked_up(table, params=UNIFORM, wraps=True):
    """A table's entries by code, as the ONNX frontend writes a Gather."""

    def body(b, x):
        i = b(relax.op.astype(b(dialect.shiftmax_codes(x, params)), "int32"))
        if wraps:
            negative = b(relax.op.less(i, relax.const(0)))
            i = b(relax.op.where(negative, b(relax.op.add(i, relax.const(256))), i))
        return b(relax.op.take(relax.const(table.astype(np.uint8)), i, axis=0))

    return module(INPUT, body)


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("twin", [(0, 3), (2, 5)])
def test_a_table_of_two_ranges(twin, wraps):
    before = looked_up(twin_weights(np.arange(256), TwinCodes(*twin)), wraps=wraps)
    params = code_params(SCALE, TwinCodes(*twin))
    expected = module(INPUT, lambda b, x: b(dialect.shiftmax_codes(x, params)))
    after = assert_rewrites(FoldCodeTable(), before, expected)
    want = shiftmax_codes(SCORES, params)
    np.testing.assert_array_equal(interpret(after, [SCORES])[0], want)
    np.testing.assert_array_equal(interpret(before, [SCORES])[0], want)


def test_refusals():
    table = twin_weights(np.arange(256), TwinCodes(2, 5))
    other = table.copy()
    other[7] += 1
    assert_declines(FoldCodeTable(), looked_up(other), "no two ranges")
    assert_declines(FoldCodeTable(), looked_up(table[:128]), "no two ranges")
    log = log_code_params(SCALE, 2, 16, zero=True)
    assert_declines(FoldCodeTable(), looked_up(table, log), "not uniform")
    twice = code_params(SCALE, TwinCodes(1, 5))
    assert_declines(FoldCodeTable(), looked_up(table, twice), "not uniform")


def test_other_indices_stay():
    def body(b, x):
        return b(relax.op.take(relax.const(np.arange(256, dtype=np.uint8)), x, axis=0))

    step = FoldCodeTable()
    assert_declines(step, module(INPUT, body))
    assert step.declines == {}
