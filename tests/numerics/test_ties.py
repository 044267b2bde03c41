"""Every rounding of the contract at its ties: they are enumerated, and there are some.

A rounding that is half a step off shows at ties alone, which random codes hit seldom. Each test
compares with Python integers and fails where its codes hold no tie.
"""

import math

import numpy as np
import pytest

from vitq.numerics.add import AddParams, int_add
from vitq.numerics.dyadic import (
    Dyadic,
    addend,
    rescale,
    scalar_dyadic,
    to_dyadic,
    to_shared_dyadic,
)
from vitq.numerics.exp2 import COEFFICIENTS, ONE, exp2_fraction, mulhrs
from vitq.numerics.int_layernorm import LayerNormParams, int_layernorm, layernorm_params
from vitq.numerics.ivit import ivit_softmax_params
from vitq.numerics.log_codes import STEPS
from vitq.numerics.qparams import QuantParams, quantize
from vitq.numerics.shiftgelu import GeluParams, shiftgelu, shiftgelu_tail
from vitq.numerics.shiftmax import (
    CODE_LIMIT,
    WIDE_LIMIT,
    CodeParams,
    NormalizeParams,
    ShiftmaxParams,
    code_weights,
    normalize,
    normalize_params,
    shiftmax,
    shiftmax_codes,
)
from vitq.numerics.twin_codes import ONE_RANGE, TWIN_BITS, twin_choices, twin_weights

WIDE = QuantParams.per_tensor(1.0, 0, -(2**31) + 1, 2**31 - 1)


class Ties:
    """Rounds half up, and counts the ties."""

    def __init__(self) -> None:
        self.count = 0

    def shifted(self, value: int, shift: int) -> int:
        """``value / 2**shift``."""
        whole, rest = divmod(value, 2**shift)
        self.count += 2 * rest == 2**shift
        return whole + (2 * rest >= 2**shift)

    def mulhrs(self, a: int, b: int) -> int:
        """The product of two Q15 numbers."""
        return self.shifted(a * b, 15)

    def power(self, fraction: int) -> int:
        """``exp2_fraction`` of one fraction."""
        c0, c1, c2, c3 = COEFFICIENTS
        y = c2 + self.mulhrs(c3, fraction)
        return c0 + self.mulhrs(c1 + self.mulhrs(y, fraction), fraction)


def test_products_of_words() -> None:
    """All a with b = 2**14, where every other product is a tie, of both signs."""
    ties, codes = Ties(), np.arange(-(2**15), 2**15)
    for b in (2**14, -(2**14)):
        assert mulhrs(codes, b).tolist() == [ties.mulhrs(a, b) for a in codes.tolist()]
    assert ties.count == 2 * 2**15


def test_powers_of_two() -> None:
    """All fractions; some of the cubic's steps end on a tie."""
    ties, fractions = Ties(), np.arange(2**15)
    assert exp2_fraction(fractions).tolist() == [ties.power(f) for f in range(2**15)]
    assert ties.count > 0


@pytest.mark.parametrize("grid_bits", [12, *(step.bit_length() - 1 for step in STEPS)])
def test_weights_of_attention(grid_bits: int) -> None:
    """All exponents of ten octaves, of the finest grid and of the log codes' own."""
    ties, rounded = Ties(), Ties()
    limit = CODE_LIMIT >> (12 - grid_bits)
    p = CodeParams(1, 1, grid_bits, limit, 0, *ONE_RANGE)
    octave = 1 << grid_bits
    mantissas = [rounded.power((k << 15) // octave) for k in range(octave)]
    wanted = [ties.shifted(mantissas[k % octave], 7 + k // octave) for k in range(limit + 1)]
    assert code_weights(np.arange(limit + 1), p).tolist() == wanted
    assert ties.count == (66 if grid_bits == 12 else 1)


def test_exponents() -> None:
    """A distance that lies between two exponents; the softmax takes the larger one, both forms."""
    distance = np.arange(0, -64, -1)
    found = shiftmax_codes(distance, CodeParams(1, 1, 0, 9, 0, *ONE_RANGE))
    ties = Ties()
    octaves = [min(ties.shifted(d, 1), 9) for d in range(64)]
    assert found.tolist() == [(ONE + (1 << (6 + n))) >> (7 + n) for n in octaves]
    assert ties.count == 32


def test_exponentials_of_sixteen_octaves() -> None:
    """The wide form's own rounding, undone by a division that is exact."""
    ties, rounded = Ties(), Ties()
    norm = NormalizeParams(1 << 46, 16, 0, 0, 2**31 - 1)
    mantissas = [rounded.power(f << 3) for f in range(4096)]
    wanted = [ties.shifted(mantissas[t % 4096], t // 4096) for t in range(WIDE_LIMIT + 1)]
    octaves = ShiftmaxParams(2, 1)
    for start in range(0, WIDE_LIMIT, 4096):
        distance = np.stack([np.zeros(4096, np.int64), -np.arange(start, start + 4096)], axis=1)
        found = shiftmax(distance, octaves, norm)
        for (_, got), e in zip(found.tolist(), wanted[start : start + 4096], strict=True):
            multiplier = (1 << 46) // (ONE + e)
            assert got == (e * multiplier + (1 << 15)) >> 16
    assert ties.count > 100


def test_normalization() -> None:
    """A row's multiplier of one: its accumulators over two."""
    ties, acc = Ties(), np.arange(-9, 10)
    p = NormalizeParams(255, 1, 0, -100, 100)
    wanted = [ties.shifted(a, 1) for a in acc.tolist()]
    assert normalize(acc, np.array([255]), p).tolist() == wanted
    assert ties.count == 10


@pytest.mark.parametrize("shift", [*range(1, 32), 46])
def test_rescaling(shift: int) -> None:
    """Ties on both sides of zero at every shift; the folded addend has the same ones."""
    ties, multiplier = Ties(), 1 << max(shift - 31, 0)
    near = [k * 2**shift // multiplier + d for k in (-3, -2, -1, 0, 1) for d in (-1, 0, 1)]
    acc = np.array([(n + 2**shift // multiplier // 2) for n in near])
    acc = acc[np.abs(acc) < 2**31]
    wanted = [ties.shifted(a * multiplier, shift) for a in acc.tolist()]
    one = Dyadic(np.array([multiplier], np.int32), np.array([shift], np.int32))
    assert rescale(acc, scalar_dyadic(multiplier, shift)).tolist() == wanted
    folded = (acc * multiplier + addend(np.array([0]), one, 5)) >> shift
    assert folded.tolist() == [w + 5 for w in wanted]
    assert ties.count > 1


def test_addition() -> None:
    """Sums that lie between two codes, at shifts from the smallest on."""
    for shift in (1, 2, 14, 30):
        ties, half = Ties(), 1 << (shift - 1)
        p = AddParams(0, 1, half, 1, shift, 3, -100, 100)
        a, b = np.arange(-9, 9), np.ones(18, np.int64)
        wanted = [ties.shifted(x * half, shift) + 3 for x in a.tolist()]
        assert int_add(a, b, p).tolist() == wanted
        assert ties.count == 9


def gelu_literal(x: int, p: GeluParams, lines: list[Ties]) -> int:
    """The module's formula; a counter for each of its roundings."""
    rescaled, tailed, out, last, above = lines
    eighth = rescaled.shifted(min(abs(x), p.farthest) * p.in_multiplier, p.in_shift)
    tail = int(shiftgelu_tail(np.array(2 * eighth))) * p.tail_multiplier
    rest = max(x, 0) * 2**p.up - tailed.shifted(tail, p.tail_shift)
    t = out.shifted(rest * p.out_multiplier, p.out_shift)
    fine = min(max(last.shifted(t, p.more) + p.zero_point, p.qmin), p.split)
    coarse = above.shifted(t - p.split_steps, p.more + p.twin_shift)
    coarse = min(max(coarse, 0), (p.qmax - p.split) >> p.twin_shift)
    return fine + coarse * 2**p.twin_shift


def test_gelu() -> None:
    """All five of its roundings have ties, with multipliers that are powers of two."""
    p = GeluParams(0, 2000, 8, 2, 1, 64, 9, 2, 2, 2, 20, 2, 1, -100, 127)
    lines = [Ties() for _ in range(5)]
    codes = np.arange(-3000, 3000)
    odd = p._replace(in_multiplier=2)
    for q in (p, odd):
        found = shiftgelu(codes, q).tolist()
        assert found == [gelu_literal(x, q, lines) for x in codes.tolist()]
    assert all(line.count for line in lines)


def test_tail() -> None:
    """All distances: each of the cubic's products, the power and the last product."""
    ties, shifts = Ties(), Ties()

    def literal(v: int) -> int:
        g = 2055 + ties.mulhrs(9251 + ties.mulhrs(16345 + ties.mulhrs(3262, v), v), v)
        y = Ties().power(g % 2048 * 16)
        return ties.mulhrs(v, shifts.shifted(y, g // 2048))

    assert shiftgelu_tail(np.arange(2**15)).tolist() == [literal(v) for v in range(2**15)]
    assert ties.count > 0 and shifts.count > 0


def test_layernorm() -> None:
    """Both of its roundings: the normalized value, and the affine sum."""
    ties = Ties()
    ones = np.ones(2, np.int32)
    p = LayerNormParams(ones, 2 * ones, 1, 14, 2, -(2**15), 2**15 - 1)
    # eps makes V = 4 d**2 a power of four, so that the reciprocal is all ones: nearly 1.
    for d in range(1, 200):
        row = np.array([[-d, d]])
        result = int_layernorm(row, p)
        variance = 4 * d * d + 1
        k = (62 - variance.bit_length()) // 2
        reciprocal = (2**61 - 1) // math.isqrt(variance * 4**k)
        t = [ties.shifted(2 * x * reciprocal, 61 - k - 14) for x in (-d, d)]
        assert result.tolist() == [[ties.shifted(v, 2) for v in t]]
    assert ties.count > 0


@pytest.mark.parametrize("bits", TWIN_BITS)
def test_twin_weights(bits: int) -> None:
    """Half a step of either range goes up, unless there is no code above."""
    ties = Ties()
    for twin in twin_choices(bits):
        last, found = 2 ** (bits - 1) - 1, twin_weights(np.arange(256), twin).tolist()
        for w in range(256):
            fine = min(ties.shifted(w, twin.fine), last) << twin.fine
            coarse = min(ties.shifted(w, twin.coarse) << twin.coarse, 255)
            assert found[w] == (fine if w < twin.border else coarse)
    assert ties.count > 0


def test_floats_become_codes_half_to_even() -> None:
    """On the host: codes, multipliers, addends, eps and I-ViT's unit."""
    halves = np.arange(-4, 4) + 0.5
    assert quantize(halves, WIDE).tolist() == [-4, -2, -2, 0, 0, 2, 2, 4]
    assert to_dyadic((2**30 + np.array([0.5, 1.5])) / 2.0**31).multiplier.tolist() == [
        2**30,
        2**30 + 2,
    ]
    shared = to_shared_dyadic(np.array([1.0, 0.5 / 2**13, 1.5 / 2**13, 2.5 / 2**13]), 14)
    assert shared.multiplier.tolist() == [2**13, 0, 2, 2]
    for odd, even in ((1, 2**29), (3, 2**29 + 2)):
        factor = (2**30 + odd) / 2.0**30
        assert normalize_params(factor, 1, WIDE).numerator == even
    units = [ivit_softmax_params(scale).i0 for scale in (2 / 3, 0.4, 2 / 7)]
    assert units == [2, 2, 4]
    ones, codes = np.ones(1, np.float32), QuantParams.per_tensor(1.0, 0, -128, 127)
    eps = [layernorm_params(1.0, e, ones, 0 * ones, codes).eps_q for e in (1.5, 2.5)]
    assert eps == [2, 2]
    for k in (1, 3):
        p = layernorm_params(1.0, 1.0, ones * 1.0, ones * k * 2.0**-15, codes)
        assert p.addend.tolist() == [round(k * 2.0 ** (p.shift - 15)) + 2 ** (p.shift - 1)]
