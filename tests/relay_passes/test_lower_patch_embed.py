import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_same_results,
    module,
    ops,
    random_inputs,
)
from vitq.numerics.dyadic import rescale, to_dyadic
from vitq.relay_passes.dialect import names
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.lower_patch_embed import LowerPatchEmbed

N, PATCH = 5, 4
RNG = np.random.default_rng(5)
WEIGHT = RNG.integers(-127, 128, (N, 3, PATCH, PATCH)).astype(np.int8)
SCALE = RNG.uniform(0.001, 0.003, N).astype(np.float32)
BIAS = RNG.integers(-900, 900, (1, N, 1, 1)).astype(np.int32)
X_SCALE, X_ZERO = np.float32(1 / 255), 9


FACTORS = RNG.uniform(0.2, 2, (N, 1, 1)).astype(np.float32)


def patches(x_dtype="uint8", height=8, quantized_here=False, factor=None, **attrs):
    options = {"strides": PATCH, **attrs}

    def body(b, x):
        codes = b.q(b.dq(x, 1 / 255), X_SCALE * 2, X_ZERO, x_dtype) if quantized_here else x
        real = b.dq(codes, X_SCALE * 2 if quantized_here else X_SCALE, X_ZERO)
        y = b(relax.op.nn.conv2d(real, b.dq(WEIGHT, SCALE, axis=0), **options))
        y = b(relax.op.add(y, b.dq(BIAS, X_SCALE * SCALE, axis=1)))
        if factor is not None:
            y = b(relax.op.multiply(y, constant(factor)))
        return b.q(y, 0.01, -4, "int16")

    return module({"x": ((2, 3, height, 12), "uint8" if quantized_here else x_dtype)}, body)


@pytest.mark.parametrize("factor", [None, np.float32(0.7), FACTORS])
def test_integers_and_structure(factor):
    before = patches(factor=factor)
    after = LowerPatchEmbed()(before)
    assert ops(after) == [names.PATCH_EMBED, "reshape", "permute_dims"]
    x = random_inputs(before)[0]
    tiles = (x.astype(np.int64) - X_ZERO).reshape(2, 3, 2, PATCH, 3, PATCH)
    acc = np.einsum("bcipjq,ncpq->bnij", tiles, WEIGHT.astype(np.int64)) + BIAS
    acc_scale = float(X_SCALE) * SCALE.astype(np.float64)
    if factor is not None:
        acc_scale = acc_scale * factor.reshape(-1).astype(np.float64)
    dyadic = to_dyadic(acc_scale / float(np.float32(0.01)))
    codes = rescale(acc.transpose(0, 2, 3, 1), dyadic).transpose(0, 3, 1, 2) - 4
    np.testing.assert_array_equal(interpret(after, [x])[0], np.clip(codes, -(2**15), 2**15 - 1))
    # a float product on a tie may round the other way
    assert_same_results(before, after, atol=1)


def test_signed_pixels_move_to_uint8():
    before = patches("int8", quantized_here=True)
    after = LowerPatchEmbed()(before)
    assert ops(after) == ["dequantize", "quantize", names.PATCH_EMBED, "reshape", "permute_dims"]
    # a float product on a tie may round the other way
    assert_same_results(before, after, atol=1)


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (patches("int8"), "uint8 is needed"),
        (patches(strides=2), "no square patches"),
        (patches(padding=1), "padded"),
        (patches(height=10), "do not divide"),
        (patches(factor=np.ones((2, 3), np.float32)), "not one for each channel"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(LowerPatchEmbed(), mod, reason)
