"""I-ViT's forms as its code has them, with Python integers."""

import math
from fractions import Fraction

from vitq.numerics.arrays import IntArray


def literal_exp(x: int, i0: int, octaves: int) -> int:
    """The paper's ShiftExp, with divisions in place of shifts."""
    power = x + math.floor(Fraction(x, 2)) - math.floor(Fraction(x, 16))
    power = max(power, -octaves * i0)
    q, rest = divmod(power, -i0)  # Python's divmod by a negative: rest in (-i0, 0]
    base = math.floor(Fraction(rest, 2)) + i0
    return int(base * 2 ** (octaves - q))


def literal_div(a: int, b: int) -> int:
    """The paper's IntDiv with M = 62 and k_out = 8."""
    return 2**62 // b * a // 2**55


def literal_shiftmax(row: list[int], i0: int) -> list[int]:
    """The paper's Algorithm 1."""
    e = [literal_exp(x - max(row), i0, 15) for x in row]
    return [literal_div(v, sum(e)) for v in e]


def literal_sigmoid(row: list[int], i0: int) -> list[int]:
    """The division of the paper's Algorithm 2, for rows whose maximum is not negative."""
    power = [x + x // 2 + x // 8 + x // 16 for x in row]
    largest = max(max(power), 0)
    at_max = literal_exp(-largest, i0, 23)
    e = [literal_exp(v - largest, i0, 23) for v in power]
    return [literal_div(v, v + at_max) for v in e]


def literal_row(row: IntArray, i0: int) -> list[int]:
    """First and second code of a row whose other scores are all equal."""
    first = literal_exp(0, i0, 15)
    other = literal_exp(int(row[1]) - int(row[0]), i0, 15)
    total = first + other * (len(row) - 1)
    return [literal_div(first, total), literal_div(other, total)]
