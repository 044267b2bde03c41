"""First layers that are no plain patch convolution, and maxima: from PyTorch to integers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.quantization.test_rewrites import FRONTS
from tests.quantization.vits import SHAPE, float_logits, lowest_cosine, pixels, quantize, toy
from vitq.compiler.foreign.importer import to_relax
from vitq.compiler.foreign.preparing import prepare
from vitq.export.qdq import to_onnx
from vitq.quantization.graph.tracing import trace
from vitq.quantization.run.reference import IntegerReference
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.pipeline import PassOptions, integerize


def assert_integers_are_the_references(model: nn.Module) -> None:
    """Of the passes' module, executed in NumPy, at batch 1 and 2."""
    graph, x = quantize(trace(model, SHAPE)), pixels(8, seed=1)[:3]
    reference = IntegerReference(graph)
    wanted = reference(x.numpy())
    assert lowest_cosine(wanted * reference.output_scale, float_logits(model, x)) > 0.98
    for batch in (1, 2):
        mod, _ = to_relax(prepare(to_onnx(graph, {}), batch, Path("model")), Path("model"))
        integer = integerize(mod, PassOptions()).mod
        found = interpret(integer, [x.numpy()[:batch]])[0]
        np.testing.assert_array_equal(found, wanted[:batch])


@pytest.mark.parametrize("front", FRONTS)
def test_fronts(front: str) -> None:
    assert_integers_are_the_references(toy(tokens=FRONTS[front]))


MAXIMA = {
    "of_sums": lambda self, x: self.last((x + self.fc(x)).amax(1)),
    "of_accumulators": lambda self, x: self.last(self.fc(x).view(-1, 2, 8, 16).amax(1).mean(1)),
    "of_five": lambda self, x: self.last(self.fc(x)[:, :15].unflatten(1, (3, 5)).amax(2).mean(1)),
}


@pytest.mark.parametrize("form", MAXIMA)
def test_maxima(form: str) -> None:
    assert_integers_are_the_references(toy(head=MAXIMA[form]))


EXPANDED = {
    "outer_sum": lambda self, x: self.last(
        (x[:, :2, None] + self.fc(x)[:, None, :3]).flatten(1, 2).mean(1)
    ),
    "outer_product": lambda self, x: self.last(
        (self.norm(x)[:, :2, None] * self.fc(x)[:, None, :3]).flatten(1, 2).mean(1)
    ),
    "stacked_constants": lambda self, x: self.last(
        torch.stack([x, self.fc.weight.expand(x.shape[0], 16, 16)], 1).flatten(1, 2).mean(1)
    ),
    "second_axis": lambda self, x: self.last(
        torch.cat([x.transpose(0, 1), self.fc.weight[:3, None].expand(3, x.shape[0], 16)]).mean(0)
    ),
}


@pytest.mark.parametrize("form", EXPANDED)
def test_what_is_repeated(form: str) -> None:
    assert_integers_are_the_references(toy(head=EXPANDED[form]))
