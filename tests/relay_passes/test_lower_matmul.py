import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
    ops,
    random_inputs,
)
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import MAIN, bindings_of
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_matmul import LowerMatmul
from vitq.relay_passes.reading.matching import read_dequantize

INPUTS = {"a": ((2, 3, 5, 8), "int8"), "b": ((2, 3, 8, 4), "uint8")}


def product(inputs=INPUTS):
    return module(inputs, lambda m, a, b: m(relax.op.matmul(m.dq(a, 0.1, 3), m.dq(b, 0.3, 100))))


def test_the_accumulator_keeps_a_float64_scale():
    def lowered(m, a, b):
        acc = m(dialect.matmul(a, m(relax.op.permute_dims(b, [0, 1, 3, 2])), 3, 100))
        return m.real(acc, float(np.float32(0.1)) * float(np.float32(0.3)))

    after = assert_rewrites(LowerMatmul(), product(), module(INPUTS, lowered))
    a, b = random_inputs(product())
    acc = (a.astype(int) - 3) @ (b.astype(int) - 100)
    scale = read_dequantize(bindings_of(after[MAIN])[2].value).scale
    np.testing.assert_array_equal(interpret(after, [a, b])[0], acc * scale)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (((2, 3, 5, 8), "int16"), INPUTS["b"], "8 bits"),
        (INPUTS["a"], ((1, 3, 8, 4), "uint8"), "batch dimensions"),
    ],
)
def test_refusals(a, b, reason):
    assert_declines(LowerMatmul(), product({"a": a, "b": b}), reason)


def test_weights_and_deferred_normalization_are_left_to_other_passes():
    weight = np.ones((8, 4), np.int8)
    mod = module(
        {"a": ((2, 8), "int8")}, lambda m, a: m(relax.op.matmul(m.dq(a, 0.1), m.dq(weight, 0.1)))
    )
    assert_declines(LowerMatmul(), mod)

    def weights_of_attention(m, a, b):
        codes = m.q(m(relax.op.exp(m.dq(a, 0.1))), 1 / 255, 0, "uint8")
        return m(relax.op.matmul(m.dq(codes, 1 / 255), m.dq(b, 0.1)))

    after = LowerMatmul()(module(INPUTS, weights_of_attention))
    assert "matmul" in ops(after)
    assert_same_results(module(INPUTS, weights_of_attention), after)
