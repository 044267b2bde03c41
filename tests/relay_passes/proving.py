"""What `CheckAccumulators` proves of single operators, for the tests of its bounds."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.relay_passes.modules import Body, module
from vitq.numerics.dyadic import to_dyadic
from vitq.numerics.linear import LinearParams
from vitq.numerics.qparams import QuantParams
from vitq.numerics.requantize import RequantizeParams
from vitq.relay_passes.check_accumulators import AccumulatorBound, CheckAccumulators
from vitq.relay_passes.dialect import calls as dialect

Expr = Any
Interval = tuple[int, int]
Proven = dict[tuple[str, str], AccumulatorBound]

OUT = QuantParams(np.float32(0.1), np.int32(0), -128, 127)


def intervals(dtype: str) -> st.SearchStrategy[Interval]:
    """Any two codes of a type in order."""
    info = np.iinfo(dtype)
    codes = st.integers(int(info.min), int(info.max))
    return st.tuples(codes, codes).map(lambda pair: (min(pair), max(pair)))


def gemm(weight: Any, bias: Any, qmin: int = -128, qmax: int = 127) -> LinearParams:
    """The constants of a layer; what follows the accumulator does not matter."""
    n = len(weight)
    dyadic = to_dyadic(np.full(n, 1e-3))
    return LinearParams(weight, np.asarray(bias), dyadic, np.zeros(n, np.int32), qmin, qmax)


def check(inputs: dict[str, tuple[Sequence[int], str]], body: Callable[..., Expr]) -> Proven:
    """The proven bounds of a module, by operator and intermediate."""
    step = CheckAccumulators()
    step(module(inputs, body))
    return {(bound.op.removeprefix("vitq."), bound.what): bound for bound in step.bounds}


def one(inputs: dict[str, tuple[Sequence[int], str]], make: Callable[..., Expr]) -> Proven:
    """The bounds of one operator on inputs that hold all codes of their types."""
    return check(inputs, lambda b, *tensors: b(make(*tensors)))


def clamped(b: Body, x: Expr, interval: Interval, dtype: str) -> Expr:
    """Codes of a known interval, made from int16 ones."""
    params = RequantizeParams(to_dyadic(0.5), 0, 0, *interval)
    return b(dialect.requantize(x, params, dtype))


def within(
    operands: Sequence[tuple[Sequence[int], str, Interval]], make: Callable[..., Expr]
) -> dict[str, AccumulatorBound]:
    """The bounds of one operator on operands (shape, type, interval), by intermediate."""
    inputs = {f"x{i}": (shape, "int16") for i, (shape, _, _) in enumerate(operands)}

    def body(b: Body, *tensors: Expr) -> Expr:
        codes = [
            clamped(b, tensor, interval, dtype)
            for tensor, (_, dtype, interval) in zip(tensors, operands, strict=True)
        ]
        return b(make(*codes))

    found = check(inputs, body)
    last = list(found)[-1][0]
    return {what: bound for (op, what), bound in found.items() if op == last}


def assert_inside(bound: AccumulatorBound, values: Iterable[int]) -> tuple[int, int]:
    """All values of an intermediate are in its interval; returns the distances of its ends."""
    found = [int(value) for value in values]
    low, high = min(found), max(found)
    assert bound.low <= low and high <= bound.high, (bound, low, high)
    return low - bound.low, bound.high - high


def corners(interval: Interval, size: int) -> Iterable[tuple[int, ...]]:
    """All vectors of the two ends of an interval."""
    return itertools.product(sorted(set(interval)), repeat=size)


def partial_sums(terms: Sequence[int]) -> set[int]:
    """What an accumulator can hold on the way, in any order of summation."""
    sums = {0}
    for term in terms:
        sums |= {total + term for total in sums}
    return sums
