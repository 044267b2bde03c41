r"""Functions of one number as tables: 256 codes of an 8-bit input, 4096 of a 12-bit one.

    y = table[x - qmin],   table[i] = clamp(rescale(f(X_i)) + zero_point)

Whatever f is, a processor looks its codes up (`numerics.table`); f differs in how its table is
made, here, in integers alone, so that every machine makes the same one. With ``reach`` the largest
``|x|`` that codes of the input's type can mean, ``sigma * 2**bits`` of storage, and F = min(30, 30
- exponent(reach)), a code stands for

    X = rescale((x - x_zero_point) * sigma * 2**F)         |X| <= 2**30

and the forms are those of ShiftGELU and Shiftmax with more bits, ``e = 2**-(|X| beta log2 e)`` from
`numerics.powers`, each division rounded down:

    sigmoid      S = 1 / (1 + e) where x >= 0, else 1 - that                          Q30
    silu         X S, beta 1 (ShiftGELU's form with another factor)
    quick_gelu   X S, beta 1.702 (I-ViT's ShiftGELU, arXiv:2207.01405, Eq. 11)
    tanh         (1 - e) / (1 + e) with beta 2, and X's sign
    mish         X (1 + 2e) / (1 + 2e + 2e**2) where x >= 0, else X (e**2 + 2e) / (e**2 + 2e + 2)
    softplus     max(X, 0) + ln 2 log2(1 + e)
    elu          X where x >= 0, else alpha (e - 1)
    leaky_relu   X where x >= 0, else slope X
    exp          2**(N - (N - X log2 e)), 2**N beyond the largest output
    hardsigmoid, hardswish   clip(X + 3, 0, 6) / 6, and X times that
    softsign, square, abs    X / (1 + |X|), X X, |X|
    log_sigmoid  min(X, 0) - ln 2 log2(1 + e)
    reciprocal   min(2**(F + 30 - N) / |X|, 2**30) with X's sign, 2**N beyond the largest output;
                 the largest where x = 0
    rsqrt        isqrt(2**E // max(|X|, 1)) / 2**((E - F) / 2), E the even or odd one of 62, 61

Clamps (ReLU, ReLU6, Hardtanh) need no table: they are the bounds of the quantizer behind them
(`clamp_bounds`).

so that an entry depends on its code, on both quantizers and on the input's type, and on nothing
else: whoever makes a table, for whatever interval of codes, makes the same entries.

Error before the output's rounding: `MAX_ERROR` of the reach (or of 1), from X's rounding (2**-30
of the reach), the powers (2**-25) and the divisions (2**-30). A reciprocal's is relative,
``2**-(F + 1) / |x|`` from X's rounding; a root's is half of that and 2**-16. An input of 8 bits has
a coarse step beside that: a gate reads 12 bits (`quantization.plan.placement` says why).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.dyadic import rescale, to_dyadic
from vitq.numerics.errors import RangeError, VitqError
from vitq.numerics.powers import EXPONENT_BITS, ONE, VALUE_BITS, inverse_power, log2
from vitq.numerics.qparams import QuantParams, quantize
from vitq.numerics.rounding import Rounding, shift_right

MAX_ERROR = 2.0**-23
FRACTION_LIMIT = 30
OUTPUT_BITS = 17
"""A number of as many bits is beyond every code minus its zero point."""
RATIO_BITS = 28
"""Of `hardsigmoid`, whose numerator is up to 6."""
QUICK_GELU_FACTOR = float(np.float32(1.702))
PROBE_BITS = 25
"""Of `function_values`: 16 fits into 30 bits."""
LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453
HALF_UP = Rounding.HALF_UP


class Fixed(NamedTuple):
    """Numbers ``value * step``.

    Attributes:
        value: int64, within +-2**31.
        step: a power of two.
    """

    value: IntArray
    step: float


class Argument(NamedTuple):
    """The inputs of a function.

    Attributes:
        x: int64 fixed-point numbers within +-2**30.
        bits: of their fraction, 0 to 30.
        top: octaves: a result of 2**top or more is clamped, whatever it is.
    """

    x: IntArray
    bits: int
    top: int = 64

    def fixed(self, value: IntArray) -> Fixed:
        """Return other numbers with as many fraction bits."""
        return Fixed(value, 2.0**-self.bits)

    def decay(self, factor: float = 1.0) -> IntArray:
        """Return ``exp(-|x| * factor)`` in Q30."""
        scale = to_dyadic(factor * LOG2_E * 2.0 ** (EXPONENT_BITS - self.bits))
        return inverse_power(rescale(np.abs(self.x), scale))


def _ratio(top: IntArray, bottom: IntArray) -> IntArray:
    """``top / bottom`` in Q30, rounded down; top < 2**33."""
    return (top << VALUE_BITS) // bottom


def _sigmoid(a: Argument, factor: float = 1.0) -> IntArray:
    """Q30."""
    upper = _ratio(np.full(a.x.shape, ONE), ONE + a.decay(factor))
    return np.where(a.x >= 0, upper, ONE - upper)


def _times(a: Argument, gate: IntArray) -> Fixed:
    """``x`` times Q30 numbers from 0 to 1."""
    return a.fixed(shift_right(a.x * gate, VALUE_BITS, HALF_UP))


def _swish(factor: float) -> Callable[[Argument, float], Fixed]:
    return lambda a, _: _times(a, _sigmoid(a, factor))


def _tanh(a: Argument, _: float) -> Fixed:
    e = a.decay(2.0)
    return Fixed(np.sign(a.x) * _ratio(ONE - e, ONE + e), 2.0**-VALUE_BITS)


def _mish(a: Argument, _: float) -> Fixed:
    e = a.decay()
    square = shift_right(e * e, VALUE_BITS, HALF_UP)
    upper = _ratio(ONE + 2 * e, ONE + 2 * e + 2 * square)
    lower = _ratio(square + 2 * e, square + 2 * e + 2 * ONE)
    return _times(a, np.where(a.x >= 0, upper, lower))


def _softplus(a: Argument, _: float) -> Fixed:
    rest = rescale(log2(ONE + a.decay()), to_dyadic(LN_2 * 2.0 ** (a.bits - EXPONENT_BITS)))
    return a.fixed(np.maximum(a.x, 0) + rest)


def _log_sigmoid(a: Argument, _: float) -> Fixed:
    rest = rescale(log2(ONE + a.decay()), to_dyadic(LN_2 * 2.0 ** (a.bits - EXPONENT_BITS)))
    return a.fixed(np.minimum(a.x, 0) - rest)


def _elu(a: Argument, alpha: float) -> Fixed:
    below = rescale(a.decay() - ONE, to_dyadic(alpha * 2.0 ** (a.bits - VALUE_BITS)))
    return a.fixed(np.where(a.x >= 0, a.x, below))


def _leaky_relu(a: Argument, slope: float) -> Fixed:
    return a.fixed(np.where(a.x >= 0, a.x, rescale(a.x, to_dyadic(slope))))


def _exp(a: Argument, _: float) -> Fixed:
    exponents = rescale(a.x, to_dyadic(LOG2_E * 2.0 ** (EXPONENT_BITS - a.bits)))
    power = inverse_power(np.maximum((a.top << EXPONENT_BITS) - exponents, 0))
    return Fixed(power, 2.0 ** (a.top - VALUE_BITS))


def _ramp(a: Argument) -> IntArray:
    """``clip(x + 3, 0, 6) / 6`` in Q28."""
    bits = min(a.bits, RATIO_BITS)
    moved = shift_right(a.x, a.bits - bits, HALF_UP) + (3 << bits)
    top = np.clip(moved, 0, 6 << bits) << (RATIO_BITS - bits)
    return (top + 3) // 6


def _hardswish(a: Argument, _: float) -> Fixed:
    return a.fixed(shift_right(a.x * _ramp(a), RATIO_BITS, HALF_UP))


def _softsign(a: Argument, _: float) -> Fixed:
    size = np.abs(a.x)
    return Fixed(np.sign(a.x) * _ratio(size, (1 << a.bits) + size), 2.0**-VALUE_BITS)


def _square(a: Argument, _: float) -> Fixed:
    product = shift_right(a.x * a.x, VALUE_BITS, HALF_UP)
    return Fixed(product, 2.0 ** (VALUE_BITS - 2 * a.bits))


def _reciprocal(a: Argument, _: float) -> Fixed:
    one = 1 << int(np.clip(a.bits + VALUE_BITS - a.top, 0, 2 * VALUE_BITS))
    value = np.minimum(one // np.maximum(np.abs(a.x), 1), ONE)
    return Fixed(np.where(a.x < 0, -value, value), 2.0 ** (a.top - VALUE_BITS))


def _rsqrt(a: Argument, _: float) -> Fixed:
    exponent = 62 - (a.bits & 1)
    square = (1 << exponent) // np.maximum(np.abs(a.x), 1)
    root = np.sqrt(square.astype(np.float64)).astype(np.int64)  # at most one off, both ways
    root -= root * root > square
    root += (root + 1) * (root + 1) <= square
    return Fixed(root, 2.0 ** ((a.bits - exponent) // 2))


TABLES: dict[str, Callable[[Argument, float], Fixed]] = {
    "abs": lambda a, _: a.fixed(np.abs(a.x)),
    "elu": _elu,
    "exp": _exp,
    "hardsigmoid": lambda a, _: Fixed(_ramp(a), 2.0**-RATIO_BITS),
    "hardswish": _hardswish,
    "leaky_relu": _leaky_relu,
    "log_sigmoid": _log_sigmoid,
    "mish": _mish,
    "quick_gelu": _swish(QUICK_GELU_FACTOR),
    "reciprocal": _reciprocal,
    "rsqrt": _rsqrt,
    "sigmoid": lambda a, _: Fixed(_sigmoid(a), 2.0**-VALUE_BITS),
    "silu": _swish(1.0),
    "softplus": _softplus,
    "softsign": _softsign,
    "square": _square,
    "tanh": _tanh,
}
"""By name; the number beside is `elu`'s alpha or `leaky_relu`'s slope, and 1 for all others."""
OF_LARGEST: dict[str, Callable[[FloatArray], FloatArray]] = {
    "exp": np.exp,
    "reciprocal": np.reciprocal,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}
"""Functions whose tables have steps of the largest result, which a probe does not know, or that
are not finite everywhere."""
Ends = tuple[float, float]
CLAMPS: dict[str, Ends] = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0)}
"""Functions that are bounds: no smaller and no larger than. `CLAMP` has bounds of its own."""
CLAMP = "clamp"


class Source(NamedTuple):
    """What a table is read with.

    Attributes:
        scale: real value of one input step, > 0.
        zero_point: of the input.
        qmin: smallest code, of entry 0.
        qmax: largest code.
        bits: of the codes' storage type.
    """

    scale: float
    zero_point: int
    qmin: int
    qmax: int
    bits: int


def _argument(source: Source, gain: float, out: QuantParams) -> Argument:
    """Return all codes as fixed-point numbers; `gain` is how much a function may enlarge them."""
    codes = np.arange(source.qmin, source.qmax + 1, dtype=np.int64) - source.zero_point
    reach = 2.0**source.bits * source.scale * max(gain, 1.0)
    bits = min(FRACTION_LIMIT, VALUE_BITS - int(np.frexp(reach)[1]))
    if bits < 0 or not np.isfinite(reach):
        raise RangeError(f"a function's input reaches {reach:.3g}: check the scales")
    top = int(np.frexp(float(out.scale))[1]) + OUTPUT_BITS
    return Argument(rescale(codes, to_dyadic(source.scale * 2.0**bits)), bits, top)


def pointwise_table(
    function: str, source: Source, out: QuantParams, parameter: float | None = None
) -> IntArray:
    """All results of a function.

    Args:
        function: a name of `TABLES`.
        source: the input's codes.
        out: the output's parameters, per tensor.
        parameter: of the functions that have one.

    Returns:
        (qmax - qmin + 1,) int64 codes in the output's bounds.

    Raises:
        VitqError: for an unknown function, or `parameter` of a function that has none.
        RangeError: if the input reaches 2**30, or the output is far finer than the input.
    """
    form = TABLES.get(function)
    if form is None:
        raise VitqError(f"no table for {function}: known are {', '.join(TABLES)}")
    if parameter is not None and function not in ("elu", "leaky_relu"):
        raise VitqError(f"{function} takes no parameter: {parameter} given")
    number = 1.0 if parameter is None else float(np.float32(parameter))
    found = form(_argument(source, abs(number), out), number)
    codes = rescale(found.value, to_dyadic(found.step / float(out.scale)))
    return np.clip(codes + int(out.zero_point), out.qmin, out.qmax)


def function_values(function: str, x: FloatArray, parameter: float | None = None) -> FloatArray:
    """Compute a function as its table does, to recognize it by what it computes.

    Args:
        function: a name of `TABLES` or `CLAMPS`.
        x: any shape, within +-16.
        parameter: of the functions that have one.

    Returns:
        float64, the shape of `x`, within 1e-6.
    """
    if function in CLAMPS:
        return np.clip(x, *CLAMPS[function])
    if function in OF_LARGEST:
        with np.errstate(divide="ignore", invalid="ignore"):
            return OF_LARGEST[function](x)
    bits = PROBE_BITS
    argument = Argument(np.rint(np.ldexp(x, bits)).astype(np.int64), bits)
    found = TABLES[function](argument, 1.0 if parameter is None else parameter)
    return found.value * found.step


def clamp_bounds(ends: Ends, out: QuantParams) -> tuple[int, int]:
    """Codes between which a clamp leaves its output: quantization is monotone and keeps 0.

    Args:
        ends: the smallest and the largest real value, perhaps infinite.
        out: the output's parameters, per tensor.

    Returns:
        The smallest and the largest code.
    """
    low, high = (int(quantize(np.asarray(end, np.float32), out)) for end in ends)
    return low, high
