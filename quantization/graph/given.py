"""Models and pictures in hand: from Python, without a name that could be looked up or a file."""

import copy
import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vitq.numerics.arrays import IntArray, UInt8Array
from vitq.numerics.errors import VitqError

if TYPE_CHECKING:
    import torch
    from PIL import Image

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class GivenModel:
    """A snapshot of a float model: what its owner does to it later changes nothing here.

    Attributes:
        module: in eval mode, float32, on the processor; nobody else's.
    """

    module: "torch.nn.Module"

    @classmethod
    def of(cls, module: "torch.nn.Module") -> "GivenModel":
        """Copy a module, which stays as it is.

        Raises:
            VitqError: if it cannot be copied.
        """
        try:
            taken = copy.deepcopy(module)
        except (RuntimeError, TypeError) as error:
            line = str(error).strip().splitlines()[0]
            name = type(module).__name__
            raise VitqError(f"the {name} cannot be copied (detach its tensors?): {line}") from error
        return cls(taken.eval().cpu().float())

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of its structure and of its state dict."""
        digest = hashlib.sha256(repr(self.module).encode())
        for name, tensor in self.module.state_dict().items():
            values = tensor.detach().numpy()
            digest.update(f"{name} {values.shape} {values.dtype}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class GivenPictures:
    """Pictures in hand.

    Attributes:
        images: raw pixels (N, C, H, W) uint8 of the model's size, or PIL's pictures of any size.
        labels: (N,) class numbers, or None.
        source: what they are called in provenance and messages.
    """

    images: "UInt8Array | tuple[Image.Image, ...]"
    labels: IntArray | None = None
    source: str = "array"

    def __post_init__(self) -> None:
        """Refuse labels of another number of pictures."""
        if self.labels is not None and self.labels.shape != (len(self.images),):
            raise VitqError(
                f"labels of shape {self.labels.shape} for {len(self.images)} pictures: "
                "give one class number for each"
            )

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of what they show."""
        digest = hashlib.sha256()
        for image in self.images:
            if isinstance(image, np.ndarray):
                digest.update(f"{image.shape} {image.dtype}".encode())
            else:
                digest.update(f"{image.size} {image.mode}".encode())
            digest.update(image.tobytes())
        return digest.hexdigest()


def check_pixels(pixels: UInt8Array, input_shape: Shape, source: str) -> UInt8Array:
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
    if pixels.ndim == 3:
        pixels = pixels[None]
    if pixels.ndim != 4 or pixels.shape[1:] != input_shape:
        want = "x".join(map(str, input_shape))
        raise VitqError(f"{source} has shape {pixels.shape}: the model takes N x {want}")
    if pixels.dtype != np.uint8:
        raise VitqError(f"{source} is {pixels.dtype}: the model takes raw pixels, uint8 0 to 255")
    if len(pixels) == 0:
        raise VitqError(f"{source} holds no pictures")
    checked: UInt8Array = np.ascontiguousarray(pixels)
    return checked
