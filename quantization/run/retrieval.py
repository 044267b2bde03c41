"""Whether embeddings find the same neighbours: what a search over pictures would notice.

The nearest neighbour of picture i among the others is the one of the largest cosine,

    nn(i) = argmax over j != i of <x_i, x_j> / (||x_i|| ||x_j||),

and the agreement of two sets of embeddings of the same pictures is the share of pictures with the
same nn in both. It depends on the set: the more pictures, and the more alike, the harder.
"""

import numpy as np

from vitq.numerics.arrays import FloatArray, IntArray

AT_ONCE = 1024
"""Pictures whose similarities to all others are held at a time."""


def nearest_others(features: FloatArray) -> IntArray:
    """Find each picture's nearest neighbour.

    Args:
        features: (N, ...), each picture's are one vector.

    Returns:
        (N,) its place; of equally near ones the first; of a single picture its own.
    """
    rows = features.reshape(len(features), -1).astype(np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    found = np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), AT_ONCE):
        near = rows[start : start + AT_ONCE] @ rows.T
        places = np.arange(len(near))
        near[places, places + start] = -np.inf
        found[start : start + AT_ONCE] = near.argmax(1)
    return found
