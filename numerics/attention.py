"""Attention of one layer between its two projections, all heads at once.

    scores = (q - q_zero_point) @ (k - k_zero_point)^T                               int32
    codes = shiftmax_codes(scores)                                                   0 to 255
    y = normalized_matmul(codes, v - v_zero_point)

q, k and v are the three parts of one tensor ``qkv`` of shape (B, N, 3, H, D), see `QkvShape`. The
integers and errors are those of `numerics.matmul`, `numerics.shiftmax` and its code grids; nothing
is rounded in between.

With constants (`numerics.offset`: biases for each head, masks for each window), the scores of batch
entry b and head h get ``offsets[index[b % W, h]]`` of (G, N, N) different ones: Swin's windows, W
of them for each picture, have four masks, whatever their number.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vitq.numerics.arrays import IntArray
from vitq.numerics.errors import VitqError
from vitq.numerics.matmul import centred_matmul
from vitq.numerics.shiftmax import CodeParams, NormalizeParams, normalized_matmul, shiftmax_codes

PARTS = 3
"""Queries, keys and values."""


class QkvShape(NamedTuple):
    """The shape (B, N, 3, H, D) of queries, keys and values in one tensor.

    Attributes:
        batch: B, pictures.
        tokens: N.
        heads: H.
        width: D, channels of one head.
    """

    batch: int
    tokens: int
    heads: int
    width: int

    @classmethod
    def of(cls, shape: Sequence[int]) -> "QkvShape":
        """Read a tensor's shape.

        Raises:
            VitqError: if it is not (B, N, 3, H, D).
        """
        if len(shape) != 5 or shape[2] != PARTS:
            raise VitqError(f"qkv of shape {tuple(shape)} is not (B, N, {PARTS}, H, D)")
        batch, tokens, _, heads, width = (int(size) for size in shape)
        return cls(batch, tokens, heads, width)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(B, N, 3, H, D)."""
        return self.batch, self.tokens, PARTS, self.heads, self.width

    @property
    def joined(self) -> tuple[int, int, int]:
        """(B, N, 3 H D), as the projection writes it."""
        return self.batch, self.tokens, PARTS * self.heads * self.width

    @property
    def result(self) -> tuple[int, int, int, int]:
        """(B, N, H, D), of what attention computes."""
        return self.batch, self.tokens, self.heads, self.width

    @property
    def macs(self) -> int:
        """Multiplications of both products: queries by keys, weights by values."""
        return 2 * self.batch * self.heads * self.tokens**2 * self.width


def split_heads(qkv: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Split into views of the parts, heads before tokens.

    Args:
        qkv: (B, N, 3, H, D).

    Returns:
        q, k and v, each (B, H, N, D).
    """
    QkvShape.of(qkv.shape)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    return q, k, v


class AttentionParams(NamedTuple):
    """The integers of one attention, in the order in which a kernel reads them (int64 each)."""

    q_zero_point: int
    k_zero_point: int
    v_zero_point: int
    multiplier: int
    shift: int
    grid_bits: int
    limit: int
    zero_last: int
    fine: int
    coarse: int
    numerator: int
    out_shift: int
    zero_point: int
    qmin: int
    qmax: int

    @property
    def codes(self) -> CodeParams:
        """Codes of the weights."""
        return CodeParams(*(getattr(self, name) for name in CodeParams._fields))

    @property
    def normalize(self) -> NormalizeParams:
        """Parameters of the sum's division and the output."""
        return NormalizeParams(
            self.numerator, self.out_shift, self.zero_point, self.qmin, self.qmax
        )


def attention_params(
    zero_points: tuple[int, int, int], codes: CodeParams, norm: NormalizeParams
) -> AttentionParams:
    """Join the integers of the three operators that attention is made of.

    Args:
        zero_points: of q, k and v.
        codes: of the weights, for the scale of the scores.
        norm: from `numerics.shiftmax.normalized_matmul_params`.

    Returns:
        The integers.
    """
    return AttentionParams(*zero_points, *codes, *norm)


def int_attention(qkv: IntArray, p: AttentionParams) -> IntArray:
    """Attention of all heads (module docstring's formula).

    Args:
        qkv: (B, N, 3, H, D) int8 codes, with scores within +-SCORE_LIMIT.
        p: the integers from `attention_params`.

    Returns:
        (B, N, H, D) int64 in [qmin, qmax].
    """
    return _attended(qkv, p, None)


def int_offset_attention(
    qkv: IntArray, offsets: IntArray, index: IntArray, p: AttentionParams
) -> IntArray:
    """Attention of all heads with constants added to their scores.

    Args:
        qkv: (B, N, 3, H, D) int8 codes, B a multiple of W; scores within +-SCORE_LIMIT.
        offsets: (G, N, N), different biases or masks in steps of the scores.
        index: (W, H) which of them a window's heads have.
        p: the integers from `attention_params`.

    Returns:
        (B, N, H, D) int64 in [qmin, qmax].
    """
    windows = np.tile(index, (qkv.shape[0] // index.shape[0], 1))
    return _attended(qkv, p, offsets.astype(np.int64)[windows])


def _attended(qkv: IntArray, p: AttentionParams, offset: IntArray | None) -> IntArray:
    q, k, v = split_heads(qkv)
    scores = centred_matmul(q, np.swapaxes(k, -1, -2), p.q_zero_point, p.k_zero_point)
    if offset is not None:
        scores = scores + offset
    codes = shiftmax_codes(scores, p.codes)
    return normalized_matmul(codes, v, p.v_zero_point, p.normalize).transpose(0, 2, 1, 3)
