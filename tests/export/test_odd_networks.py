"""Networks with dead, tiny or huge layers: exact integers, or refused at quantize by name."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from tvm.relax.frontend.onnx import from_onnx

from tests.quantization.vits import SHAPE, Toy, pixels, quantize, toy, vit
from vitq.export.qdq import to_onnx
from vitq.numerics.errors import RangeError, VitqError
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.run.reference import IntegerReference
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.pipeline import integerize


def changed(edit: Callable[[torch.Tensor], object], *names: str, **options: float) -> nn.Module:
    """A tiny ViT; `edit` goes over each parameter whose name has one of `names` in it."""
    model = vit(depth=1, **options)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if any(part in name for part in names):
                edit(value)
    return model


def zero(*names: str) -> nn.Module:
    """Layers without weights and biases."""
    return changed(torch.Tensor.zero_, *names)


def scaled(factor: float, *names: str) -> nn.Module:
    """Layers of another size."""
    return changed(lambda value: value.mul_(factor), *names)


LAYERS = ("fc", "qkv", "proj", "head")
ODD: dict[str, Callable[[], nn.Module]] = {
    "layer scale of 1e-5": lambda: changed(lambda v: v.fill_(1e-5), "gamma", init_values=0.1),
    "layer scale of 0": lambda: changed(torch.Tensor.zero_, "gamma", init_values=0.1),
    "zero fc1": lambda: zero("fc1"),
    "zero qkv": lambda: zero("qkv"),
    "a constant qkv": lambda: zero("qkv.weight"),
    "zero patches": lambda: zero("patch_embed"),
    "zero norms": lambda: zero("norm1", "norm2"),
    "zero everything": lambda: zero(""),
    "tiny blocks": lambda: scaled(1e-3, "blocks"),
    "tiny layers": lambda: scaled(1e-6, *LAYERS),
    "large biases": lambda: changed(lambda v: v.fill_(1e6), "fc2.bias"),
    "negative GELU": lambda: changed(lambda v: v.fill_(-1e3), "fc1.bias"),
    "almost negative GELU": lambda: changed(lambda v: v.fill_(-12), "fc1.bias"),
    "large GELU": lambda: changed(lambda v: v.fill_(200), "fc1.bias"),
}


@pytest.mark.parametrize("name", ODD)
def test_reference_and_integer_module_agree(name: str) -> None:
    methods = ("repq", "minmax", "best", "ptq4vit")
    graph = quantize(trace(ODD[name](), SHAPE), method=methods[len(name) % len(methods)])
    x = pixels(2, seed=9).numpy()
    module = integerize(from_onnx(to_onnx(graph, {}), shape_dict={"pixels": [2, *SHAPE]})).mod
    np.testing.assert_array_equal(interpret(module, [x])[0], IntegerReference(graph)(x))


@pytest.mark.parametrize("method", ["repq", "minmax"])
def test_a_network_of_zeros_gives_zeros(method: str) -> None:
    graph = quantize(trace(zero(""), SHAPE), method=method)
    assert not IntegerReference(graph)(pixels(2).numpy()).any()


def test_an_input_beyond_gelu_s_codes_is_refused_by_its_name() -> None:
    model = changed(lambda v: v.fill_(1e3), "fc1.bias")
    with pytest.raises(VitqError, match=r"blocks\.0\.mlp\.fc1: its outputs reach 100\d and GELU"):
        quantize(trace(model, SHAPE))


def test_an_integer_out_of_range_is_reported_by_its_name() -> None:
    graph = quantize(trace(changed(lambda v: v.fill_(1e6), "qkv.bias"), SHAPE))
    with pytest.raises(RangeError, match=r"^blocks\.0\.attn: exp: a requantization factor of"):
        IntegerReference(graph)(pixels(1).numpy())


ENDINGS: dict[str, Callable[[Toy, torch.Tensor], torch.Tensor]] = {
    "softmax": lambda self, x: self.last(self.norm(x)[:, 0]).softmax(-1),
    "flattened": lambda self, x: self.last(self.norm(x)[:, :1]).softmax(-1).flatten(1),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("method", "nonlinear"), [("repq", "vitq"), ("minmax", "ivit")])
def test_a_softmax_at_the_end_is_refused(ending: str, method: str, nonlinear: str) -> None:
    graph = trace(toy(head=ENDINGS[ending]), SHAPE)
    with pytest.raises(VitqError, match="ends in a softmax: let it return the logits"):
        quantize(graph, Recipe.parse("w8a8", nonlinear), method)


def test_a_softmax_that_nothing_multiplies_stays_a_softmax() -> None:
    graph = quantize(trace(toy(head=lambda s, x: s.last(s.norm(x).softmax(-1)[:, 0])), SHAPE))
    assert [n.op for n in graph if n.op in ("softmax", "exp")] == ["softmax"]
