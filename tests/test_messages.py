"""Every error of users has a test that reads its text, but for a list that only shrinks."""

import ast

from tests.messages import LIST, _of_tree, messages, parts, untested


def test_every_error_is_read_by_a_test() -> None:
    known = LIST.read_text(encoding="utf-8").splitlines()
    found = untested()
    new = [f"{place}: {text}" for text, place in found.items() if text not in known]
    assert not new, f"errors without a test that reads their text: {new}"
    done = [text for text in known if text not in found]
    assert not done, f"tested (or gone): run python -m tests.messages to shorten the list: {done}"
    assert known == sorted(set(known))


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
    }  # fmt: skip
    assert len(messages()) > 300
