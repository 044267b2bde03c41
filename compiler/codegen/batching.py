"""Any number of pictures through a function of a fixed batch."""

from collections.abc import Callable

import numpy as np

from vitq.numerics.arrays import IntArray, UInt8Array


def run_in_batches(
    function: Callable[[UInt8Array], IntArray], pixels: UInt8Array, batch: int
) -> IntArray:
    """Call a function of fixed batch size as often as needed; the last batch is padded.

    Args:
        function: (batch, C, H, W) uint8 to (batch, classes).
        pixels: (N, C, H, W) uint8.
        batch: its size.

    Returns:
        (N, classes).
    """
    parts = []
    for start in range(0, len(pixels), batch):
        part = np.ascontiguousarray(pixels[start : start + batch])
        count = len(part)
        if count < batch:
            padding = np.zeros((batch - count, *pixels.shape[1:]), np.uint8)
            part = np.concatenate([part, padding])
        parts.append(function(part)[:count])
    return np.concatenate(parts)
