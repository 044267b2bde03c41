"""First layers that are no plain patch convolution: from PyTorch to integers."""

from pathlib import Path

import numpy as np
import pytest

from tests.quantization.test_rewrites import FRONTS
from tests.quantization.vits import SHAPE, float_logits, lowest_cosine, pixels, quantize, toy
from vitq.compiler.foreign.importer import to_relax
from vitq.compiler.foreign.preparing import prepare
from vitq.export.qdq import to_onnx
from vitq.quantization.graph.tracing import trace
from vitq.quantization.run.reference import IntegerReference
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.pipeline import PassOptions, integerize


@pytest.mark.parametrize("front", FRONTS)
def test_every_integer_is_the_references(front: str) -> None:
    model = toy(tokens=FRONTS[front])
    graph, x = quantize(trace(model, SHAPE)), pixels(3, 5)
    reference = IntegerReference(graph)
    wanted = reference(x.numpy())
    assert lowest_cosine(wanted * reference.output_scale, float_logits(model, x)) > 0.98
    for batch in (1, 2):
        mod, _ = to_relax(prepare(to_onnx(graph, {}), batch, Path("model")), Path("model"))
        integer = integerize(mod, PassOptions()).mod
        found = interpret(integer, [x.numpy()[:batch]])[0]
        np.testing.assert_array_equal(found, wanted[:batch])
