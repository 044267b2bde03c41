"""The errors a user can cause, and their fixed exit codes."""


class VitqError(Exception):
    """Something the user can mend: shown as one line, exit code 2.

    The message says what is wrong, where, and what to do.
    """

    exit_code = 2


class RangeError(VitqError):
    """An integer could leave its range for some input that the quantizer can produce."""
