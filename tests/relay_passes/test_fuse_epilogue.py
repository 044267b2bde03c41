import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import (
    assert_declines,
    assert_rewrites,
    assert_same_results,
    module,
)
from vitq.numerics.add import AddParams, add_params
from vitq.numerics.dyadic import to_dyadic
from vitq.numerics.linear import LinearParams
from vitq.numerics.qparams import QuantParams
from vitq.numerics.shiftgelu import gelu_params
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.fuse_epilogue import FuseEpilogue

B, N, K, C = 2, 5, 8, 12
X = {"x": ((B, N, K), "int8")}
FULL = {**X, "y": ((B, N, C), "int16")}
WORDS = QuantParams(np.float32(0.02), np.int32(0), -(2**15), 2**15 - 1)
BYTES = QuantParams(np.float32(0.05), np.int32(-100), -128, 127)
GELU = gelu_params(3e-3, 7, BYTES)
ADD = AddParams(*add_params(0.01, 3, 0.004, -2, WORDS))


def linear(x, dtype="int16", seed=0):
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype if dtype != "int32" else "int16")
    gemm = LinearParams(
        rng.integers(-128, 128, (C, K)).astype(np.int8),
        rng.integers(-999, 999, C),
        to_dyadic(rng.uniform(0.01, 0.9, C)),
        rng.integers(-9, 9, C),
        int(info.min) + 5,
        int(info.max),
    )
    return dialect.linear(x, gemm, dtype)


def layer(b, x, **options):
    return b(linear(x, **options))


def test_gelu():
    before = module(X, lambda b, x: b(dialect.shiftgelu(layer(b, x), GELU, "int8")))
    fused = module(X, lambda b, x: b(dialect.linear_gelu(linear(x), GELU, "int8")))
    assert_same_results(before, assert_rewrites(FuseEpilogue(), before, fused))


@pytest.mark.parametrize("swap", [False, True])
def test_add(swap):
    def plain(b, x, y):
        parts = [layer(b, x), y]
        return b(dialect.add(*(parts[::-1] if swap else parts), ADD, "int16"))

    def fused(b, x, y):
        swapped = AddParams(-2, 3, ADD.b_multiplier, ADD.a_multiplier, *ADD[4:])
        return b(dialect.linear_add(linear(x), y, swapped if swap else ADD, "int16"))

    before = module(FULL, plain)
    assert_same_results(before, assert_rewrites(FuseEpilogue(), before, module(FULL, fused)))


def test_the_summand_that_is_read_once_is_fused():
    def sums(fuse):
        def body(b, x, y):
            shared, own = layer(b, x), layer(b, x, seed=1)
            a = dialect.add(shared, own, ADD, "int16")
            if fuse:
                a = dialect.linear_add(
                    linear(x, seed=1), shared, dialect.swap_summands(ADD), "int16"
                )
            return [b(a), b(dialect.add(shared, y, ADD, "int16"))]

        return module(FULL, body)

    assert_same_results(sums(False), assert_rewrites(FuseEpilogue(), sums(False), sums(True)))


def two_readers(b, x):
    codes = layer(b, x)
    return [b(dialect.shiftgelu(codes, GELU, "int8")), b(relax.op.reshape(codes, (B * N, C)))]


def also_an_output(b, x):
    codes = layer(b, x)
    return [b(dialect.shiftgelu(codes, GELU, "int8")), codes]


def twice(b, x):
    codes = layer(b, x)
    return b(dialect.add(codes, codes, ADD, "int16"))


def broadcast(b, x, y):
    return b(dialect.add(layer(b, x), y, ADD, "int16"))


def wide(b, x):
    return b(dialect.shiftgelu(layer(b, x, dtype="int32"), GELU, "int8"))


def alone(b, x):
    return b(dialect.shiftgelu(x, GELU, "int8"))


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (module(X, two_readers), "another reader"),
        (module(X, also_an_output), "another reader"),
        (module(X, twice), "another reader"),
        (module({**X, "y": ((N, C), "int16")}, broadcast), "the shape (5, 12)"),
        (module(X, wide), "codes are int32"),
        (
            module({"x": ((B, C), "int16")}, lambda b, x: b(dialect.shiftgelu(x, GELU, "int8"))),
            None,
        ),
    ],
)
def test_refusals(mod, reason):
    assert_declines(FuseEpilogue(), mod, reason)
