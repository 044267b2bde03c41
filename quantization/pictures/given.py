"""Pictures in hand: from Python, without a file."""

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitq.numerics.errors import VitqError

if TYPE_CHECKING:
    from PIL import Image

    from vitq.numerics.arrays import IntArray, UInt8Array


@dataclass(frozen=True, eq=False)
class GivenPictures:
    """Pictures in hand.

    Attributes:
        images: raw pixels (N, C, H, W) uint8 of the model's size, or PIL's pictures of any size.
        labels: (N,) class numbers, or None.
        source: what they are called in provenance and messages.
    """

    images: "UInt8Array | tuple[Image.Image, ...]"
    labels: "IntArray | None" = None
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
        if isinstance(self.images, tuple):
            facts = [f"{image.size} {image.mode}" for image in self.images]
        else:
            facts = [f"{image.shape} {image.dtype}" for image in self.images]
        for fact, image in zip(facts, self.images, strict=True):
            digest.update(fact.encode())
            digest.update(image.tobytes())
        return digest.hexdigest()
