"""What is known of each tensor holds for what the interpreter computes, and is not too wide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from tests.relay_passes.modules import module
from tests.relay_passes.proving import clamped, gemm, intervals
from vitq.numerics.add import AddParams
from vitq.numerics.dyadic import to_dyadic
from vitq.numerics.int_layernorm import layernorm_params
from vitq.numerics.ivit import IvitSoftmaxParams, ivit_gelu_params
from vitq.numerics.pooling import MeanParams
from vitq.numerics.qparams import QuantParams
from vitq.numerics.requantize import RequantizeParams
from vitq.numerics.shiftgelu import gelu_params
from vitq.numerics.shiftmax import code_params, normalize_params, shiftmax_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.reading.matching import constant
from vitq.relay_passes.reading.ranges import ranges_of
from vitq.relay_passes.rewriting import MAIN, bindings_of

NARROW = QuantParams(np.float32(0.01), np.int32(3), -20, 30)
LIMITS = (-20, 30)
INT8 = (-128, 127)
WEIGHT = np.array([[90, -70, 50, 30]] * 4, np.int8)
TABLE = np.arange(3 * 256).reshape(3, 256) % 50 - 20
ADD = AddParams(0, 0, 2**14, 2**14, 10, 3, *LIMITS)
EMPTY = np.zeros((0,), np.int8)


def layernorm(x):
    ones = np.ones(4, np.float32)
    return dialect.layernorm(x, layernorm_params(0.01, 1e-6, ones, 0 * ones, NARROW), "int8")


def of_scores(x):
    return dialect.shiftmax(x, shiftmax_params(0.1), normalize_params(99.0, 32640, NARROW), "int8")


LAYER = gemm(WEIGHT, [5] * 4, *LIMITS)._replace(dyadic=to_dyadic(np.full(4, 0.5)))
PARAMS = RequantizeParams(to_dyadic(0.5), 0, 3, *LIMITS)
MEAN = MeanParams(2**30, 30, 0, 3, *LIMITS)
CLAMPED = [
    lambda x: dialect.linear(x, LAYER, "int8"),
    lambda x: dialect.linear_gelu(
        dialect.linear(x, LAYER, "int8"), gelu_params(0.1, 0, NARROW), "int8"
    ),
    lambda x: dialect.linear_add(dialect.linear(x, LAYER, "int8"), x, ADD, "int8"),
    lambda x: dialect.requantize(x, PARAMS, "int8"),
    lambda x: dialect.add(x, x, ADD, "int8"),
    lambda x: dialect.mean(x, MEAN, "int8"),
    lambda x: dialect.shiftgelu(x, gelu_params(0.1, 0, NARROW), "int8"),
    lambda x: dialect.ivit_shiftgelu(x, ivit_gelu_params(0.1, 0, NARROW), "int8"),
    layernorm,
    of_scores,
]


def known(mod, inputs):
    """The last tensor's interval, and the integers that it has."""
    found = ranges_of(mod).of(bindings_of(mod[MAIN])[-1].var)
    return found, interpret(mod, inputs)[0]


@pytest.mark.parametrize("make", CLAMPED)
def test_a_clamp_is_known_and_reached(make):
    mod = module({"x": ((1, 64, 4), "int8")}, lambda b, x: b(make(x)))
    codes = np.random.default_rng(0).integers(-128, 128, (1, 64, 4)).astype(np.int8)
    codes[0, :, 1:] *= codes[0, :, 1:] > 0  # rows with one low code reach the lower end
    found, result = known(mod, [codes])
    assert found == LIMITS
    assert LIMITS[0] <= result.min() and result.max() <= LIMITS[1]


@settings(deadline=None, max_examples=30)
@given(intervals("int8"), intervals("int8"), st.integers(-128, 127), st.integers(-128, 127))
def test_products(a, b, a_zero, b_zero):
    """The magnitude of the largest product, on both sides."""

    def body(m, x, y):
        x, y = clamped(m, x, a, "int8"), clamped(m, y, b, "int8")
        return m(dialect.matmul(x, y, a_zero, b_zero))

    mod = module({"x": ((1, 4, 3), "int16"), "y": ((1, 4, 3), "int16")}, body)
    ends = [np.repeat(np.array([[[-(2**15)], [2**15 - 1]]], np.int16), 2, axis=1)] * 2
    found, result = known(mod, [np.repeat(end, 3, axis=2) for end in ends])
    assert found[0] == -found[1]
    assert np.abs(result).max() == found[1]


def test_codes_of_a_softmax():
    """Unsigned bytes whatever they are stored in; I-ViT's probabilities end at 128."""
    x = np.array([[0, -100, 100, 3]], np.int8)
    for make, wanted in (
        (lambda x: dialect.shiftmax_codes(x, code_params(0.1)), (0, 255)),
        (lambda x: dialect.ivit_shiftmax(x, IvitSoftmaxParams(10)), (0, 128)),
    ):
        mod = module({"x": ((1, 4), "int8")}, lambda b, x, make=make: b(make(x)))
        found, result = known(mod, [x])
        assert found == wanted
        assert found[0] <= result.min() and result.max() <= found[1]
    alone = module(
        {"x": ((1, 1), "int8")}, lambda b, x: b(dialect.ivit_shiftmax(x, IvitSoftmaxParams(8)))
    )
    found, result = known(alone, [x[:, :1]])
    assert result.max() == found[1]


def test_a_table_has_the_range_of_its_entries():
    mod = module(
        {"x": ((1, 3, 2, 2), "uint8")}, lambda b, x: b(dialect.lut(x, TABLE.astype(np.int8)))
    )
    pixels = np.array([0, 49, 20, 255], np.uint8).reshape(1, 1, 2, 2).repeat(3, axis=1)
    found, result = known(mod, [pixels])
    assert found == (-20, 29)
    assert found[0] <= result.min() and result.max() <= found[1]


@settings(deadline=None, max_examples=20)
@given(intervals("int8"), intervals("int8"))
def test_layout_keeps_intervals_and_concat_joins_them(a, b):
    table = constant(np.array([[[-7, 9, 0]]], np.int8))

    def body(m, x, y):
        x, y = clamped(m, x, a, "int8"), clamped(m, y, b, "int8")
        x = m(relax.op.permute_dims(m(relax.op.reshape(x, (1, 3, 2))), (0, 2, 1)))
        return m(relax.op.concat([x, m(relax.op.reshape(y, (1, 2, 3))), table], axis=1))

    mod = module({"x": ((1, 6), "int16"), "y": ((1, 6), "int16")}, body)
    ends = np.array([[-(2**15), 2**15 - 1] * 3], np.int16)
    found, result = known(mod, [ends, ends])
    assert found == (result.min(), result.max())


def test_nothing_is_known_of_inputs_but_their_type():
    mod = module({"x": ((1, 6), "uint8")}, lambda b, x: b(relax.op.reshape(x, (2, 3))))
    x = mod[MAIN].params[0]
    assert ranges_of(mod).of(x) == (0, 255)
    assert ranges_of(mod).of(constant(np.array([3, -4], np.int32))) == (-4, 3)


def test_a_tuple_that_is_joined_elsewhere_has_its_types_range():
    """What is concatenated is then unknown, even where the first part is narrow."""

    def body(m, x):
        narrow = clamped(m, x, (-3, 4), "int8")
        pair = m(relax.Tuple([narrow, narrow]))
        return m(relax.op.concat(pair, axis=1))

    mod = module({"x": ((1, 6), "int16")}, body)
    assert ranges_of(mod).of(bindings_of(mod[MAIN])[-1].var) == INT8


def test_variables_that_stand_for_others_have_their_interval():
    def body(m, x):
        return m(relax.op.reshape(m(clamped(m, x, (-3, 4), "int8")), (2, 3)))

    mod = module({"x": ((1, 6), "int16")}, body)
    assert any(isinstance(binding.value, relax.Var) for binding in bindings_of(mod[MAIN]))
    assert ranges_of(mod).of(bindings_of(mod[MAIN])[-1].var) == (-3, 4)
