"""The errors a user can cause, their fixed exit codes, and how their lines are worded."""

import difflib
import re
from collections.abc import Iterable

LONGEST_REASON = 300
"""Characters of another library's message that are of use to anybody."""
_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_TRACE = re.compile(
    r"^\s*(Traceback \(most recent|File \"|Stack trace|\d+: 0x|#\d+ |\[bt\]|at .*:\d+\)?$|"
    r"[-=^~*]+$)"
)
_KIND = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Warning): ")


class VitqError(Exception):
    """Something the user can mend: shown as one line, exit code 2.

    The message says what is wrong, where, and what to do.
    """

    exit_code = 2


class RangeError(VitqError):
    """An integer could leave its range for some input that the quantizer can produce."""


def reason(error: BaseException) -> str:
    """Say in one line what another library's error says.

    Its frames, its terminal escapes and what is longer than anybody reads are left out; a first
    line that only announces the second (``Error in x:``) is followed by that.

    Args:
        error: any exception.

    Returns:
        One line; the exception's type where it says nothing.
    """
    if isinstance(error, OSError) and error.strerror:
        return plain(error.strerror)
    name = type(error).__name__
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line for line in _ESCAPE.sub("", text).splitlines() if line.strip()]
    useful = [_KIND.sub("", plain(line)) for line in lines if not _TRACE.match(line)]
    if not useful:
        return name
    said = useful[0]
    for line in useful[1:]:
        if not said.endswith((":", ",")):
            break
        said += f" {line}"
    if isinstance(error, KeyError):
        said = f"{said} is missing"
    return said if len(said) <= LONGEST_REASON else f"{said[:LONGEST_REASON]}..."


def plain(text: str) -> str:
    """Leave out terminal escapes, line breaks and other control characters."""
    return " ".join(_CONTROL.sub(" ", _ESCAPE.sub("", text)).split())


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return " (did you mean X?)" where a choice looks like a name, otherwise nothing."""
    known = {_letters(choice): choice for choice in choices}
    close = difflib.get_close_matches(_letters(name), known, 1, cutoff=0.6)
    return f" (did you mean {known[close[0]]}?)" if close else ""


def _letters(name: str) -> str:
    """Reduce a name to what people do not misspell: case and separators are no matter."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
