"""Every error of users has a test that reads its text, without an exception."""

import ast

from tests.messages import _of_tree, messages, parts, untested


def test_every_error_is_read_by_a_test() -> None:
    new = [f"{place}: {text}" for text, place in untested().items()]
    assert not new, f"errors without a test that reads their text: {new}"


def test_the_search_sees_what_is_raised() -> None:
    code = """
def f(x):
    if x:
        raise VitqError(f"{x} is " "too large: " + "give less")
    return RangeError("an accumulator")
"""
    found = list(_of_tree(ast.parse(code), "a.py"))
    assert [m.text for m in found] == ["{} is too large: give less", "an accumulator"]
    assert {m.place for m in found} == {"a.py:f"}
    assert parts("a {} is too large: give less") == {
        "a {} is", "is too", "too large", "large give", "give less",
        "is too large", "too large give", "large give less",
    }  # fmt: skip
    assert len(messages()) > 300
