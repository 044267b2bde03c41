"""Every bound has a case at its limit; one step more is refused, and the message names the bound.

Two bounds have none: the product and the sum of two exponentials of ``ivit_shiftgelu`` cannot
leave their types before its input or its unit does. The sum of an attention's weights cannot
before its accumulator does.
"""

import re

import numpy as np
import pytest

from tests.relay_passes.proving import check, gemm, within
from vitq.numerics.add import AddParams
from vitq.numerics.attention import AttentionParams
from vitq.numerics.dyadic import ACC_LIMIT, to_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.int_layernorm import LayerNormParams
from vitq.numerics.ivit import IvitGeluParams, IvitSoftmaxParams
from vitq.numerics.pooling import MeanParams
from vitq.numerics.requantize import RequantizeParams
from vitq.numerics.shiftgelu import GeluParams, shiftgelu_tail
from vitq.numerics.shiftmax import CODE_LIMIT, CodeParams, NormalizeParams, ShiftmaxParams
from vitq.numerics.twin_codes import ONE_RANGE
from vitq.relay_passes.dialect import calls as dialect

INT8, INT16, UINT8 = (-128, 127), (-(2**15), 2**15 - 1), (0, 255)
WORD = 2**16 - 1
CODES = CodeParams(2**30, 40, 12, CODE_LIMIT, 0, *ONE_RANGE)
NORM = NormalizeParams(2**30, 40, 0, -128, 127)
ATTENTION = AttentionParams(0, 0, 0, *CODES, *NORM)
GELU = GeluParams(0, 10**9, 1, 1, 0, 0, 1, 1, 1, 0, 127, 0, 0, -128, 127)
"""No tail but its rounding: it is taken for one step."""
TAIL = int(shiftgelu_tail(np.arange(2**15)).max())
NEAR_TAIL = int(shiftgelu_tail(np.arange(3)).max())
"""Of an input that is one code at most, with the multiplier above."""
MANY = 2**23 + 2**15 + 2**7
"""The longest row of weights of 255 whose sum is an int32."""
SQUARE = 1_518_500_249
"""The square root of 2**61, rounded down."""


def on(make, codes=INT8, shape=(1, 4), dtype="int8"):
    """An operator on one operand with codes in an interval."""
    return within([(shape, dtype, codes)], make)


def linear(bias):
    return on(lambda x: dialect.linear(x, gemm(np.ones((1, 4), np.int8), [bias]), "int8"))


def patch_embed(bias):
    layer = gemm(np.ones((1, 1, 2, 2), np.int8), [bias])
    return on(lambda x: dialect.patch_embed(x, layer, "int8"), UINT8, (1, 1, 2, 2), "uint8")


def linear_add(multiplier=1, bias=0):
    p = AddParams(0, 0, 1, multiplier, 1, 0, -128, 127)
    layer = gemm(np.ones((4, 4), np.int8), [bias] * 4, -3, 2)
    return within(
        [((2, 4), "int8", INT8), ((2, 4), "int16", (-1, 0))],
        lambda x, y: dialect.linear_add(dialect.linear(x, layer, "int8"), y, p, "int16"),
    )


def linear_gelu(bias=0, **changed):
    layer = gemm(np.ones((1, 4), np.int8), [bias], 0, 1)
    p = GELU._replace(**changed)
    return on(lambda x: dialect.linear_gelu(dialect.linear(x, layer, "int8"), p, "int8"))


def matmul(terms):
    operands = [((1, 4, terms), "int8", INT8)] * 2
    return within(operands, lambda a, b: dialect.matmul(a, b, 0, 0))


def on_scores(terms, then):
    """An operator on products that reach ``terms * 2**14``."""
    inputs = {name: ((1, 4, terms), "int8") for name in "ab"}
    return check(inputs, lambda m, a, b: m(then(m(dialect.matmul(a, b, 0, 0)))))


def requantize(zero_point):
    params = RequantizeParams(to_dyadic(0.5), zero_point, 0, -128, 127)
    return on(lambda x: dialect.requantize(x, params, "int8"), INT16, dtype="int16")


def shiftmax_codes(length=4, **changed):
    p = CODES._replace(**changed)
    return on(lambda x: dialect.shiftmax_codes(x, p), shape=(1, 1, length))


def shiftmax(length):
    p = ShiftmaxParams(2**30, 40)
    return on(lambda x: dialect.shiftmax(x, p, NORM, "int8"), shape=(1, 1, length))


def ivit_shiftmax(length=4, i0=2**20):
    return on(lambda x: dialect.ivit_shiftmax(x, IvitSoftmaxParams(i0)), shape=(1, 1, length))


def normalized_matmul(length=4, value=(-1, 1), numerator=2**30):
    norm = NORM._replace(numerator=numerator)
    operands = [((1, 2, length), "uint8", UINT8), ((1, length, 3), "int8", value)]
    return within(operands, lambda c, v: dialect.normalized_matmul(c, v, 0, norm, "int8"))


def attention(length=5, depth=8, codes=(-1, 1), **changed):
    p = ATTENTION._replace(**changed)
    return on(lambda x: dialect.attention(x, p, "int8"), codes, (1, length, 3, 2, depth))


def shiftgelu(codes, **changed):
    p = GELU._replace(**changed)
    return on(lambda x: dialect.shiftgelu(x, p, "int8"), codes, dtype="int16")


def twin_gelu(codes, **changed):
    return shiftgelu(codes, **{"split": 0, "out_shift": 0, **changed})


def ivit_shiftgelu(x_zero_point=0, i0=10):
    p = IvitGeluParams(x_zero_point, i0, 2**30, 40, 0, -128, 127)
    return on(lambda x: dialect.ivit_shiftgelu(x, p, "int8"), INT16, dtype="int16")


def layernorm(codes=(0, 1), channels=1, multiplier=1, addend=0, eps_q=1):
    m, b = (np.full(channels, value, np.int32) for value in (multiplier, addend))
    p = LayerNormParams(m, b, eps_q, 10, 10, -128, 127)
    return on(lambda x: dialect.layernorm(x, p, "int8"), codes, (1, channels), "int32")


def add(multiplier):
    p = AddParams(0, 0, 1, multiplier, 1, 0, -128, 127)
    operands = [((2, 4), "int16", (-2, 2)), ((2, 4), "int16", (-1, 1))]
    return within(operands, lambda a, b: dialect.add(a, b, p, "int16"))


def mean(zero_point):
    p = MeanParams(2**30, 40, zero_point, 0, -128, 127)
    return on(lambda x: dialect.mean(x, p, "int8"), (0, 1), (1, 1, 4))


def case(what, function, name, limit, beyond=None, **others):
    """At `limit` of one argument it is proven; at `beyond`, by default one more, it is not."""
    beyond = limit + 1 if beyond is None else beyond
    inside, outside = ({name: value, **others} for value in (limit, beyond))
    return pytest.param(what, function, inside, outside, id=f"{function.__name__}: {what}")


INPUT = "input minus zero point"
CODED = {
    "shiftmax_codes": lambda x: dialect.shiftmax_codes(x, CODES),
    "shiftmax": lambda x: dialect.shiftmax(x, ShiftmaxParams(2**30, 40), NORM, "int8"),
    "ivit_shiftmax": lambda x: dialect.ivit_shiftmax(x, IvitSoftmaxParams(9)),
}
PRODUCTS = [
    case("accumulator", linear, "bias", ACC_LIMIT - 4 * 127),
    case("accumulator", linear, "bias", 4 * 128 - ACC_LIMIT, 4 * 128 - ACC_LIMIT - 1),
    case("accumulator", patch_embed, "bias", ACC_LIMIT - 4 * 255),
    case("accumulator", linear_add, "bias", ACC_LIMIT - 4 * 127),
    case("accumulator", linear_gelu, "bias", ACC_LIMIT - 4 * 127),
    case("accumulator", matmul, "terms", 2**17 - 1),
    case("accumulator", normalized_matmul, "length", MANY),
    case("accumulator", attention, "length", MANY),
    case(INPUT, requantize, "zero_point", 2**15 - 1 - ACC_LIMIT, 2**15 - 2 - ACC_LIMIT),
    case(INPUT, requantize, "zero_point", ACC_LIMIT - 2**15),
    case("sum", add, "multiplier", ACC_LIMIT - 3),
    case("sum", add, "multiplier", 3 - ACC_LIMIT, 2 - ACC_LIMIT),
    case("sum", linear_add, "multiplier", ACC_LIMIT - 4),
    case("sum", mean, "zero_point", ACC_LIMIT),
    case("sum", mean, "zero_point", 1 - ACC_LIMIT, -ACC_LIMIT),
]
SOFTMAX = [
    *(case("score", on_scores, "terms", 2**16 - 1, then=then) for then in CODED.values()),
    case("score", attention, "depth", 2**16 - 1, codes=INT8),
    case("exponent", shiftmax_codes, "limit", CODE_LIMIT),
    case("exponent", shiftmax_codes, "limit", 19, grid_bits=1),
    case("exponent", attention, "limit", CODE_LIMIT),
    case("row sum", shiftmax_codes, "length", MANY),
    case("row sum", shiftmax, "length", 2**16 - 1),
    case("row sum", normalized_matmul, "length", MANY, value=(0, 0)),
    case("row sum", attention, "length", MANY, codes=(0, 0)),
    case("row multiplier", normalized_matmul, "numerator", 255 * 2**31 - 1),
    case("row multiplier", attention, "numerator", 255 * 2**31 - 1),
    case("unit", ivit_shiftmax, "i0", 2**20),
    case("row sum", ivit_shiftmax, "length", 2**27 - 1),
]
UP, DOWN = {"codes": (0, 1)}, {"codes": (-1, 0)}
FAR = {"in_multiplier": 2**14, "out_multiplier": 0}
GELUS = [
    case(INPUT, shiftgelu, "x_zero_point", -(2**15), -(2**15) - 1, codes=INT16),
    case(INPUT, shiftgelu, "x_zero_point", 2**15 - 1, codes=INT16),
    case(INPUT, linear_gelu, "x_zero_point", WORD),
    case("rescaled input", shiftgelu, "in_multiplier", ACC_LIMIT - 2, **UP),
    case("rescaled input", shiftgelu, "in_multiplier", ACC_LIMIT - 2, **DOWN),
    case("rescaled input", shiftgelu, "in_shift", 30, in_multiplier=0, **UP),
    case("rescaled input", shiftgelu, "farthest", 2, in_multiplier=2**30 - 2, codes=INT16),
    case("tail", shiftgelu, "tail_multiplier", (ACC_LIMIT - 2) // TAIL, **FAR, **UP),
    case(
        "tail", shiftgelu, "tail_multiplier", (ACC_LIMIT - 2) // NEAR_TAIL, **UP, out_multiplier=0
    ),
    case("tail", shiftgelu, "tail_shift", 30, **UP),
    case("sum", shiftgelu, "out_multiplier", ACC_LIMIT - 2, **UP),
    case("sum", shiftgelu, "out_multiplier", (ACC_LIMIT - 2) >> 3, up=3, **UP),
    case("sum", shiftgelu, "out_multiplier", ACC_LIMIT, **DOWN),
    case("sum", linear_gelu, "out_multiplier", ACC_LIMIT - 2),
    case("coarse range", twin_gelu, "more", 30, **UP),
    case("coarse range", twin_gelu, "twin_shift", 30, **UP),
    case("coarse range", twin_gelu, "zero_point", ACC_LIMIT - 3, **UP),
    case("coarse range", twin_gelu, "zero_point", 1 - ACC_LIMIT, -ACC_LIMIT, **DOWN),
    case(INPUT, ivit_shiftgelu, "x_zero_point", -(2**15), -(2**15) - 1),
    case(INPUT, ivit_shiftgelu, "x_zero_point", 2**15 - 1),
    case("unit", ivit_shiftgelu, "i0", 2**20),
]
LAYERNORM = [
    case("channels", layernorm, "channels", 4096),
    case("variance", layernorm, "eps_q", 2**62 - 2 - 2**14, codes=(0, 2**8)),
    case("affine sum", layernorm, "addend", ACC_LIMIT - 2**15),
    case("affine sum", layernorm, "multiplier", 2**16 - 1, addend=2**15 - 1),
    case("affine sum", layernorm, "multiplier", 1 - 2**16, -(2**16), addend=1 - 2**15),
    case(
        "sum of squares times channels",
        layernorm,
        "codes",
        (SQUARE, SQUARE),
        (SQUARE + 1, SQUARE + 1),
        channels=2,
    ),
]


@pytest.mark.parametrize(
    ("what", "prove", "inside", "outside"), [*PRODUCTS, *SOFTMAX, *GELUS, *LAYERNORM]
)
def test_one_step_beyond_is_refused(what, prove, inside, outside):
    prove(**inside)
    with pytest.raises(RangeError, match=re.escape(f"its {what} can reach [")):
        prove(**outside)
