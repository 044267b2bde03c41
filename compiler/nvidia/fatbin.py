"""What is in a fat binary: NVIDIA's container of machine code and PTX.

The layout is not documented; it is read the way published tools read it and checked against
``cuobjdump -lelf -lptx`` in the tests where that is installed.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = 0xBA55ED50
HEADER = struct.Struct("<IHHQ")
"""Magic, version, size of this header, bytes that follow it."""
ENTRY = struct.Struct("<HHIQIIII")
"""Kind, version, size of this header, bytes of payload, three more, architecture."""
KINDS = {1: "ptx", 2: "elf"}


class Part(NamedTuple):
    """One entry.

    Attributes:
        kind: ``elf`` (machine code) or ``ptx``.
        architecture: such as ``sm_90``.
    """

    kind: str
    architecture: str


def contents(data: bytes) -> list[Part]:
    """All entries of all fat binaries inside some bytes, such as a library's file."""
    magic, found, at = struct.pack("<I", MAGIC), [], 0
    while (at := data.find(magic, at)) >= 0:
        found += list(_entries(data, at))
        at += len(magic)
    return found


def _entries(data: bytes, start: int) -> Iterator[Part]:
    """Read the entries of the container at an offset."""
    if start + HEADER.size > len(data):
        return
    _, _, header, size = HEADER.unpack_from(data, start)
    at, end = start + header, min(start + header + size, len(data))
    while at + ENTRY.size <= end:
        kind, _, header, size, _, _, _, architecture = ENTRY.unpack_from(data, at)
        if kind not in KINDS or not header:
            return
        yield Part(KINDS[kind], f"sm_{architecture}")
        at += header + size
