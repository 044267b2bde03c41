"""JPEG and PNG files of made pictures, some of which Pillow cannot write."""

import io
import zlib

import numpy as np
from PIL import Image


def picture(height: int, width: int, channels: int, seed: int = 0, noise: int = 20) -> Image.Image:
    """Smooth colours and noise; at least one edge of 0 and of 255."""
    noises = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + c) + y / (5 - c)) + np.cos(y / (2 + c)) for c in range(channels)]
    pixels = 128 + 90 * np.stack(waves, -1)
    pixels += noises.integers(-noise, noise + 1, pixels.shape)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    rounded = np.clip(pixels, 0, 255).astype(np.uint8)
    return Image.fromarray(rounded[..., 0] if channels == 1 else rounded, mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def resampled(content: bytes, factors: int, height: int, width: int) -> bytes:
    """Another picture of as many blocks: luma's sampling factors and the size are overwritten."""
    frame = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    patched = bytearray(content)
    patched[frame + 5 : frame + 9], patched[frame + 11] = size, factors
    return bytes(patched)


def png(values: np.ndarray, depth: int, color: int, extra: bytes = b"") -> bytes:
    """Write (h, w, channels) of any depth, which Pillow cannot."""
    height, width, _ = values.shape
    rows = values.reshape(height, -1)
    if depth < 8:
        bits = (rows[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    packed = rows.astype(">u2" if depth == 16 else "u1")
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes([depth, color, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body).to_bytes(4, "big")
    return len(body).to_bytes(4, "big") + name + body + checksum
