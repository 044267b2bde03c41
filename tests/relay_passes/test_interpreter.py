from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tvm import relax

from tests.relay_passes.modules import module
from vitq.numerics.errors import VitqError
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import constant
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.reading.relax_numpy import FLOAT


def test_a_table_for_each_channel():
    table = np.stack([np.arange(256), np.arange(255, -1, -1)]).astype(np.uint8)
    mod = module({"x": ((1, 2, 2, 2), "uint8")}, lambda b, x: b(dialect.lut(x, table)))
    x = np.arange(8, dtype=np.uint8).reshape(1, 2, 2, 2)
    want = np.array([0, 1, 2, 3, 251, 250, 249, 248], np.uint8).reshape(x.shape)
    np.testing.assert_array_equal(interpret(mod, [x])[0], want)


def test_slices_with_strides():
    mod = module(
        {"x": ((3, 8), "int8")},
        lambda b, x: b(relax.op.strided_slice(x, [1], [1], [8], [3])),
    )
    x = np.arange(24, dtype=np.int8).reshape(3, 8)
    np.testing.assert_array_equal(interpret(mod, [x])[0], x[:, 1:8:3])


def test_quantize_rounds_half_to_even_and_saturates():
    mod = module({"x": ((5,), "float32")}, lambda b, x: b.q(x, 0.5, 1))
    x = np.array([0.25, 0.75, -0.25, 1000, -1000], np.float32)
    np.testing.assert_array_equal(interpret(mod, [x])[0], np.array([1, 3, 1, 127, -128], np.int8))


def test_a_wrong_input_is_an_error():
    mod = module({"x": ((5,), "int8")}, lambda b, x: b(relax.op.reshape(x, (1, 5))))
    with pytest.raises(VitqError, match=r"x must be int8 of shape \(5,\)"):
        interpret(mod, [np.zeros(5, np.uint8)])


def test_an_unknown_operator_is_an_error():
    mod = module(
        {"x": ((5,), "int8")}, lambda b, x: b(relax.op.left_shift(x, constant(np.int8(1))))
    )
    with pytest.raises(VitqError, match=r"does not know relax.left_shift"):
        interpret(mod, [np.zeros(5, np.int8)])


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolution_is_torchs(groups):
    rng = np.random.default_rng(groups)
    x, weight = rng.normal(size=(2, 4, 7, 9)), rng.normal(size=(8, 4 // groups, 3, 2))
    attrs = {"strides": [2, 1], "padding": [1, 0, 1, 0], "dilation": [1, 3], "groups": groups}
    found = FLOAT["relax.nn.conv2d"](SimpleNamespace(attrs=SimpleNamespace(**attrs)), [x, weight])
    tensors = (torch.from_numpy(value) for value in (x, weight))
    expected = torch.nn.functional.conv2d(*tensors, None, (2, 1), (1, 0), (1, 3), groups)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-12)
