"""Log codes against the papers' equations in floats, Python integers and plain shifts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError
from vitq.numerics.log_codes import (
    LEVELS,
    MAX_CODE_ERROR,
    STEPS,
    code_table,
    describe_codes,
    log_code_params,
)
from vitq.numerics.matmul import int_matmul
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import (
    CODE_LIMIT,
    CODE_MAX,
    SMALLEST_CODE_SUM,
    code_params,
    normalize_params,
    normalized_matmul,
    shiftmax_codes,
)
from vitq.numerics.twin_codes import TwinCodes

EVERY = [(steps, levels) for steps in STEPS for levels in LEVELS]
rows = hnp.arrays(np.int16, hnp.array_shapes(max_dims=3, max_side=9))


@settings(deadline=None)
@given(rows, st.floats(2.0**-20, 2.0), st.sampled_from(EVERY), st.booleans())
def test_codes_match_python_integers(
    x: IntArray, scale: float, grid: tuple[int, int], zero: bool
) -> None:
    """Distance, grid, limit, weight: each as the module writes it."""
    steps, levels = grid
    p = log_code_params(scale, steps, levels, zero)
    found = shiftmax_codes(x, p)
    for row, got in zip(x.reshape(-1, x.shape[-1]), found.reshape(-1, x.shape[-1]), strict=True):
        for value, weight in zip(row.tolist(), got.tolist(), strict=True):
            d = int(row.max()) - value
            k = (d * p.multiplier + (1 << (p.shift - 1))) >> p.shift
            beyond = zero and k >= levels
            k = min(k, levels - 1)
            expected = 0 if beyond else round(255 * 2.0 ** (-k / steps))
            assert abs(weight - expected) <= 1 if steps > 2 else weight == expected


@pytest.mark.parametrize(("steps", "levels"), EVERY)
def test_every_weight_is_a_power_of_two(steps: int, levels: int) -> None:
    """The stated error, and 0 exactly where the limit stands for all that is farther."""
    table = code_table(log_code_params(0.01, steps, levels, zero=False))
    exact = 255 * 2.0 ** (-np.arange(len(table)) / steps)
    assert np.abs(table - exact).max() <= MAX_CODE_ERROR
    assert table[0] == CODE_MAX and np.all(np.diff(table) <= 0)
    assert len(table) == levels or (table[-1] == 0 and len(table) == 10 * steps < levels)
    assert (len(table) - 1) << (12 - steps.bit_length() + 1) <= CODE_LIMIT


def test_constants_are_as_documented() -> None:
    assert STEPS == (1, 2, 4, 8) and LEVELS == (4, 8, 16, 32, 64, 128, 256)
    assert 0.5 < MAX_CODE_ERROR < 0.55


@pytest.mark.parametrize(
    ("steps", "said"),
    [(1, "log2, 8 weights"), (2, "log sqrt 2, 8 weights"), (4, "log 2**(1/4), 8 weights"),
     (8, "log 2**(1/8), 8 weights")],
)  # fmt: skip
def test_a_person_reads(steps: int, said: str) -> None:
    assert describe_codes(log_code_params(0.01, steps, 8, zero=False)) == said


def test_a_person_reads_of_other_codes() -> None:
    assert describe_codes(code_params(0.01)) == "uniform"
    assert describe_codes(code_params(0.01, TwinCodes(2, 5))) == "twin, steps of 4 and 32"


def test_known_weights() -> None:
    """Written out: four bits of log2 and of log sqrt 2, with and without a weight of 0."""
    log2 = code_table(log_code_params(0.01, 1, 16, zero=False))
    assert log2.tolist() == [255, 128, 64, 32, 16, 8, 4, 2, 1, 0]
    sqrt2 = [255, 180, 128, 90, 64, 45, 32, 23, 16, 11, 8, 6, 4, 3, 2, 1]
    assert code_table(log_code_params(0.01, 2, 16, zero=False)).tolist() == sqrt2
    assert code_table(log_code_params(0.01, 2, 16, zero=True)).tolist() == [*sqrt2, 0]


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("steps", STEPS)
def test_papers_equation(steps: int, zero: bool) -> None:
    """``clamp(round(-r log2(p)), 0, 2**b - 1)`` of the float exponential, ties aside."""
    scale, levels = 0.0031, 16
    distance = np.arange(6000)
    exact = steps * distance * scale / np.log(2)
    k = np.round(exact)
    wanted = 255 * 2.0 ** (-np.minimum(k, levels - 1) / steps)
    if zero:
        wanted[k >= levels] = 0
    weights = shiftmax_codes(-distance, log_code_params(scale, steps, levels, zero))
    apart = np.abs(exact - np.floor(exact) - 0.5) > 1e-6
    assert np.count_nonzero(~apart) < 3
    assert np.abs(weights - wanted)[apart].max() <= MAX_CODE_ERROR


@pytest.mark.parametrize("steps", [1, 2])
def test_a_product_with_weights_is_a_sum_of_shifts(steps: int) -> None:
    """The dot product of weights and V has the integers of shifting V by the codes."""
    rng = np.random.default_rng(steps)
    value = rng.integers(-128, 128, (50, 24))
    distance = rng.integers(0, 900, (6, 50))
    distance[:, 0] = 0
    p = log_code_params(0.007, steps, 16, zero=False)
    product = int_matmul(shiftmax_codes(-distance, p), value)

    k = np.minimum((distance * p.multiplier + (1 << (p.shift - 1))) >> p.shift, p.limit)
    shifted = np.zeros_like(product)
    for row, codes in enumerate(k):
        for code, v in zip(codes, value, strict=True):
            n = int(code) // steps
            if code % steps == 0:
                shifted[row] += ((v << 8) >> n) - (v if code == 0 else 0) if n <= 8 else 0
            else:  # 180 = 0b10110100 = 255 / sqrt(2), rounded to n places
                half = (1 << n) >> 1
                odd = (180 + half) >> n
                shifted[row] += sum((v << bit) for bit in range(8) if odd >> bit & 1)
    np.testing.assert_array_equal(product, shifted)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(-128, 127), st.sampled_from(EVERY), st.booleans())
def test_attention_keeps_a_constant(
    tokens: int, value: int, grid: tuple[int, int], zero: bool
) -> None:
    """The denominator is the sum of the same weights: no mass is lost."""
    x = np.random.default_rng(tokens).integers(-3000, 3000, (3, tokens))
    codes = shiftmax_codes(x, log_code_params(0.001, *grid, zero))
    out = QuantParams.per_tensor(0.5, 3, -128, 127)
    norm = normalize_params(1.0, SMALLEST_CODE_SUM, out)
    result = normalized_matmul(codes, np.full((tokens, 2), value), 3, norm)
    np.testing.assert_array_equal(result, np.full((3, 2), value))


@pytest.mark.parametrize(("steps", "levels"), [(3, 16), (16, 16), (2, 15), (2, 512), (0, 4)])
def test_other_grids_are_refused(steps: int, levels: int) -> None:
    """Only what kernels execute."""
    with pytest.raises(VitqError, match="choose steps 1, 2, 4, 8, levels 4, 8, 16"):
        log_code_params(0.01, steps, levels, zero=False)
