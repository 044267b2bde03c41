"""Reads ``.npy`` and ``.npz`` files of numbers: whatever is wrong with one is one line.

NumPy reads a header as Python text and allocates what it says. Here a header is short, its array
fits the file, and no object is ever unpickled.
"""

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vitq.numerics.errors import VitqError, reason

LONGEST_HEADER = 1 << 16
KINDS = "biufc"
MOST_DIMENSIONS = 32
REMEDY = "write it again with numpy.save"
Array = Any


def read_npy(path: Path) -> Array:
    """Read an array of numbers.

    Args:
        path: an ``.npy`` file.

    Returns:
        The array, in C order.

    Raises:
        VitqError: no such file, no ``.npy``, damaged, or of objects.
    """
    try:
        with path.open("rb") as file:
            return _array(file, os.fstat(file.fileno()).st_size, str(path))
    except OSError as error:
        raise VitqError(f"{path} cannot be read as an .npy array: {reason(error)}") from error


def read_npz(path: Path, *names: str) -> tuple[Array, ...]:
    """Read some arrays of an archive.

    Args:
        path: an ``.npz`` file.
        names: of the arrays.

    Raises:
        VitqError: no such file, damaged, or one of the arrays is not there.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = [archive.read(f"{name}.npy") for name in names]
    except KeyError as error:
        raise VitqError(f"{path} lacks an array: {reason(error)}") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError,
            MemoryError) as error:  # fmt: skip
        raise VitqError(f"{path} cannot be read as an .npz archive: {reason(error)}") from error
    parts = zip(names, found, strict=True)
    return tuple(_array(io.BytesIO(data), len(data), f"{path}:{name}") for name, data in parts)


def _array(file: BinaryIO, size: int, called: str) -> Array:
    """Read header and content of a file of `size` bytes."""
    try:
        shape, fortran, dtype = _header(file)
    except Exception as error:  # Python's tokenizer and parser raise anything
        raise VitqError(f"{called} cannot be read as an .npy array: {reason(error)}") from error
    if dtype.kind not in KINDS or dtype.hasobject or len(shape) > MOST_DIMENSIONS:
        raise VitqError(f"{called} holds {dtype} of shape {shape}, not numbers: {REMEDY}")
    count = 1
    for length in shape:
        count *= length
    if min(shape, default=0) < 0 or file.tell() + count * dtype.itemsize > size:
        raise VitqError(
            f"{called} is shorter than its header says ({dtype} of shape {shape}): {REMEDY}"
        )
    data = file.read(count * dtype.itemsize)
    array = np.frombuffer(bytearray(data), dtype, count)
    order = shape[::-1] if fortran else shape
    array = array.reshape(order)
    return np.ascontiguousarray(array.T) if fortran else array


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, Any]:
    """Return shape, whether it is in Fortran's order, and type."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"format version {version} is none of 1.0 and 2.0")
    return readers[version](file, max_header_size=LONGEST_HEADER)
