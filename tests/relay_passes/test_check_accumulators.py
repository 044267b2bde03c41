import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import module
from tests.relay_passes.proving import OUT, check, gemm, one
from vitq.numerics.add import AddParams
from vitq.numerics.attention import AttentionParams
from vitq.numerics.dyadic import to_dyadic
from vitq.numerics.errors import RangeError
from vitq.numerics.int_layernorm import layernorm_params
from vitq.numerics.ivit import IvitSoftmaxParams, ivit_gelu_params
from vitq.numerics.pooling import MeanParams
from vitq.numerics.requantize import RequantizeParams
from vitq.numerics.shiftgelu import gelu_params
from vitq.numerics.shiftmax import CODE_LIMIT, CodeParams, normalize_params
from vitq.numerics.twin_codes import ONE_RANGE
from vitq.relay_passes.check_accumulators import CheckAccumulators, is_proven
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import MAIN, bindings_of
from vitq.relay_passes.reading.ranges import ranges_of


def test_a_linear_bound_is_exact():
    rng = np.random.default_rng(0)
    weight, bias = rng.integers(-127, 128, (3, 4)).astype(np.int8), np.array([5, -7, 0], np.int32)
    bounds = one({"x": ((2, 4), "int8")}, lambda x: dialect.linear(x, gemm(weight, bias), "int8"))
    codes = np.array(np.meshgrid(*[[-128, 127]] * 4)).reshape(4, -1)
    acc = weight.astype(int) @ codes + bias[:, None]
    bound = bounds["linear", "accumulator"]
    assert bound.low <= acc.min() and acc.max() <= bound.high
    assert bound.high - acc.max() <= np.abs(bias).max()


def test_the_producers_bounds_are_used():
    weight, bias = np.full((1, 4), 100, np.int8), np.zeros(1, np.int32)

    def body(b, x):
        narrow = b(dialect.linear(x, gemm(np.ones((4, 4), np.int8), np.zeros(4), -8, 7), "int8"))
        moved = b(relax.op.reshape(narrow, (4, 2)))
        moved = b(relax.op.reshape(moved, (2, 4)))
        return b(dialect.linear(moved, gemm(weight, bias), "int8"))

    step = CheckAccumulators()
    step(module({"x": ((2, 4), "int8")}, body))
    assert (step.bounds[1].low, step.bounds[1].high) == (-4 * 100 * 8, 4 * 100 * 7)


def test_an_overflow_names_the_operator_and_the_numbers():
    weight = np.full((1, 150_000), 127, np.int8)
    with pytest.raises(RangeError, match=r"vitq.linear .*accumulator can reach \[-2438400000"):
        one(
            {"x": ((1, 150_000), "int8")},
            lambda x: dialect.linear(x, gemm(weight, np.zeros(1)), "int8"),
        )


def test_a_bias_at_the_limit_overflows():
    weight, bias = np.ones((1, 4), np.int8), np.array([2**31 - 1], np.int32)
    with pytest.raises(RangeError, match="accumulator"):
        one({"x": ((1, 4), "int8")}, lambda x: dialect.linear(x, gemm(weight, bias), "int8"))


def test_scores_are_held_to_their_own_limit():
    inputs = {"a": ((1, 4, 70_000), "int8"), "b": ((1, 4, 70_000), "int8")}
    params = CodeParams(2**30, 40, 12, CODE_LIMIT, 0, *ONE_RANGE)
    with pytest.raises(RangeError, match=r"shiftmax_codes .*its score can reach"):
        check(
            inputs,
            lambda m, a, b: m(dialect.shiftmax_codes(m(dialect.matmul(a, b, 0, 0)), params)),
        )


def test_zero_points_widen_products():
    inputs = {"a": ((1, 2, 8), "int8"), "b": ((1, 3, 8), "uint8")}
    bound = one(inputs, lambda a, b: dialect.matmul(a, b, 127, 0))["matmul", "accumulator"]
    assert bound.high == 8 * 255 * 255


def test_attention():
    norm = normalize_params(1.0, 255, OUT)
    params = AttentionParams(0, 0, -128, 2**30, 40, 12, CODE_LIMIT, 0, *ONE_RANGE, *norm)
    bounds = one({"x": ((1, 5, 3, 2, 8), "int8")}, lambda x: dialect.attention(x, params, "int8"))
    assert bounds["attention", "score"].high == 8 * 128 * 128
    assert bounds["attention", "accumulator"].high == 5 * 255 * 255
    long = {"x": ((1, 40_000, 3, 2, 8), "int8")}
    with pytest.raises(RangeError, match=r"attention .*accumulator"):
        one(long, lambda x: dialect.attention(x, params, "int8"))
    far = params._replace(grid_bits=1, limit=20)
    with pytest.raises(RangeError, match=r"attention .*its exponent can reach \[0, 40960\]"):
        one({"x": ((1, 5, 3, 2, 8), "int8")}, lambda x: dialect.attention(x, far, "int8"))


def test_add_and_mean():
    params = AddParams(0, 0, 2**14, 2**14, 14, 0, -128, 127)
    inputs = {"a": ((2, 4), "int16"), "b": ((2, 4), "int16")}
    bound = one(inputs, lambda a, b: dialect.add(a, b, params, "int16"))["add", "sum"]
    assert bound.high == 2 * 2**15 * 2**14 + 2**13
    too_large = params._replace(a_multiplier=2**16)
    with pytest.raises(RangeError, match=r"vitq.add"):
        one(inputs, lambda a, b: dialect.add(a, b, too_large, "int16"))
    mean = MeanParams(2**30, 40, 0, 0, -128, 127)
    with pytest.raises(RangeError, match=r"vitq.mean"):
        one({"x": ((1, 2**17, 4), "int16")}, lambda x: dialect.mean(x, mean, "int8"))


def test_shiftgelu_and_layernorm_of_all_int16_codes():
    x = {"x": ((2, 16), "int16")}
    gelu = gelu_params(1e-4, 0, OUT)
    bounds = one(x, lambda x: dialect.shiftgelu(x, gelu, "int8"))
    assert bounds["shiftgelu", "sum"].high < 2**31
    norm = layernorm_params(1e-4, 1e-6, np.ones(16, np.float32), np.zeros(16, np.float32), OUT)
    bounds = one(x, lambda x: dialect.layernorm(x, norm, "int8"))
    assert bounds["layernorm", "variance"].high < 2**62
    wrong = norm._replace(addend=np.full(16, 2**31 - 1, np.int32))
    with pytest.raises(RangeError, match=r"vitq.layernorm .*affine"):
        one(x, lambda x: dialect.layernorm(x, wrong, "int8"))


def test_fused_layers_are_bounded_in_both_steps():
    layer = gemm(np.ones((16, 4), np.int8), np.zeros(16, np.int32), -100, 90)
    inputs = {"x": ((2, 4), "int8"), "y": ((2, 16), "int16")}
    params = AddParams(10, 0, 2**14, 2**14, 14, 0, -128, 127)

    def added(x, y, p=params):
        return dialect.linear_add(dialect.linear(x, layer, "int16"), y, p, "int16")

    bounds = one(inputs, added)
    assert bounds["linear_add", "accumulator"].high == 4 * 127
    assert bounds["linear_add", "sum"].high == (110 + 2**15) * 2**14 + 2**13
    with pytest.raises(RangeError, match=r"vitq.linear_add .*its sum can reach"):
        one(inputs, lambda x, y: added(x, y, params._replace(b_multiplier=2**16)))
    gelu = gelu_params(1e-4, 0, OUT)
    fused = dialect.linear_gelu
    bounds = one(inputs, lambda x, y: fused(dialect.linear(x, layer, "int16"), gelu, "int8"))
    assert bounds["linear_gelu", "accumulator"].low == -4 * 128
    assert bounds["linear_gelu", "input minus zero point"][3:5] == (-100, 90)


def test_requantize_with_a_zero_point_beyond_int32():
    params = RequantizeParams(to_dyadic(0.5), -(2**20), 0, -128, 127)
    with pytest.raises(RangeError, match=r"vitq.requantize"):
        one({"x": ((2,), "int32")}, lambda x: dialect.requantize(x, params, "int8"))


def test_ivit_shiftmax():
    params = IvitSoftmaxParams(2**20)
    inputs = {"x": ((2, 197), "int8")}
    bounds = one(inputs, lambda x: dialect.ivit_shiftmax(x, params))
    assert bounds["ivit_shiftmax", "row sum"].high == 197 * 2**35
    assert bounds["ivit_shiftmax", "score"].low == -128
    with pytest.raises(RangeError, match=r"ivit_shiftmax .*its score can reach"):
        one({"x": ((2, 197), "int32")}, lambda x: dialect.ivit_shiftmax(x, params))
    with pytest.raises(RangeError, match=r"ivit_shiftmax .*its unit can reach"):
        one(inputs, lambda x: dialect.ivit_shiftmax(x, IvitSoftmaxParams(2**20 + 1)))
    with pytest.raises(RangeError, match=r"ivit_shiftmax .*its row sum can reach"):
        one({"x": ((1, 2**27), "int8")}, lambda x: dialect.ivit_shiftmax(x, params))


def test_the_second_product_knows_that_ivit_probabilities_end_at_128():
    inputs = {"x": ((1, 2, 8), "int8"), "v": ((1, 4, 8), "int8")}

    def body(b, x, v):
        codes = b(dialect.ivit_shiftmax(x, IvitSoftmaxParams(10)))
        return b(dialect.matmul(codes, v, 0, 0))

    assert check(inputs, body)["matmul", "accumulator"].high == 8 * 128 * 128


def test_ivit_shiftgelu_of_all_codes():
    params = ivit_gelu_params(2.0**-20, 0, OUT)
    bounds = one({"x": ((2, 16), "int16")}, lambda x: dialect.ivit_shiftgelu(x, params, "int8"))
    assert bounds["ivit_shiftgelu", "sum of two exponentials"].high == 2**44
    assert bounds["ivit_shiftgelu", "product"].low == -(2**22)
    moved = params._replace(x_zero_point=-(2**15) - 1)
    with pytest.raises(RangeError, match=r"ivit_shiftgelu .*input minus zero point"):
        one({"x": ((2, 16), "uint16")}, lambda x: dialect.ivit_shiftgelu(x, moved, "int8"))


def test_all_intermediates_must_fit():
    """Scores fit, their exponents do not."""
    inputs = {"x": ((1, 4), "int8")}
    for limit, wanted in ((CODE_LIMIT, True), (CODE_LIMIT + 1, False)):
        params = CodeParams(2**30, 40, 12, limit, 0, *ONE_RANGE)
        mod = module(inputs, lambda b, x, p=params: b(dialect.shiftmax_codes(x, p)))
        call = bindings_of(mod[MAIN])[0].value
        assert is_proven(call, ranges_of(mod)) == wanted
