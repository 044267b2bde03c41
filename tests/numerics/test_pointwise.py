"""Tables of functions against exact ones, and the powers that they are made of."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitq.numerics import pointwise as module
from vitq.numerics.errors import RangeError, VitqError
from vitq.numerics.pointwise import (
    CLAMPS,
    MAX_ERROR,
    QUICK_GELU_FACTOR,
    TABLES,
    Source,
    clamp_bounds,
    function_values,
    pointwise_table,
)
from vitq.numerics.qparams import QuantParams

SLOPE = float(np.float32(0.3))


def test_constants_are_as_documented() -> None:
    assert (MAX_ERROR, module.FRACTION_LIMIT, module.OUTPUT_BITS) == (2.0**-23, 30, 17)
    assert (module.RATIO_BITS, module.PROBE_BITS) == (28, 25)
    assert float(np.float32(1.702)) == QUICK_GELU_FACTOR
    assert (module.LOG2_E, module.LN_2) == (1 / math.log(2), math.log(2))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


EXACT: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "elu": lambda x: x if x >= 0 else SLOPE * math.expm1(x),
    "exp": math.exp,
    "hardsigmoid": lambda x: min(max(x + 3, 0), 6) / 6,
    "hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "leaky_relu": lambda x: x if x >= 0 else SLOPE * x,
    "log_sigmoid": lambda x: -softplus(-x),
    "mish": lambda x: x * math.tanh(softplus(x)),
    "quick_gelu": lambda x: x * sigmoid(QUICK_GELU_FACTOR * x),
    "reciprocal": lambda x: 1 / x if x else math.inf,
    "rsqrt": lambda x: 1 / math.sqrt(x) if x > 0 else math.nan if x else math.inf,
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "softplus": softplus,
    "softsign": lambda x: x / (1 + abs(x)),
    "square": lambda x: x * x,
    "tanh": math.tanh,
}

STEEP = {"reciprocal": 1.0, "rsqrt": 0.5}
"""Functions whose error is relative: what part of the input's."""
GENTLE = sorted(set(TABLES) - set(STEEP))


def parameter(name: str) -> float | None:
    return SLOPE if name in ("elu", "leaky_relu") else None


def test_each_table_has_an_exact_function() -> None:
    assert set(EXACT) == set(TABLES)


@pytest.mark.parametrize("reach", [0.02, 3.0, 40.0])
@pytest.mark.parametrize("name", GENTLE)
def test_a_table_is_within_its_error(name: str, reach: float) -> None:
    """All 4096 codes, each half a step and `MAX_ERROR` off; the output has 16 bits."""
    source = Source(float(np.float32(reach / 2048)), 5, -2048, 2047, 16)
    real = [(code - 5) * source.scale for code in range(-2048, 2048)]
    exact = np.array([EXACT[name](x) for x in real])
    largest = float(np.abs(exact).max())
    out = QuantParams.per_tensor(largest / 32000, 0, -(2**15), 2**15 - 1)
    found = pointwise_table(name, source, out, parameter(name))
    error = np.abs(found - exact / float(out.scale))
    slope = max(1.0, 2 * reach) if name == "square" else max(1.0, largest if name == "exp" else 1)
    bound = MAX_ERROR * max(2**16 * source.scale, 1.0) * slope
    assert error.max() <= 0.5 + bound / float(out.scale)


@pytest.mark.parametrize("name", STEEP)
@pytest.mark.parametrize("scale", [2e-6, 0.001, 7.0])
@pytest.mark.parametrize("finest", [1, 30])
def test_steep_functions_are_relatively_exact(name: str, scale: float, finest: int) -> None:
    """All 32,768 codes >= 0; the output reaches to that of code `finest`, the rest is clamped."""
    source = Source(float(np.float32(scale)), 0, 0, 2**15 - 1, 16)
    out = QuantParams.per_tensor(EXACT[name](finest * scale) / 32000, 0, -(2**15), 2**15 - 1)
    found = pointwise_table(name, source, out)
    exact = np.array([EXACT[name](code * source.scale) for code in range(2**15)])
    exact = np.minimum(exact / float(out.scale), 2**15 - 1)
    fraction = min(30, 30 - int(np.frexp(2**16 * source.scale)[1]))
    relative = 2.0 ** -(fraction + 1) / (source.scale * np.maximum(np.arange(2**15), 1))
    relative = 1.001 * STEEP[name] * relative + (2.0**-16 if name == "rsqrt" else 0)
    # 0.001 of a step, and of the bound: what is rounded down after
    assert np.all(np.abs(found - exact) <= 0.501 + exact * relative)
    assert found[0] == 2**15 - 1


def test_reciprocals_keep_the_sign() -> None:
    source, out = Source(0.5, 0, -8, 7, 8), QuantParams.per_tensor(0.25, 0, -128, 127)
    assert pointwise_table("reciprocal", source, out)[[0, 4, 8, 12]].tolist() == [-1, -2, 127, 2]


@pytest.mark.parametrize("name", sorted(set(TABLES) - {"rsqrt"}))
def test_affine_bytes_are_clamped(name: str) -> None:
    """8-bit inputs and outputs with zero points and bounds of their own."""
    source, out = Source(0.03, 101, 0, 255, 8), QuantParams.per_tensor(0.02, -100, -120, 90)
    found = pointwise_table(name, source, out, parameter(name))
    exact = np.array([EXACT[name]((code - 101) * 0.03) for code in range(256)])
    # 1e-4 of a step: where a value is so near to a tie, either code is right
    low, high = (np.floor(exact / float(out.scale) + 0.5 + end) - 100 for end in (-1e-4, 1e-4))
    assert np.all(np.clip(low, -120, 90) <= found) and np.all(found <= np.clip(high, -120, 90))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(set(GENTLE) - {"exp", "square"})), st.floats(2e-6, 1e4))
def test_any_scale_is_exact_to_a_step(name: str, scale: float) -> None:
    """And monotone functions are monotone."""
    source = Source(scale, 0, -128, 127, 8)
    exact = np.array([EXACT[name](code * scale) for code in range(-128, 128)])
    out = QuantParams.per_tensor(float(np.abs(exact).max()) / 127, 0, -128, 127)
    found = pointwise_table(name, source, out, parameter(name))
    np.testing.assert_allclose(found, exact / float(out.scale), atol=0.502 + 4e-8 / scale)
    if name in (
        "sigmoid",
        "tanh",
        "elu",
        "leaky_relu",
        "softplus",
        "softsign",
        "hardsigmoid",
        "log_sigmoid",
    ):
        assert np.all(np.diff(found) >= 0)


@pytest.mark.parametrize("name", CLAMPS)
def test_clamps_are_bounds_of_the_quantizer(name: str) -> None:
    """Quantizing the clamped values is clamping their codes."""
    low, high = CLAMPS[name]
    for zero in (-128, -20, 127):
        out = QuantParams.per_tensor(0.07, zero, -128, 127)
        x = np.linspace(-20, 20, 4001, dtype=np.float32)
        codes = np.clip(np.rint(x / out.scale) + zero, *clamp_bounds(CLAMPS[name], out))
        wanted = np.clip(np.rint(np.clip(x, low, high) / out.scale) + zero, -128, 127)
        np.testing.assert_array_equal(codes, wanted)


@pytest.mark.parametrize("name", TABLES)
def test_an_entry_depends_on_its_code_alone(name: str) -> None:
    """A table of fewer codes is a part of the larger one."""
    out = QuantParams.per_tensor(0.013, 7, -128, 127)
    whole = pointwise_table(name, Source(0.004, 3, -2048, 2047, 16), out, parameter(name))
    part = pointwise_table(name, Source(0.004, 3, -200, 99, 16), out, parameter(name))
    np.testing.assert_array_equal(part, whole[2048 - 200 : 2048 + 100])


@pytest.mark.parametrize("name", [*TABLES, *CLAMPS])
def test_functions_are_recognized_by_their_values(name: str) -> None:
    x = np.linspace(-12, 12, 97)
    found = function_values(name, x, parameter(name))
    exact = np.clip(x, *CLAMPS[name]) if name in CLAMPS else [EXACT[name](v) for v in x]
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-6)


def test_refusals() -> None:
    out, source = QuantParams.per_tensor(0.1, 0, -128, 127), Source(0.1, 0, -128, 127, 8)
    with pytest.raises(VitqError, match="no table for gelu: known are abs, elu"):
        pointwise_table("gelu", source, out)
    with pytest.raises(VitqError, match=r"tanh takes no parameter: 0\.5 given"):
        pointwise_table("tanh", source, out, 0.5)
    with pytest.raises(RangeError, match=r"a function's input reaches 2\.56e\+12: check"):
        pointwise_table("silu", Source(1e10, 0, -128, 127, 8), out)
