"""The exit code that the command line promises."""

from vitq.numerics.errors import RangeError, VitqError


def test_exit_code() -> None:
    """A range error is a user's error like any other."""
    assert VitqError.exit_code == 2
    assert issubclass(RangeError, VitqError)
    assert RangeError.exit_code == 2
