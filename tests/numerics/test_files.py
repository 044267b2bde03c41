"""Atomic writing, and JSON that is read."""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from vitq.numerics.errors import VitqError
from vitq.numerics.files import (
    read_object,
    replaced_folder,
    require_file,
    require_writable,
    write_atomically,
)


def test_bytes_and_text(tmp_path: Path) -> None:
    """Bytes as they are, text as UTF-8."""
    write_atomically(tmp_path / "a.bin", b"\x00\xff\r\n")
    write_atomically(tmp_path / "a.txt", "σ²\n")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff\r\n"
    assert (tmp_path / "a.txt").read_bytes() == "σ²\n".encode()
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.txt"]


def test_folders_are_made(tmp_path: Path) -> None:
    """And existing files are replaced."""
    path = tmp_path / "one" / "two" / "file"
    write_atomically(path, "old")
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_object_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"é": [1, null]}', encoding=encoding)
    assert read_object(path, "it", "write it again") == {"é": [1, None]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "the list holds a JSON list and no object: write it again"),
        (b"", r"the list cannot be read as JSON: Expecting value.*: write it again"),
        (b'{"a": "\xff"}', r"cannot be read as JSON: .*0xff.*: write it again"),
        (b"[" * 100_000, r"cannot be read as JSON: maximum recursion.*: write it again"),
        (None, r"cannot be read as JSON: .*No such file.*: write it again"),
    ],
)
def test_what_is_no_object(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VitqError, match=message):
        read_object(path, "the list", "write it again")


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_mode_follows_the_umask(tmp_path: Path, umask: int) -> None:
    """As a plain `open` would have made it; the umask itself is left alone."""
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", b"x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(("owner", "step"), [(Path, "write_bytes"), (os, "replace")])
def test_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str
) -> None:
    """Neither a temporary file nor a changed one, whatever step fails."""
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(owner, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """The error comes from the write itself."""
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "file", 5)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C counts as a failure."""

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", "new")
    assert os.listdir(tmp_path) == []


def test_target_is_a_folder(tmp_path: Path) -> None:
    """The rename's own error, and the folder stays."""
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        write_atomically(tmp_path / "file", "new")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Nothing of the old one is left, and nothing of what it was made from."""
    out = tmp_path / "deep" / "out"
    for name in ("old", "new"):
        with replaced_folder(out) as build:
            (build / name).write_text(name)
    assert os.listdir(out) == ["new"]
    assert os.listdir(out.parent) == ["out"]


def test_a_folder_that_failed_is_not_there(tmp_path: Path) -> None:
    """The old one stays, if there is one."""
    out = tmp_path / "out"
    for before in ([], ["old"]):
        if before:
            with replaced_folder(out) as build:
                (build / "old").touch()
        with pytest.raises(KeyboardInterrupt), replaced_folder(out) as build:
            (build / "half").touch()
            raise KeyboardInterrupt
        assert os.listdir(tmp_path) == ["out"] * len(before)
        assert not before or os.listdir(out) == before


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/null")):
        before = path.stat().st_rdev
        for function in (require_writable, lambda path: write_atomically(path, "x")):
            with pytest.raises(VitqError, match="is a device, a pipe or a socket: give a file"):
                function(path)
        assert path.stat().st_rdev == before and not path.is_file()


def test_long_names_are_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    write_atomically(path, "x")
    assert path.read_text() == "x" and os.listdir(tmp_path) == [path.name]


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    require_writable(tmp_path / "new" / "folder" / "x")
    for path, number in (
        (tmp_path / "file" / "x", errno.ENOTDIR),
        (tmp_path / ("a" * 256), errno.ENAMETOOLONG),
        (tmp_path.joinpath(*["folder"] * 600, "x"), errno.ENAMETOOLONG),
    ):
        with pytest.raises(OSError, match=os.strerror(number)) as error:
            require_writable(path)
        assert error.value.errno == number
    assert os.listdir(tmp_path) == ["file"]


def test_a_place_that_takes_no_files_is_noticed(tmp_path: Path) -> None:
    """Also where the rights say yes, as they do to the owner of everything."""
    for path in (Path("/proc/x"), Path("/proc/self/fd/x/y")):
        with pytest.raises(OSError) as raised:
            require_writable(path)
        assert str(raised.value.filename).startswith("/proc")
        assert raised.value.errno in (errno.EPERM, errno.EACCES)
    require_writable(tmp_path / "a" / "b")
    require_file(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(IsADirectoryError):
        require_file(tmp_path)


def test_a_full_disk_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is written, not by what is made."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full: nothing that is always full")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: open("/dev/full", "wb"))
    with pytest.raises(OSError, match="No space left") as raised:
        require_writable(tmp_path / "a")
    assert raised.value.filename == str(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a", None, "b"),
        shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]),
        VitqError("building: g++ failed (1): ld: final link failed: No space left on device"),
    ],
)
def test_what_does_not_fit_is_said_of_the_folder(error: Exception, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OSError) as raised, replaced_folder(out):
        raise error
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(out))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(VitqError, match="another"), replaced_folder(out):
        raise VitqError("another")


def of_length(folder: Path, size: int) -> Path:
    """A path of so many bytes."""
    missing = size - len(os.fsencode(folder))
    parts = ["f" * 199] * (missing // 200)
    return folder.joinpath(*parts, "x" * (missing % 200 - 1))


@pytest.mark.parametrize(("size", "fits"), [(255, True), (256, False)])
def test_a_name_may_have_so_many_bytes(tmp_path: Path, size: int, fits: bool) -> None:
    path = tmp_path / ("\u00e8" * (size // 2) + "x" * (size % 2))
    if fits:
        require_writable(path)
        return write_atomically(path, b"")
    with pytest.raises(OSError, match="name too long"):
        require_writable(path)


@pytest.mark.parametrize(("size", "fits"), [(4095, True), (4096, False)])
def test_a_path_may_have_so_many_bytes(tmp_path: Path, size: int, fits: bool) -> None:
    path = of_length(tmp_path, size)
    assert len(os.fsencode(path)) == size
    if fits:
        return require_writable(path)
    with pytest.raises(OSError, match="name too long"):
        require_writable(path)


def test_an_interruption_before_the_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", b"")


def test_a_folder_below_others_that_are_missing(tmp_path: Path) -> None:
    with replaced_folder(tmp_path / "a" / "b" / "c") as folder:
        (folder / "x").touch()
    assert (tmp_path / "a" / "b" / "c" / "x").is_file()
