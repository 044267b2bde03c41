"""Bad inputs for the runner's readers, under AddressSanitizer and UBSan.

    python -m tests.fuzz.runner_fuzz --minutes 10 --seed 1 --failures fuzz-failures

A seed decides every input: a file of ``runner_corpus`` (with the kind's letter first in its name:
picture, npy, manifest, exif) is mutated a few times. Checksums and compressed data of PNG are made
right again, for else nothing behind them would be reached. What crashes, hangs or leaves a
sanitizer's report is kept; put it into the corpus with its correction.
"""

import argparse
import random
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitq.compiler.deploy.bundle import COMPILER_OPTIONS, SOURCES

CORPUS = Path(__file__).with_name("runner_corpus")
HARNESS = Path(__file__).with_name("runner_readers.cc")
PARTS = (
    *("manifest", "json", "sha256", "npy", "preprocessing", "image", "decode", "jpeg", "png"),
    *("exif", "segments"),
)
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
HANG_S = 10.0
BATCH = 50
"""Inputs for each start of the program."""
PNG = b"\x89PNG\r\n\x1a\n"
INTERESTING = (0, 1, 2, 3, 7, 8, 16, 127, 128, 192, 196, 217, 218, 254, 255)


@dataclass(frozen=True)
class Finding:
    """An input that was not simply read or refused.

    Attributes:
        content: of it.
        kind: letter of its reader.
        said: the end of what the program wrote.
    """

    content: bytes
    kind: str
    said: str


def build(program: Path, compiler: str = "g++", options: Sequence[str] = ("-O1",)) -> None:
    """Compile the harness with the runner's readers and the sanitizers."""
    sources = [str(SOURCES / f"{part}.cc") for part in PARTS]
    flags = [*options, *SANITIZERS, "-ffp-contract=off", *COMPILER_OPTIONS, f"-I{SOURCES}"]
    subprocess.run([compiler, *flags, str(HARNESS), *sources, "-o", str(program)], check=True)


def mutated(content: bytes, source: random.Random) -> bytes:
    """Return one variant of a file."""
    if content.startswith(PNG) and source.random() < 0.8:
        return _mutated_png(content, source)
    for _ in range(source.choice((1, 1, 2, 4, 16))):
        content = source.choice(_CHANGES)(content, source)
    return content


def _mutated_png(content: bytes, source: random.Random) -> bytes:
    """Change the inside of one chunk; the pixels' before they are compressed."""
    chunks = _chunks(content) or [(b"IHDR", b"")]
    i = source.randrange(len(chunks))
    name, body = chunks[i]
    if name == b"IDAT" and source.random() < 0.8:
        body = zlib.compress(mutated(_unpacked(body), source))
    elif source.random() < 0.2:
        chunks.insert(i, source.choice(chunks))
    else:
        body = mutated(body, source)
    chunks[i] = (name, body)
    framed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return PNG + b"".join(framed)


def _unpacked(body: bytes) -> bytes:
    try:
        return zlib.decompress(body)
    except zlib.error:  # a past failure in the corpus
        return body


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    at, found = len(PNG), []
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += size + 12
    return found


def _place(content: bytes, source: random.Random) -> int:
    """Headers are where most of a reader's decisions are."""
    return source.randrange(min(len(content), source.choice((64, 700, 1 << 30))) + 1)


def _set(content: bytes, source: random.Random) -> bytes:
    at = _place(content, source)
    return content[:at] + bytes([source.choice(INTERESTING)]) + content[at + 1 :]


def _flip(content: bytes, source: random.Random) -> bytes:
    at = _place(content, source)
    changed = bytes(byte ^ 1 << source.randrange(8) for byte in content[at : at + 1])
    return content[:at] + changed + content[at + 1 :]


def _cut(content: bytes, source: random.Random) -> bytes:
    return content[: _place(content, source)]


def _drop(content: bytes, source: random.Random) -> bytes:
    at = _place(content, source)
    return content[:at] + content[at + source.choice((1, 2, 8, 64)) :]


def _repeat(content: bytes, source: random.Random) -> bytes:
    at, size = _place(content, source), source.choice((1, 2, 19, 200))
    return content[:at] + content[at : at + size] * source.choice((2, 3, 50)) + content[at + size :]


def _number(content: bytes, source: random.Random) -> bytes:
    number = source.choice((b"-1", b"0", b"1e999", b"99999999999", b"4294967296", b"0.5", b"null"))
    at = _place(content, source)
    return content[:at] + number + content[at + source.randrange(4) :]


def _long(content: bytes, source: random.Random) -> bytes:
    at, size = _place(content, source), source.choice((2, 4))
    number = source.choice((0, 1, 0x7F, 0xFF)) * int.from_bytes(b"\1" * size, "big")
    return content[:at] + number.to_bytes(size, "big") + content[at + size :]


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_set, _set, _flip, _flip, _cut, _drop, _repeat, _number, _long),
)


def seeds() -> list[tuple[str, bytes]]:
    """Kind and content of each file of the corpus."""
    return [(path.name[0], path.read_bytes()) for path in sorted(CORPUS.iterdir())]


def inputs(kind: str, count: int, seed: int) -> list[bytes]:
    """Return a kind's corpus, then mutations of it."""
    source = random.Random(f"{kind} {seed}")
    known = [content for letter, content in seeds() if letter == kind]
    return [*known, *(mutated(source.choice(known), source) for _ in range(count))]


def read(program: Path, kind: str, contents: Sequence[bytes], folder: Path) -> list[Finding]:
    """Read all; one start of the program ends at the first finding, the next goes on behind it."""
    paths = [folder / f"{kind}{i}" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    findings, at = list[Finding](), 0
    while at < len(paths):
        batch = paths[at : at + BATCH]
        begun, said = _start(program, kind, batch)
        if begun is not None:
            findings.append(Finding(contents[at + begun], kind, said))
        at += len(batch) if begun is None else begun + 1
    return findings


def _start(program: Path, kind: str, paths: Sequence[Path]) -> tuple[int | None, str]:
    """Return which input the program did not survive, and its last words."""
    command = [str(program), kind, *map(str, paths)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=HANG_S * len(paths) / 5, check=False
        )
        out, error = done.stdout.decode(), done.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired as expired:
        out, error = (expired.stdout or b"").decode(), "it hangs"
    lines = out.splitlines()
    if lines and lines[-1] == "done":
        return None, ""
    return len(lines) - 1, error[-3000:]


def main() -> None:
    """Fuzz for some minutes; exit code 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"))
    options = parser.parse_args()
    seed, tried, found = options.seed, 0, 0
    with tempfile.TemporaryDirectory() as name:
        program = Path(name) / "readers"
        build(program)
        end = time.monotonic() + 60 * options.minutes  # of reading: building may take as long
        while not tried or time.monotonic() < end:
            for kind in sorted({letter for letter, _ in seeds()}):
                contents = inputs(kind, 500, seed)
                tried += len(contents)
                for finding in read(program, kind, contents, Path(name)):
                    found += 1
                    options.failures.mkdir(exist_ok=True)
                    path = options.failures / f"{kind}_{zlib.crc32(finding.content):08x}"
                    path.write_bytes(finding.content)
                    print(f"{path}:\n{finding.said}", flush=True)
            seed += 1
    print(f"runner: {tried} inputs, {found} findings, seeds {options.seed} to {seed - 1}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
