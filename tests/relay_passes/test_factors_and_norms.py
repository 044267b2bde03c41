"""Attention as timm spells it, from PyTorch through the pipeline, against the integer reference."""

from collections.abc import Callable

import numpy as np
import pytest
from torch import nn
from tvm.relax.frontend.onnx import from_onnx

from tests.quantization.vits import SHAPE, pixels, quantize, toy, unfused, vit
from tests.relay_passes.modules import ops
from vitq.export.qdq import to_onnx
from vitq.quantization.graph.tracing import trace
from vitq.quantization.run.reference import IntegerReference
from vitq.relay_passes.dialect import names
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.pipeline import PassOptions, integerize

BLOCKS = 2
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    # q * scale before the product: one qkv layer still, and attention still fuses
    "scaled query": (unfused, {names.LINEAR: 4 * BLOCKS + 1, names.ATTENTION: BLOCKS}),
    # q and k in 16 bits, v in 8: one qkv layer, v is clamped
    "normalized query and key": (
        lambda: vit(qk_norm=True),
        {names.LINEAR: 4 * BLOCKS + 1, names.LAYERNORM: 4 * BLOCKS + 1},
    ),
    "factor before a linear layer": (
        lambda: toy(body=lambda self, x: x + self.fc(self.norm(x) * 0.3)),
        {names.LINEAR: 2},
    ),
    "factors behind a linear layer and a convolution": (
        lambda: toy(
            tokens=lambda self, x: (self.conv(x) * 0.7).flatten(2).transpose(1, 2),
            body=lambda self, x: x + self.fc(self.norm(x)) / 3,
        ),
        {names.LINEAR: 2},
    ),
}


@pytest.mark.parametrize("recipe", ["w8a8", "w4a6"])
@pytest.mark.parametrize("case", CASES)
def test_every_integer_is_the_references(case: str, recipe: str) -> None:
    build, expected = CASES[case]
    graph = quantize(trace(build(), SHAPE), recipe)
    pictures = pixels(3).numpy()
    mod = from_onnx(to_onnx(graph, {}), shape_dict={"pixels": list(pictures.shape)})
    want = IntegerReference(graph)(pictures)
    for fuse in (False, True):
        result = integerize(mod, PassOptions(fuse_attention=fuse, fuse_epilogue=fuse))
        np.testing.assert_array_equal(interpret(result.mod, [pictures])[0], want)
    fused = (names.LINEAR_ADD, names.LINEAR_GELU)
    calls = [names.LINEAR if name in fused else name for name in ops(result.mod)]
    assert {name: calls.count(name) for name in expected} == expected
