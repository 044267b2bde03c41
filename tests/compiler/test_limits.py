"""Numbers out of bounds are one line, whatever command they are given to."""

import math
from pathlib import Path

import pytest

from tests.compiler.test_cli import call
from vitq.compiler.support.limits import check_number, usable_cores
from vitq.numerics.errors import VitqError


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0, 9.5, 2**70])
def test_bounds(value: float) -> None:
    with pytest.raises(VitqError, match=r"--n .+: give 1 to 9$"):
        check_number("--n", value, 1, 9)
    check_number("--n", None, 1, 9)
    check_number("--n", 9, 1, 9)


@pytest.mark.parametrize("threads", [0, -1, 4096])
def test_threads_are_the_cores_at_most(threads: int) -> None:
    with pytest.raises(VitqError, match=rf"--threads {threads}: give 1 to \d+, the cores"):
        usable_cores(threads)
    assert usable_cores(1)


REFUSED = [
    ["quantize", "--recipe", "mixed", "--budget-bytes", "nan"],
    ["quantize", "--recipe", "mixed", "--budget-bitops", "inf"],
    ["quantize", "--random-weights", str(2**70)],
    ["quantize", "--random-weights", "-1"],
    ["quantize", "--calib-count", str(2**70)],
    ["quantize", "--image-size", str(2**40)],
    ["tune", "FOLDER", "--minutes", "nan"],
    ["tune", "FOLDER", "--minutes", "0"],
    ["tune", "FOLDER", "--seed", str(2**70)],
    ["tune", "FOLDER", "--threads", "0"],
    ["compile", "FOLDER", "--batch", str(2**40)],
    ["compile", "FOLDER", "--batch", "0"],
]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_numbers_on_the_command_line(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(tmp_path) if argument == "FOLDER" else argument for argument in arguments]
    assert call(given, monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("vitq: ") and error.count("\n") == 1 and ": give " in error
