"""Attention and the shape of its input, against the operators that it is made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitq.numerics.attention import (
    AttentionParams,
    QkvShape,
    attention_params,
    int_attention,
    int_offset_attention,
    split_heads,
)
from vitq.numerics.errors import VitqError
from vitq.numerics.log_codes import log_code_params
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import (
    CodeParams,
    code_params,
    normalize_params,
    normalized_matmul,
    normalized_matmul_params,
    shiftmax_codes,
)
from vitq.numerics.twin_codes import TwinCodes

OUT = QuantParams.per_tensor(0.05, 3, -128, 127)
sizes = st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 3), st.integers(1, 5))


@given(sizes)
def test_shape(size: tuple[int, int, int, int]) -> None:
    """All forms of it hold the same numbers."""
    batch, tokens, heads, width = size
    shape = QkvShape(*size)
    assert QkvShape.of(shape.shape) == shape
    assert shape.shape == (batch, tokens, 3, heads, width)
    assert shape.result == (batch, tokens, heads, width)
    assert np.prod(shape.joined) == np.prod(shape.shape)
    pairs = batch * heads * tokens * tokens
    assert shape.macs == pairs * width + pairs * width


@pytest.mark.parametrize("shape", [(1, 4, 2, 2, 8), (1, 4, 3, 8), (1, 4, 3, 2, 8, 1), ()])
def test_shape_refuses(shape: tuple[int, ...]) -> None:
    with pytest.raises(VitqError, match=r"qkv of shape \(.*\) is not \(B, N, 3, H, D\)"):
        QkvShape.of(shape)


def test_split_heads() -> None:
    """Part first, then head, then token."""
    shape = (2, 4, 3, 5, 6)
    qkv = np.arange(np.prod(shape)).reshape(shape)
    parts = split_heads(qkv)
    for part, (b, h, n, d) in ((p, index) for p in range(3) for index in np.ndindex(2, 5, 4, 6)):
        assert parts[part][b, h, n, d] == qkv[b, n, part, h, d]
    with pytest.raises(VitqError, match="is not"):
        split_heads(qkv.reshape(2, 4, 5, 3, 6))


@settings(deadline=None)
@given(
    sizes,
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(-128, 127)] * 3),
    st.sampled_from([
        code_params(3e-4),
        code_params(3e-3, TwinCodes(1, 5)),
        log_code_params(1e-3, 2, 16, True),
    ]),
)
def test_against_python_integers(
    size: tuple[int, int, int, int], seed: int, zeros: tuple[int, int, int], codes: CodeParams
) -> None:
    """Products and the division by hand; the codes are `numerics.shiftmax`'s."""
    batch, tokens, heads, width = size
    qkv = np.random.default_rng(seed).integers(-128, 128, QkvShape(*size).shape, dtype=np.int8)
    p = attention_params(zeros, codes, normalized_matmul_params(0.02, OUT))
    result = int_attention(qkv, p)
    assert result.shape == (batch, tokens, heads, width)
    for b, n, h in np.ndindex(batch, tokens, heads):
        q, k, v = (qkv[b, :, part, h].astype(int) - zero for part, zero in enumerate(zeros))
        scores = [sum(int(x) * int(y) for x, y in zip(q[n], row, strict=True)) for row in k]
        weights = shiftmax_codes(np.array([scores]), codes)[0].tolist()
        multiplier = p.numerator // sum(weights)
        for d in range(width):
            acc = sum(w * int(row[d]) for w, row in zip(weights, v, strict=True))
            rounded = (acc * multiplier + 2 ** (p.out_shift - 1)) // 2**p.out_shift
            assert result[b, n, h, d] == min(max(rounded + p.zero_point, p.qmin), p.qmax)


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_a_windows_heads_have_their_constants(dtype: type) -> None:
    """Windows count round and round through the pictures; int32 constants do not wrap."""
    rng = np.random.default_rng(3)
    qkv = rng.integers(-128, 128, (4, 5, 3, 3, 2), dtype=np.int8)
    offsets = rng.integers(-400, 400, (6, 5, 5)).astype(dtype)
    index = np.array([[0, 1, 2], [5, 4, 3]])
    p = attention_params((1, 2, 3), code_params(3e-3), normalized_matmul_params(0.02, OUT))
    found = int_offset_attention(qkv, offsets, index, p)
    assert found.shape == (4, 5, 3, 2)
    for b, h in np.ndindex(4, 3):
        q, k, v = (qkv[b, :, part, h].astype(np.int64) for part in range(3))
        scores = (q - 1) @ (k - 2).T + offsets[index[b % 2, h]]
        codes = shiftmax_codes(scores, p.codes)
        np.testing.assert_array_equal(found[b, :, h], normalized_matmul(codes, v, 3, p.normalize))


def test_one_token_passes_its_value() -> None:
    """The only weight is 1; equal scales leave V as it is."""
    out = QuantParams.per_tensor(0.25, 0, -128, 127)
    qkv = np.random.default_rng(1).integers(-128, 128, (2, 1, 3, 2, 4), dtype=np.int8)
    p = attention_params((5, -7, 0), code_params(0.01), normalized_matmul_params(0.25, out))
    np.testing.assert_array_equal(int_attention(qkv, p), qkv[:, :, 2])


def test_order_of_the_integers() -> None:
    """Kernels read them by position: zero points, then the codes', then the division's."""
    codes, norm = CodeParams(11, 12, 10, 13, 1, 2, 4), normalize_params(1.0, 255, OUT)
    p = attention_params((1, 2, 3), codes, norm)
    assert tuple(p) == (1, 2, 3, 11, 12, 10, 13, 1, 2, 4, *norm)
    assert (p.codes, p.normalize) == (codes, norm)
    assert AttentionParams._fields[:3] == ("q_zero_point", "k_zero_point", "v_zero_point")
