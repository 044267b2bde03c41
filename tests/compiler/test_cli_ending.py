"""What ends the program, Ctrl-C and the system's errors, is one line and a fixed exit code."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.compiler.test_cli import call
from vitq.compiler.cli import ending
from vitq.compiler.cli import main as cli
from vitq.compiler.support.artifacts import METADATA_NAME, Artifact, whole_or_nothing
from vitq.numerics.errors import VitqError

ROOT = Path(__file__).resolve().parents[2]
VITQ = [sys.executable, "-m", "vitq"]
MOMENTS = [0.03, 0.2, 0.35, 0.5, 0.65, 0.8]
"""Of the CPU time of a whole compile: start, imports, passes, schedules, code, linking."""
ATTEMPTS = 4
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(process: int) -> float:
    """CPU time of a process and of those that it waited for."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def start(arguments: list[str], temporary: Path) -> subprocess.Popen[str]:
    """A command as a terminal starts it: in a group of its own, with Ctrl-C not ignored."""
    return subprocess.Popen(
        [*VITQ, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.fixture(scope="module")
def whole_s(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> float:
    """CPU time of a whole compile."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(artifact.onnx, folder)
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    process = start(
        ["compile", str(folder / artifact.onnx.name), "--artifacts", str(folder)], folder
    )
    assert process.wait() == 0
    process.communicate()
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_compile_ends_in_one_line_and_leaves_nothing(
    moment: float, artifact: Artifact, whole_s: float, tmp_path: Path
) -> None:
    copy, temporary = tmp_path / "copy", tmp_path / "temporary"
    temporary.mkdir()
    for tried in range(ATTEMPTS):  # a processor's clock may have risen since it was measured
        share = moment * 0.75**tried
        shutil.copytree(artifact.folder, copy, dirs_exist_ok=True)
        for path in copy.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        before = sorted(path for path in copy.rglob("*") if path.is_file())
        process = start(["compile", str(copy)], temporary)
        while process.poll() is None and cpu_s(process.pid) < share * whole_s:
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=120)
        if not [*copy.rglob(METADATA_NAME)]:  # else all was done before the moment came
            break
    assert process.returncode == ending.INTERRUPTED, error
    lines = [line for line in error.splitlines() if line.startswith("vitq:")]
    assert lines == ["vitq: interrupted; nothing half-written is left"]
    assert "Traceback" not in error and "Error" not in error
    assert sorted(path for path in copy.rglob("*") if path.is_file()) == before
    assert not [*copy.rglob(".*"), *temporary.iterdir()]


@pytest.fixture
def _restored() -> Iterator[None]:
    """The signal's handler is afterwards what it was."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_restored")
def test_what_hides_ctrl_c_does_not_change_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hide() -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("from a callback") from None
        return 0

    def swallow() -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
        return 0

    class Dropper:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def drop() -> int:
        Dropper()
        for _ in range(200):  # raised here, or at the latest while this sleeps
            time.sleep(0.02)
        return 0

    for function in (hide, swallow, drop):
        started = time.monotonic()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        monkeypatch.setattr(cli, "_run", function)
        assert call([], monkeypatch) == ending.INTERRUPTED
        assert capsys.readouterr().err == "vitq: interrupted; nothing half-written is left\n"
        assert time.monotonic() - started < 2


def test_ctrl_c_waits_for_the_start_of_an_extension_module() -> None:
    interrupts = ending.Interrupts()
    frame = sys._getframe()
    interrupts._again = lambda: None  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "_is_starting", lambda _: True)
        interrupts._since = time.monotonic()
        interrupts._deliver(signal.SIGINT, frame)
        interrupts._since -= ending.LONGEST_START_S
        with pytest.raises(KeyboardInterrupt):
            interrupts._deliver(signal.SIGINT, frame)
    assert not ending._is_starting(frame)


@pytest.mark.parametrize("arguments", [["targets"], ["targets", "--json"], ["--help"]])
def test_nobody_reads_the_output(arguments: list[str]) -> None:
    process = subprocess.Popen(
        [*VITQ, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == ending.BROKEN_PIPE


@pytest.mark.parametrize("arguments", [["targets"], ["targets", "--json"], ["--help"]])
def test_the_output_does_not_fit(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*VITQ, *arguments], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("vitq: standard output: No space left") and (
        done.stderr.count("\n") == 1
    )


def test_a_full_disk_leaves_nothing_of_an_artifact(tmp_path: Path) -> None:
    done = subprocess.run(
        [*VITQ, "quantize", "--calib-count", "2", "--method", "minmax", "--artifacts", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert (
        line.startswith(f"vitq: {tmp_path}") and "quantized.safetensors: File too large: " in line
    )
    assert "Traceback" not in done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def unwritable(folder: Path, compiled: Path) -> dict[str, tuple[list[str], str]]:
    """Name -> (arguments, what the one line must say)."""
    (folder / "file").touch()
    (folder / "folder").mkdir()
    picture = str(folder / "x.npy")
    np.save(picture, np.zeros((1, 3, 32, 32), np.uint8))
    inside = str(folder / "file" / "inside")
    run = ["run", str(compiled), "--backend", "reference", "--input", picture, "--output"]
    return {
        "no folder": (["quantize", "--artifacts", inside], "a file stands where"),
        "is a folder": ([*run, str(folder / "folder")], "folder: Is a directory: give a file"),
        "under a file": ([*run, inside], "file: Not a directory: a file stands"),
        "bundle": (["deploy", str(compiled), "--out", f"{inside}/b"], "a file stands where"),
        "device": ([*run, "/dev/null"], "is a device, a pipe or a socket: give a file"),
        "images": (["quantize", "--save-images", inside], "a file stands where"),
        "log": (["tune", str(compiled), "--log", inside], "a file stands where"),
        "long folder": (["quantize", "--artifacts", str(folder / ("a" * 300))], "a shorter name"),
        "name": ([*run, str(folder / ("a" * 300))], "File name too long: give a shorter name"),
        "dump": (
            ["compile", str(compiled), "--debug-dump", inside, "--batch", "2"],
            "file: Not a directory: a file stands where",
        ),
    }


def test_a_place_that_cannot_be_written_is_one_line(
    compiled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, (arguments, said) in unwritable(tmp_path, compiled).items():
        before = sorted(tmp_path.rglob("*"))
        assert call(arguments, monkeypatch) == 2, name
        error = capsys.readouterr().err
        lines = [line for line in error.splitlines() if line.startswith("vitq:")]
        assert len(lines) == 1 and said in lines[0], f"{name}: {error}"
        assert "Traceback" not in error
        assert sorted(tmp_path.rglob("*")) == before, f"{name} left something"


@pytest.mark.parametrize("number", sorted(ending.REMEDIES))
def test_each_error_of_the_system_has_a_remedy(number: int) -> None:
    line = ending.describe(OSError(number, os.strerror(number), "a/b"))
    assert line == f"a/b: {os.strerror(number)}: {ending.REMEDIES[number]}"
    unnamed = ending.describe(OSError(number, os.strerror(number)))
    assert unnamed.startswith(os.strerror(number))


def test_an_error_of_two_paths_or_of_no_number() -> None:
    both = OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b")
    assert ending.describe(both).startswith("a -> b: Invalid cross-device link: ")
    assert ending.describe(OSError("12 requested,\n3 written")).startswith(
        "12 requested, 3 written: "
    )


def test_a_mistake_of_the_program_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong() -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_run", wrong)
    with pytest.raises(ZeroDivisionError):
        call([], monkeypatch)
    assert "vitq: a mistake of the program, not yours: please report" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "vitq: memory: not enough of it: give fewer pictures, a smaller"),
        (MemoryError("Unable to allocate 9 TiB"), "vitq: memory: Unable to allocate 9 TiB: give"),
        (VitqError("a\x1b[31m red\n line"), "vitq: a red line"),
    ],
)
def test_one_line_without_terminal_escapes(
    error: Exception,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert call([], monkeypatch) == ending.MISTAKE
    said = capsys.readouterr().err
    assert said.startswith(line) and said.count("\n") == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "full"), None])
def test_a_stage_that_ends_early_leaves_none_of_its_files(
    error: BaseException | type[BaseException] | None, tmp_path: Path
) -> None:
    sign, library = tmp_path / METADATA_NAME, tmp_path / "model.so"
    for path in (sign, library):
        path.write_text("of an earlier run")
    with pytest.raises((KeyboardInterrupt, OSError, ZeroDivisionError)):
        with whole_or_nothing(sign, library):
            assert not sign.exists()
            library.write_text("new")
            if error is not None:
                raise error
            sign.write_text("{}")
            raise ZeroDivisionError  # Ctrl-C after the last file
    assert sign.exists() == library.exists() == (error is None)


@pytest.mark.parametrize(
    ("arguments", "given", "policy"),
    [
        (["--version"], None, "PASSIVE"),
        (["--version"], "ACTIVE", "ACTIVE"),
        (["benchmark", "--help"], None, None),
    ],
)
def test_idle_threads_sleep(
    arguments: list[str], given: str | None, policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(sys, "argv", ["vitq", *arguments])
    with pytest.raises(SystemExit):
        cli.program()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
