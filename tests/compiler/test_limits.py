"""Numbers out of bounds are one line, whatever command they are given to."""

import math
from pathlib import Path

import pytest

from tests.compiler.test_cli import call
from vitq.compiler.stages import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.compiler.support.limits import check_number, free_memory, usable_cores
from vitq.numerics.errors import VitqError
from vitq.quantization.ranges.memory import walk_bytes


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


def test_free_memory_is_the_least_that_the_system_and_the_container_say(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None
    group = tmp_path / "sys" / "fs" / "cgroup"
    for folder in (group, tmp_path / "proc"):
        folder.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5\n")
    assert free_memory(tmp_path) is None
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   7 kB\n")
    assert free_memory(tmp_path) == 7 * 1024
    (group / "memory.max").write_text("1005\n")
    assert free_memory(tmp_path) == 1000


def test_calibration_that_the_system_may_end_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quantize, "free_memory", lambda: 1 << 22)
    for method in ("minmax", "repq"):
        assert "holds values" not in caplog.text
        options = QuantizeOptions.parse(method=method, artifacts=tmp_path)
        graph, _, _ = quantize.prepare(options)
    half = (1 << 21) // walk_bytes(graph, 1, options.method)
    assert "method repq holds values of all 32 calibration pictures, about 0.0 GiB" in caplog.text
    assert f"take --calib-count {max(1, half)}, or --method minmax, which streams" in caplog.text


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
