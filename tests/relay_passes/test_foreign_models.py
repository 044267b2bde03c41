"""A torch.onnx export, quantized by onnxruntime, through the whole pipeline.

Nothing in these files was written by this project: float pixels, unsigned activations with zero
points, quantizers around every layout operator, a normalized softmax.
"""

import logging
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn
from torch.nn import functional
from tvm.relax.frontend.onnx import from_onnx

from tests.foreign import session_of
from tests.relay_passes.modules import ops
from vitq.numerics.errors import VitqError
from vitq.relay_passes.dialect import names
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.pipeline import PassOptions, integerize

SHAPE, CHANNELS, HEADS = (1, 3, 8, 8), 16, 2
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


class Block(nn.Module):
    """One transformer block; `fused` uses torch's attention operator."""

    def __init__(self, fused):
        super().__init__()
        self.fused = fused
        self.norm1, self.norm2 = nn.LayerNorm(CHANNELS, eps=1e-4), nn.LayerNorm(CHANNELS)
        self.qkv, self.proj = nn.Linear(CHANNELS, 3 * CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.fc1, self.fc2 = nn.Linear(CHANNELS, 32), nn.Linear(32, CHANNELS)

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, HEADS, c // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = functional.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * (c // HEADS) ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(b, n, c))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class TinyViT(nn.Module):
    """Patches, class token, positions, one block, head."""

    def __init__(self, fused):
        super().__init__()
        self.patch = nn.Conv2d(3, CHANNELS, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, CHANNELS))
        self.pos = nn.Parameter(torch.randn(1, 5, CHANNELS))
        self.block, self.norm = Block(fused), nn.LayerNorm(CHANNELS)
        self.head = nn.Linear(CHANNELS, 10)

    def forward(self, image):
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        return self.head(self.norm(self.block(x))[:, 0])


class Calibration(CalibrationDataReader):
    """Normalized random pictures."""

    def __init__(self):
        self._pictures = iter([{"image": floats(pixels(seed))} for seed in range(8)])

    def get_next(self):
        return next(self._pictures, None)


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, SHAPE).astype(np.uint8)


def floats(codes):
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return (codes.astype(np.float32) / np.float32(255) - mean) / std


def quantized(folder, fused, opset, activations, **options):
    """Path of a QDQ file from torch.onnx.export and quantize_static."""
    torch.manual_seed(0)
    logging.getLogger().setLevel(logging.ERROR)
    source, prepared, result = (folder / f"{name}.onnx" for name in ("float", "prepared", "qdq"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            TinyViT(fused).eval(),
            (torch.zeros(SHAPE),),
            source,
            dynamo=True,
            opset_version=opset,
            input_names=["image"],
            external_data=False,
            verbose=False,
        )
        quant_pre_process(source, prepared)
        quantize_static(
            prepared,
            result,
            Calibration(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            **options,
        )
    return result


def imported(path):
    return from_onnx(onnx.load(path), shape_dict={"image": SHAPE})


@pytest.mark.parametrize(
    ("fused", "activations"), [(True, QuantType.QUInt8), (False, QuantType.QInt8)]
)
def test_a_fully_quantized_network_becomes_integer_only(tmp_path, fused, activations):
    path = quantized(tmp_path, fused, 20, activations)
    mod = imported(path)
    result = integerize(mod, PassOptions(mean=MEAN, std=STD))
    calls = ops(result.mod)
    assert calls[:2] == [names.LUT, names.PATCH_EMBED]
    layers = names.LINEAR, names.LINEAR_ADD, names.LINEAR_GELU
    assert sum(calls.count(layer) for layer in layers) == 5
    assert calls.count(names.SHIFTMAX) == 1
    (info,) = result.report.outputs
    session = session_of(path)
    for seed in range(20, 25):
        codes = interpret(result.mod, [pixels(seed)])[0]
        real = info.scale * (codes.astype(float) - info.zero_point)
        theirs = session.run(None, {"image": floats(pixels(seed))})[0]
        # 8-bit activations on the residual stream: a step that rounds the other way (a tie, the
        # cubic of Shiftmax) comes out as a few steps of the logits
        assert np.abs(real - theirs).max() <= 6 * info.scale
        assert np.abs(real - interpret(mod, [floats(pixels(seed))])[0]).max() <= 6 * info.scale


def test_float_operators_are_all_named(tmp_path):
    path = quantized(tmp_path, True, 20, QuantType.QInt8, op_types_to_quantize=["MatMul", "Conv"])
    with pytest.raises(VitqError) as error:
        integerize(imported(path), PassOptions(mean=MEAN, std=STD))
    for name in ("nn.layer_norm", "nn.gelu", "matmul"):
        assert f"relax.{name}" in str(error.value)


def test_a_gelu_in_pieces_says_what_to_do(tmp_path):
    path = quantized(tmp_path, True, 18, QuantType.QInt8)
    with pytest.raises(VitqError, match=r"relax.erf .*export with opset 20 or later"):
        integerize(imported(path), PassOptions(mean=MEAN, std=STD))
