"""The exit code that the command line promises, and how lines are worded."""

import pytest

from vitq.numerics.errors import RangeError, VitqError, nearest, plain, reason


def test_exit_code() -> None:
    """A range error is a user's error like any other."""
    assert VitqError.exit_code == 2
    assert issubclass(RangeError, VitqError)
    assert RangeError.exit_code == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError("Error in x:\n  the cause"), "Error in x: the cause"),
        (ValueError("\x1b[31mred\x1b[0m and \x1b]0;title\x07plain"), "red and plain"),
        (RuntimeError('Traceback (most recent call last):\n  File "a.cc", line 1\nbad'), "bad"),
        (RuntimeError("onnx.checker.ValidationError: no name"), "no name"),
        (KeyError("scale"), "scale is missing"),
        (ValueError(), "ValueError"),
        (OSError(2, "No such file or directory", "a"), "No such file or directory"),
        (ValueError("x" * 300), "x" * 300),
        (ValueError("x" * 301), "x" * 300 + "..."),
        (ValueError("no room,\nno time"), "no room, no time"),
        (ValueError("a", "b"), "('a', 'b')"),
        (KeyError("scale", "zero point"), "scale is missing"),
    ],
)
def test_the_useful_sentence_of_an_error(error: Exception, said: str) -> None:
    assert reason(error) == said


def test_plain_text_and_near_names() -> None:
    assert plain("a\r\n\tb\x00c\x1b[2J") == "a b c"
    assert nearest("SM87", ["sm_75", "sm_87"]) == " (did you mean sm_87?)"
    assert nearest("nothing like it", ["repq", "best"]) == ""
