"""What the runner refuses of its files and options: one line each."""

import os
import zlib
from pathlib import Path

import pytest

from tests.compiler.bundles import is_one_line, run
from vitq.compiler.deploy.bundle import FLAVOURS, Bundle, DeployOptions
from vitq.compiler.stages.deploy import deploy
from vitq.numerics.errors import VitqError


def npy(header: str, data: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    size = len(header) if length is None else length
    start = b"\x93NUMPY" + bytes([version, 0])
    return start + size.to_bytes(2 if version == 1 else 4, "little") + header.encode() + data


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large."""
    body = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\0\0\0\0"
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + body + zlib.crc32(body).to_bytes(4, "big")


PICTURE = 3 * 32 * 32
GOOD = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 3, 32, 32), }"
BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty.npy": (b"", "no .npy"),
    "text.npy": (b"hello, this is no array at all", "no .npy"),
    "version.npy": (npy(GOOD, bytes(PICTURE), 9), "version"),
    "short.npy": (npy(GOOD, bytes(PICTURE - 1)), "size"),
    "long.npy": (npy(GOOD, bytes(PICTURE + 1)), "size"),
    "header.npy": (npy(GOOD, length=60000), "cut off"),
    "fortran.npy": (npy(GOOD.replace("False", "True"), bytes(PICTURE)), "Fortran"),
    "float.npy": (npy(GOOD.replace("|u1", "<f4"), bytes(4 * PICTURE)), "uint8"),
    "int.npy": (npy(GOOD.replace("|u1", "<i4"), bytes(4 * PICTURE)), "uint8"),
    "shape.npy": (npy(GOOD.replace("(1, 3", "(3, 1"), bytes(PICTURE)), "N x 3 x 32 x 32"),
    "flat.npy": (npy(GOOD.replace("(1, 3, 32, 32)", f"({PICTURE},)"), bytes(PICTURE)), "N x 3"),
    "negative.npy": (npy(GOOD.replace("(1, 3", "(-1, 3"), bytes(PICTURE)), "shape"),
    "huge.npy": (npy(GOOD.replace("(1, 3", "(99999999, 3"), bytes(PICTURE)), "large"),
    "none.npy": (npy(GOOD.replace("(1, 3", "(0, 3")), "no pictures"),
    "nokey.npy": (npy(GOOD.replace("descr", "dtype"), bytes(PICTURE)), "descr"),
    "noshape.npy": (npy("{'descr': '|u1', 'fortran_order': False, 'shape': 3"), "shape"),
    "size.u8": (bytes(PICTURE + 5), "no whole number"),
    "empty.u8": (b"", "no pictures"),
    "ascii.ppm": (b"P3 32 32 255\n" + bytes(1024), "no JPEG, PNG or binary PPM"),
    "other.JPG": (b"GIF89a" + bytes(PICTURE - 6), "no JPEG, PNG or binary PPM"),
    "bomb.png": (png_header(60_000, 60_000), "at most 89478485"),
    "cut.ppm": (b"P6 32 32 255\n" + bytes(100), "cut off"),
    "deep.ppm": (b"P6 32 32 65535\n" + bytes(6 * 1024), "8-bit"),
    "zero.ppm": (b"P6 0 32 255\n", "size"),
    "huge.ppm": (b"P6 999999 999999 255\n", "at most 89478485"),
    "digits.ppm": (b"P6 99999999999 1 255\n", "header"),
    "comment.ppm": (b"P6 # no end", "header"),
    "end.ppm": (b"P6", "no JPEG, PNG or binary PPM"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_input_is_one_line(bundles: dict[str, Bundle], tmp_path: Path, name: str) -> None:
    content, said = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    code, _, error = run(bundles["static"].folder, "infer", str(tmp_path / name))
    assert code == 2 and is_one_line(error) and said in error


@pytest.mark.parametrize("version", [1, 2, 3])
def test_npy_versions(bundles: dict[str, Bundle], tmp_path: Path, version: int) -> None:
    (tmp_path / "x.npy").write_bytes(npy(GOOD, bytes(PICTURE), version))
    assert run(bundles["static"].folder, "infer", str(tmp_path / "x.npy"))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "command"),
        (("dance",), "command"),
        (("infer",), "needs a file"),
        (("infer", "nowhere.npy"), "missing"),
        (("infer", "a.npy", "--raw", "--json"), "not several"),
        (("bench", "a.npy"), "unexpected"),
        (("bench", "--rounds"), "needs a value"),
        (("bench", "--rounds", "0"), "from 1"),
        (("bench", "--rounds", "many"), "from 1"),
        (("bench", "--fast"), "unknown option"),
        (("verify", "--bundle", "nowhere"), "missing"),
    ],
)
def test_a_wrong_call_is_one_line(
    bundles: dict[str, Bundle], arguments: tuple[str, ...], said: str
) -> None:
    code, _, error = run(bundles["vm"].folder, *arguments)
    assert code == 2 and is_one_line(error) and said in error


def test_threads_that_cannot_be(bundles: dict[str, Bundle]) -> None:
    for flavour in FLAVOURS:
        for threads in ("0", "-1", "65", "100000"):
            code, _, error = run(bundles[flavour].folder, "verify", "--threads", threads)
            assert code == 2 and is_one_line(error) and f"--threads {threads}" in error
    assert run(bundles["static"].folder, "verify", "--threads", "64")[0] == 0


def test_labels_must_fit(bundles: dict[str, Bundle], compiled: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    picture = str(bundles["vm"].folder / "golden_pixels.npy")
    code, _, error = run(
        bundles["vm"].folder, "infer", picture, "--labels", str(tmp_path / "names.txt")
    )
    assert code == 2 and is_one_line(error) and "2 lines" in error
    os.mkfifo(tmp_path / "pipe")  # nobody writes: opening it would wait
    for name in ("pipe", "nowhere"):
        given = ("--labels", str(tmp_path / name))
        code, _, error = run(bundles["vm"].folder, "infer", picture, *given)
        assert code == 2 and is_one_line(error) and "cannot be read" in error
    with pytest.raises(VitqError, match="2 lines: the model has 10"):
        deploy(compiled, DeployOptions(out=tmp_path / "out", labels=tmp_path / "names.txt"))
    assert not (tmp_path / "out").exists()
