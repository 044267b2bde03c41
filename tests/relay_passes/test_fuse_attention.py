import numpy as np
import pytest
import tvm
from tvm import relax

from tests.relay_passes.modules import assert_declines, assert_same_results, module, ops
from vitq.numerics.attention import AttentionParams
from vitq.numerics.dyadic import to_dyadic
from vitq.numerics.linear import LinearParams
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftmax import SMALLEST_CODE_SUM, code_params, normalize_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import MAIN, bindings_of, op_name
from vitq.relay_passes.fuse_attention import FuseAttention
from vitq.relay_passes.simplify_layout import SimplifyLayout

B, N, H, D = 2, 5, 3, 4
INPUT = {"qkv": ((B, N, 3 * H * D), "int8")}
SOFTMAX = code_params(3e-3)
NORM = normalize_params(1.7, SMALLEST_CODE_SUM, QuantParams(np.float32(1), np.int32(3), -128, 127))


def by_permute(b, qkv, index):
    x = b(relax.op.reshape(qkv, (B, N, 3, H, D)))
    x = b(relax.op.permute_dims(x, [2, 0, 3, 1, 4]))
    return b(
        relax.op.reshape(b(relax.op.strided_slice(x, [0], [index], [index + 1])), (B, H, N, D))
    )


def by_slice(b, qkv, index):
    x = b(relax.op.strided_slice(qkv, [2], [index * H * D], [(index + 1) * H * D]))
    return b(relax.op.permute_dims(b(relax.op.reshape(x, (B, N, H, D))), [0, 2, 1, 3]))


def heads_first(b, qkv, index):
    x = b(relax.op.reshape(qkv, (B, N, H, 3, D)))
    x = b(relax.op.permute_dims(x, [3, 0, 2, 1, 4]))
    return b(
        relax.op.reshape(b(relax.op.strided_slice(x, [0], [index], [index + 1])), (B, H, N, D))
    )


PART = ((B, N, H * D), "int8")


def whole(b, part, index):
    return b(relax.op.permute_dims(b(relax.op.reshape(part, (B, N, H, D))), [0, 2, 1, 3]))


def attention(split=by_permute, order=(0, 1, 2), inputs=INPUT):
    def body(b, *tensors):
        sources = tensors if len(tensors) == 3 else tensors * 3
        q, k, v = (split(b, source, i) for source, i in zip(sources, order, strict=True))
        codes = b(dialect.shiftmax_codes(b(dialect.matmul(q, k, 1, -2)), SOFTMAX))
        y = b(dialect.normalized_matmul(codes, v, 5, NORM, "int8"))
        return b(relax.op.reshape(b(relax.op.permute_dims(y, [0, 2, 1, 3])), (B, N, H * D)))

    return module(inputs, body)


@pytest.mark.parametrize("split", [by_permute, by_slice])
def test_any_spelling_of_the_heads_fuses(split):
    def fused(b, qkv):
        params = AttentionParams(1, -2, 5, *SOFTMAX, *NORM)
        x = b(relax.op.reshape(qkv, (B, N, 3, H, D)))
        return b(relax.op.reshape(b(dialect.attention(x, params, "int8")), (B, N, H * D)))

    before = attention(split)
    after = SimplifyLayout()(FuseAttention()(before))
    tvm.ir.assert_structural_equal(after, module(INPUT, fused))
    assert_same_results(before, after)


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (attention(heads_first), "not split as (B, N, 3, H, D)"),
        (attention(order=(1, 0, 2)), "not split as (B, N, 3, H, D)"),
        (attention(inputs={"qkv": (INPUT["qkv"][0], "uint8")}), "int8 is needed"),
        (attention(inputs={name: INPUT["qkv"] for name in "qkv"}), "not split as (B, N, 3, H, D)"),
        (attention(whole, inputs={name: PART for name in "qkv"}), "nor from three linear layers"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(FuseAttention(), mod, reason)


W = 2
BIAS = np.arange(H * N * N, dtype=np.int32).reshape(H, N, N)
MASK = np.stack([np.zeros((N, N), np.int32), np.triu(np.full((N, N), -(2**20), np.int32), 1)])
WINDOWS = {"qkv": ((2 * W, N, 3 * H * D), "int8")}


def windows(order=(0, 1)):
    """A bias, a view as (pictures, windows), and a mask of each window."""
    batch = 2 * W

    def body(b, qkv):
        q, k, v = (b(relax.op.reshape(x, (batch, H, N, D))) for x in parts(b, qkv, batch))
        x = b(dialect.offset(b(dialect.matmul(q, k, 1, -2)), BIAS))
        x = b(relax.op.reshape(x, (2, W, H, N, N)))
        x = b(dialect.offset(x, MASK[list(order)].reshape(W, 1, N, N)))
        codes = b(dialect.shiftmax_codes(b(relax.op.reshape(x, (batch, H, N, N))), SOFTMAX))
        return b(dialect.normalized_matmul(codes, v, 5, NORM, "int8"))

    return module(WINDOWS, body)


def parts(b, qkv, batch):
    x = b(relax.op.reshape(qkv, (batch, N, 3, H, D)))
    x = b(relax.op.permute_dims(x, [2, 0, 3, 1, 4]))
    return [b(relax.op.strided_slice(x, [0], [i], [i + 1])) for i in range(3)]


def fused_call(mod):
    calls = [b.value for b in bindings_of(mod[MAIN]) if op_name(b.value) == names.OFFSET_ATTENTION]
    (call,) = calls
    return dialect.array(call, 1), dialect.array(call, 2)


def test_biases_and_masks_are_one_constant_for_each_window_and_head():
    before = windows()
    after = FuseAttention()(before)
    assert_same_results(before, after)
    offsets, index = fused_call(after)
    assert index.shape == (W, H)
    whole = BIAS + MASK[:, None]
    np.testing.assert_array_equal(offsets[index], whole)


def test_equal_constants_are_stored_once():
    offsets, index = fused_call(FuseAttention()(windows((1, 1))))
    assert (offsets.shape[0], index.shape) == (H, (1, H))


def test_scores_that_are_moved_do_not_fuse():
    def body(b, qkv):
        q, k, v = (b(relax.op.reshape(x, (B, H, N, D))) for x in parts(b, qkv, B))
        x = b(relax.op.permute_dims(b(dialect.matmul(q, k, 1, -2)), [0, 1, 3, 2]))
        codes = b(dialect.shiftmax_codes(b(dialect.offset(x, BIAS)), SOFTMAX))
        return b(dialect.normalized_matmul(codes, v, 5, NORM, "int8"))

    assert_declines(FuseAttention(), module(INPUT, body), "not a vitq.matmul and constants")


def layer(seed, qmin=-128):
    rng = np.random.default_rng(seed)
    n = H * D
    weight = rng.integers(-128, 128, (n, 6), dtype=np.int8)
    dyadic = to_dyadic(rng.uniform(1e-3, 1e-2, n))
    bias, zero = (rng.integers(-5, 6, n) for _ in range(2))
    return LinearParams(weight, bias, dyadic, zero, qmin, 127)


def three_layers(layers, inputs=("x",)):
    def body(b, *tensors):
        sources = tensors if len(tensors) == 3 else tensors * 3
        parts = [
            whole(b, b(dialect.linear(x, params, "int8")), 0)
            for x, params in zip(sources, layers, strict=True)
        ]
        codes = b(dialect.shiftmax_codes(b(dialect.matmul(*parts[:2], 1, -2)), SOFTMAX))
        return b(dialect.normalized_matmul(codes, parts[2], 5, NORM, "int8"))

    return module({name: ((B, N, 6), "int8") for name in inputs}, body)


def test_three_layers_of_one_tensor_become_one():
    before = three_layers([layer(seed) for seed in range(3)])
    after = FuseAttention()(before)
    assert_same_results(before, after)
    assert ops(after) == [names.LINEAR, "reshape", names.ATTENTION, "permute_dims"]


@pytest.mark.parametrize(
    "mod",
    [
        three_layers([layer(0), layer(1), layer(2, -7)]),
        three_layers([layer(seed) for seed in range(3)], "abc"),
    ],
)
def test_layers_that_cannot_be_joined(mod):
    assert_declines(FuseAttention(), mod, "read different tensors or have other bounds")
