import numpy as np
import pytest
from tvm import relax

from tests.relay_passes.modules import assert_declines, module, ops, random_inputs
from vitq.relay_passes.expressions import MAIN, bindings_of, constant
from vitq.relay_passes.fold_layernorm_scales import FoldLayernormScales
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.reading.matching import read_quantize

C, N = 8, 6
RNG = np.random.default_rng(2)
SCALE = RNG.uniform(0.01, 0.05, C).astype(np.float32)
ZERO = RNG.integers(-20, 20, C)
GAMMA, BETA = RNG.normal(1, 0.3, C).astype(np.float32), RNG.normal(0, 0.3, C).astype(np.float32)
WEIGHT, BIAS = (RNG.normal(size=shape).astype(np.float32) for shape in ((C, N), (N,)))
INPUT = {"x": ((2, 5, C), "float32")}


def network(scale=SCALE, zero_point=ZERO, quantized=False, other_reader=False, codes_only=False):
    def body(b, x):
        y = relax.op.nn.layer_norm(x, constant(GAMMA), constant(BETA), axes=[-1], epsilon=2e-3)
        codes = b.q(b(y), scale, zero_point, axis=2)
        if codes_only:
            return codes
        y = b.dq(codes, scale, zero_point, axis=2)
        weight = b.dq(np.ones((C, N), np.int8), 0.1) if quantized else constant(WEIGHT)
        z = b(relax.op.add(b(relax.op.matmul(y, weight)), constant(BIAS)))
        return [z, b(relax.op.exp(y))] if other_reader else z

    return module(INPUT, body)


def test_one_scale_and_int8_weights_remain():
    after = FoldLayernormScales()(network())
    assert ops(after) == [
        "layer_norm",
        "quantize",
        "dequantize",
        "dequantize",
        "matmul",
        "add",
        "add",
    ]
    quantizer = next(q for b in bindings_of(after[MAIN]) if (q := read_quantize(b.value)))
    assert quantizer.is_per_tensor
    assert quantizer.qparams.scale == np.float32(SCALE.astype(np.float64).mean())
    assert quantizer.qparams.zero_point == np.rint(ZERO.mean())
    assert quantizer.dtype == "int8"


def test_the_codes_do_not_change():
    x = random_inputs(network())
    before = interpret(network(codes_only=True), x)[0]
    after = FoldLayernormScales()(network())
    found = next(b for b in bindings_of(after[MAIN]) if read_quantize(b.value))
    only_codes = module(INPUT, lambda b, x: _rebuild(b, x, after))
    assert found is not None
    np.testing.assert_array_equal(interpret(only_codes, x)[0], before)


def _rebuild(b, x, mod):
    """The layer normalization and quantizer of `mod` alone."""
    norm, quantize = (binding.value for binding in bindings_of(mod[MAIN])[:2])
    y = b(relax.Call(norm.op, [x, *norm.args[1:]], norm.attrs, norm.ty_args))
    return b(relax.Call(quantize.op, [y, *quantize.args[1:]], quantize.attrs, quantize.ty_args))


def test_the_product_changes_by_weight_rounding_only():
    x = random_inputs(network())
    before, after = (interpret(mod, x)[0] for mod in (network(), FoldLayernormScales()(network())))
    # each of C weights is off by at most half a step; values reach about 4
    step = np.abs(WEIGHT * (SCALE / SCALE.mean())[:, None]).max() / 127
    np.testing.assert_allclose(after, before, rtol=0, atol=C * 4 * step)


@pytest.mark.parametrize(
    ("mod", "reason"),
    [
        (network(quantized=True), "already quantized"),
        (network(other_reader=True), "relax.exp reads the activation"),
    ],
)
def test_refusals(mod, reason):
    assert_declines(FoldLayernormScales(), mod, reason)


def test_one_scale_stays():
    assert_declines(FoldLayernormScales(), network(np.float32(0.02), 3))
