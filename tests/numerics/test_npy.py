"""Arrays on disk: what is damaged is one line."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from vitq.numerics.errors import VitqError
from vitq.numerics.npy import read_npy, read_npz

ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
    np.float64(3.5),
    np.zeros((0, 3), np.int16),
]


@pytest.mark.parametrize("index", range(len(ARRAYS)))
def test_arrays_are_what_was_saved(index: int, tmp_path: Path) -> None:
    array = np.asarray(ARRAYS[index])
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", b=array)
    for found in (read_npy(tmp_path / "a.npy"), *read_npz(tmp_path / "a.npz", "b")):
        np.testing.assert_array_equal(found, array)
        assert found.shape == array.shape and found.dtype == array.dtype
        assert found.flags.writeable and found.flags.c_contiguous


def saved(header: str, data: bytes = b"\0" * 24, version: int = 1) -> bytes:
    text = header.encode() + b"\n"
    length = len(text).to_bytes(2 * version, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def described(descr: str = "'|u1'", shape: str = "(2, 3, 4)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as an .npy array: "),
        (b"\x93NUMPY\x01\x00\xff\xff", "cannot be read as an .npy array"),
        (b"\x93NUMPY\x09\x00" + b"\0" * 90, r"format version \(9, 0\)"),
        (saved("{'descr': (((((((("), "cannot be read as an .npy array"),
        (saved("(" * 9000), "cannot be read as an .npy array"),
        (saved(described(shape="(2**70,)")), "cannot be read|shorter than its header"),
        (saved(described(shape="(-1, 3)")), "shorter than its header|cannot be read"),
        (saved(described(shape="(99999999999, 3)")), "shorter than its header says"),
        (saved(described("'O'")), "holds object .*not numbers: write it again with numpy.save"),
        (saved(described("'<U9'", "(1,)")), "not numbers"),
        (saved(described(), b"\0" * 23), "shorter than its header says"),
        (saved(described("'<f8'", "(3,)"), b"\0" * 23), "shorter than its header says"),
        (saved(described(shape=str((1,) * 33))), "of shape .*not numbers: write it again"),
        (saved(described() + " " * 2**16, version=2), "cannot be read as an .npy array"),
        (saved("__import__('os').system('true')"), "cannot be read as an .npy array"),
    ],
)
def test_damaged_arrays(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(VitqError, match=said):
        read_npy(path)


def test_the_largest_headers(tmp_path: Path) -> None:
    """Of 2**16 bytes, which only version 2.0 can say, and of 32 dimensions."""
    path = tmp_path / "a.npy"
    path.write_bytes(saved(described() + " " * (2**16 - 1 - len(described())), version=2))
    np.testing.assert_array_equal(read_npy(path), np.zeros((2, 3, 4), np.uint8))
    path.write_bytes(saved(described(shape=str((1,) * 32)), b"\5"))
    np.testing.assert_array_equal(read_npy(path), np.full((1,) * 32, 5, np.uint8))


@pytest.mark.parametrize(
    "error",
    [OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError,
     NotImplementedError, MemoryError],
)  # fmt: skip
def test_whatever_an_archive_raises_is_one_line(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged data, passwords, unknown compression, sizes without end."""

    def fail(*_: object) -> bytes:
        raise error("it fell apart")

    np.savez(tmp_path / "a.npz", a=np.arange(3))
    monkeypatch.setattr(zipfile.ZipFile, "read", fail)
    with pytest.raises(VitqError, match=r"cannot be read as an .npz archive: it fell apart"):
        read_npz(tmp_path / "a.npz", "a")


def test_no_array_at_all(tmp_path: Path) -> None:
    with pytest.raises(VitqError, match=r"cannot be read as an .npy array: No such file"):
        read_npy(tmp_path / "none.npy")
    with pytest.raises(VitqError, match=r"cannot be read as an .npz archive: No such file"):
        read_npz(tmp_path / "none.npz", "a")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(VitqError, match=r"cannot be read as an .npz archive"):
        read_npz(tmp_path / "a.npz", "a")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY")
    with pytest.raises(VitqError, match=r"b\.npz:a cannot be read as an .npy array"):
        read_npz(tmp_path / "b.npz", "a")
    with pytest.raises(VitqError, match=r"b\.npz lacks an array: .*'c\.npy'"):
        read_npz(tmp_path / "b.npz", "c")
