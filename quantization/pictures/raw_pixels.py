"""Raw pixels (N, C, H, W) uint8 in an ``.npy`` file, with class numbers in a file beside it.

x.npy                 the pictures, read one by one: a file may be larger than the memory
x-labels.npy          (N,) integers; or labels.npy, if it is as long
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError
from vitq.numerics.npy import read_npy


def open_pixels(
    path: Path, input_shape: tuple[int, int, int]
) -> tuple[int, Callable[[int], UInt8Array]]:
    """Open an ``.npy`` without reading its pictures.

    Args:
        path: of the file.
        input_shape: (C, H, W) of the model.

    Returns:
        How many pictures it holds, and a function that reads one (C, H, W) from any thread.

    Raises:
        VitqError: not readable, not uint8, or not (N, C, H, W) of the model's size.
    """
    try:
        stored = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # NumPy raises anything for a damaged header
        pixels = read_pixels(path, input_shape)  # says what is wrong, or reads what maps badly
        return len(pixels), pixels.__getitem__
    check_shape(stored, input_shape, str(path))
    if not stored.flags.c_contiguous:
        pixels = read_pixels(path, input_shape)
        return len(pixels), pixels.__getitem__
    size, offset = int(np.prod(input_shape)), int(stored.offset)
    number = stored.size // size

    def read(index: int) -> UInt8Array:
        try:
            with path.open("rb") as file:
                data = os.pread(file.fileno(), size, offset + index * size)
        except OSError as error:
            raise VitqError(f"the array {path} cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise VitqError(f"{path} became shorter while it was read: picture {index} is gone")
        return np.frombuffer(data, np.uint8).reshape(input_shape)

    return number, read


def read_pixels(path: Path, input_shape: tuple[int, int, int]) -> UInt8Array:
    """Read raw pixels from an ``.npy`` and check shape and dtype.

    Raises:
        VitqError: not readable, not uint8, or not (N, C, H, W) of the model's size.
    """
    return check_pixels(read_npy(path), input_shape, str(path))


def labels_file(path: Path) -> Path | None:
    """Return the file with the class numbers of an ``.npy``, where there is one.

    Args:
        path: of the pictures.

    Returns:
        ``<name>-labels.npy``, or else ``labels.npy`` beside it.
    """
    own, shared = path.with_name(f"{path.stem}-labels.npy"), path.with_name("labels.npy")
    return next((file for file in (own, shared) if file.is_file() and file != path), None)


def read_labels(path: Path, count: int) -> IntArray | None:
    """Read the class numbers of pictures.

    Args:
        path: from `labels_file`.
        count: how many pictures there are.

    Returns:
        (count,) int64; None of a ``labels.npy`` of another length, which belongs to other pictures.

    Raises:
        VitqError: no integers, or of another length.
    """
    labels = read_npy(path)
    if labels.ndim == 1 and len(labels) != count and path.name == "labels.npy":
        return None
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise VitqError(
            f"{path} holds {labels.dtype} of shape {labels.shape}: give integers, one for each of "
            f"the {count} pictures"
        )
    if labels.max(initial=0) > 2**31 - 1 or labels.min(initial=0) < 0:
        bad = next(i for i, label in enumerate(labels) if not 0 <= label < 2**31)
        raise VitqError(f"{path}[{bad}] is {labels[bad]}: class numbers are 0 to 2147483647")
    found: IntArray = labels.astype(np.int64)
    return found


def check_shape(
    pixels: UInt8Array, input_shape: tuple[int, int, int], source: str
) -> tuple[int, ...]:
    """Hold an array against what a model takes.

    Args:
        pixels: (N, C, H, W), or one picture (C, H, W).
        input_shape: (C, H, W) of the model.
        source: for the message.

    Returns:
        (N, C, H, W).

    Raises:
        VitqError: not uint8, none, or not of the model's size.
    """
    shape = (1, *pixels.shape) if pixels.ndim == 3 else pixels.shape
    if len(shape) != 4 or shape[1:] != input_shape:
        want = "x".join(map(str, input_shape))
        raise VitqError(f"{source} has shape {shape}: the model takes N x {want}")
    if pixels.dtype != np.uint8:
        raise VitqError(f"{source} is {pixels.dtype}: the model takes raw pixels, uint8 0 to 255")
    if len(pixels) == 0:
        raise VitqError(f"{source} is an array of 0 pictures: give at least one")
    return shape


def check_pixels(pixels: UInt8Array, input_shape: tuple[int, int, int], source: str) -> UInt8Array:
    """Raw pixels as a model takes them.

    Args:
        pixels: (N, C, H, W), or one picture (C, H, W).
        input_shape: (C, H, W) of the model.
        source: for the message.

    Returns:
        (N, C, H, W) uint8, contiguous.

    Raises:
        VitqError: not uint8, none, or not of the model's size.
    """
    checked: UInt8Array = np.ascontiguousarray(pixels)
    return checked.reshape(check_shape(pixels, input_shape, source))
