"""The records of instructions, and what those on a thread's own words mean."""

import inspect
import re

import numpy as np
import pytest

from vitq.compiler.kernels.cuda import intrinsics
from vitq.compiler.kernels.cuda.instructions import matrix, order, wgmma, words
from vitq.compiler.kernels.cuda.instructions.table import FUNCTIONS, INSTRUCTIONS

INT = (-(2**31), 2**31 - 1)


def test_no_two_instructions_have_one_name() -> None:
    families = (matrix, order, words, wgmma)
    count = sum(len(family.INSTRUCTIONS) for family in families)
    assert count == len(INSTRUCTIONS) == len(FUNCTIONS)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_the_text_is_one_function_that_needs_nothing_else(name: str) -> None:
    text = INSTRUCTIONS[name].text
    assert text.count("{") == text.count("}")
    assert text.count("#if") == text.count("#endif")
    assert set(re.findall(r"vitq_\w+", text)) == {INSTRUCTIONS[name].function}


def test_every_instruction_can_be_called() -> None:
    """By a function of `intrinsics`: what nobody calls is no instruction."""
    source = inspect.getsource(intrinsics)
    called = [re.sub(r"\\{.*?\\}", ".+", re.escape(name)) for name in re.findall(NAMES, source)]
    called += ["mad_high", "mad_high_unsigned"]
    uncalled = [n for n in INSTRUCTIONS if not any(re.fullmatch(c, n) for c in called)]
    assert not uncalled


NAMES = re.compile(r'_call\(\s*f?"([^"]+)"')


@pytest.mark.parametrize("unsigned", [False, True])
def test_the_upper_word_of_a_product(unsigned: bool) -> None:
    """Against Python's integers, at the ends of words and between."""
    rng = np.random.default_rng(0)
    ends = np.array([*INT, -1, 0, 1], np.int64)
    value, factor, low, high = (
        np.concatenate([np.repeat(ends, 5), rng.integers(*INT, 200)]).astype(np.int32)
        if i == 0
        else np.concatenate([np.tile(ends, 5), rng.integers(*INT, 200)]).astype(np.int32)
        for i in range(4)
    )
    if unsigned:
        high = high & 0xFF
        found = words.mad_high_unsigned(value, factor, low, high)
    else:
        high = high >> 2
        found = words.mad_high(value, factor >> 1, low, high)
        factor = factor >> 1
    for i, result in enumerate(found):
        a, b = int(value[i]), int(factor[i])
        if unsigned:
            a, b = a % 2**32, b % 2**32
        total = a * b + (int(high[i]) << 32 | int(low[i]) % 2**32)
        assert int(result) % 2**32 == (total >> 32) % 2**32


def test_packing_saturates_and_puts_the_first_value_lowest() -> None:
    values = tuple(np.array([v], np.int32) for v in (300, -300, 5, -6))
    assert words.pack(values, "s8").view(np.int8).tolist() == [127, -128, 5, -6]
    assert words.pack(values, "u8").view(np.uint8).tolist() == [255, 0, 5, 0]
    assert words.pack(values[:2], "s16").view(np.int16).tolist() == [300, -300]


def test_picking_chooses_by_one_bit_of_the_pattern() -> None:
    word = np.array([0x40000B0A], np.int64).astype(np.int32)
    picked = [int(words.pick(word, place)[0]) & 255 for place in range(3)]
    assert picked == [0x0A, 0x0B, 0x0A]
