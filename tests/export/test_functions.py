"""Functions, products and normalizations: the float graph, the reference and the passes agree."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses
from tvm.relax.frontend.onnx import from_onnx

from tests.quantization.test_rotary import SPELLED
from tests.quantization.vits import (
    SHAPE,
    Toy,
    lowest_cosine,
    pixels,
    quantize,
    toy,
)
from tests.relay_passes.modules import ops
from vitq.export.parity import onnx_runner
from vitq.export.qdq import save_onnx, to_onnx
from vitq.numerics.pointwise import CLAMPS, TABLES
from vitq.quantization.graph.clamps import clamp_attrs
from vitq.quantization.graph.functions import STEEP
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.graph.spellings import normalizing
from vitq.quantization.graph.tracing import trace
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference
from vitq.relay_passes.dialect import names
from vitq.relay_passes.interpreter.interpreter import interpret
from vitq.relay_passes.pipeline import integerize

PARAMETERS = {"elu": 0.7, "leaky_relu": 0.2}


def with_node(op: OpKind, where: str = "gelu", **attrs: object) -> Graph:
    """A network with a GELU that is another operator."""
    graph = trace(toy(body=lambda self, x: x + self.fc(F.gelu(self.fc(self.norm(x))))), SHAPE)
    node = next(node for node in graph if node.op == where)
    node.op, node.attrs = op, dict(attrs)
    return graph


def agree(graph: Graph, recipe: str = "w8a8", method: str = "repq") -> list[str]:
    """Quantize, compare all executions, onnxruntime's too; returns the integer operators."""
    x = pixels(4, seed=9)
    quantize(graph, recipe, method)
    model = to_onnx(graph, {})
    module = integerize(from_onnx(model, shape_dict={"pixels": [4, *SHAPE]})).mod
    codes = IntegerReference(graph)(x.numpy())
    np.testing.assert_array_equal(interpret(module, [x.numpy()])[0], codes)
    simulated = GraphModule(graph, simulate=True)(x).numpy()
    assert lowest_cosine(simulated, codes) > 0.98
    with TemporaryDirectory() as folder:
        save_onnx(model, Path(folder) / "network.onnx")
        exported = onnx_runner(Path(folder) / "network.onnx")(x.numpy())
    assert lowest_cosine(simulated, exported) > 0.995
    return ops(module)


@pytest.mark.parametrize("function", sorted({*TABLES, *CLAMPS} - set(STEEP)))
def test_functions(function: str) -> None:
    attrs: dict[str, object] = {"function": function}
    if function in PARAMETERS:
        attrs["parameter"] = PARAMETERS[function]
    found = agree(with_node(OpKind.POINTWISE, **attrs))
    assert (names.LUT in found) == (function in TABLES)


def test_a_quotient_is_a_product_with_a_table() -> None:
    found = agree(
        trace(toy(body=lambda self, x: x + self.fc(x) / (self.fc(x).relu() + 0.3)), SHAPE)
    )
    assert names.LUT in found and names.MULTIPLY in found


@pytest.mark.parametrize("groups", [1, 4])
def test_norms_in_parts(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """GroupNorm of more elements than a LayerNorm's row may have."""
    monkeypatch.setattr(normalizing, "MAX_CHANNELS", 8)
    body = nn.Sequential(nn.GroupNorm(groups, 16), nn.GELU())
    nn.init.uniform_(body[0].weight, 0.5, 2)  # type: ignore[arg-type]
    nn.init.uniform_(body[0].bias, -1, 1)  # type: ignore[arg-type]
    graph = trace(toy(body=lambda self, x: x + self.fc(body(self.fc(x).mT).mT)), SHAPE)
    found = agree(graph)
    assert names.LUT in found and found.count(names.MEAN) > 3


@pytest.mark.parametrize("ends", [(0, None), (-1, 1), (None, 0.5), (-0.3, None)])
def test_a_clamp_of_a_layer_is_its_bounds(ends: tuple[float | None, float | None]) -> None:
    """No operator is left of a ReLU, or any other clamp, behind a linear layer."""
    found = agree(with_node(OpKind.POINTWISE, **clamp_attrs(*ends)))
    assert names.LUT not in found and names.REQUANTIZE not in found


def test_a_clamp_of_codes_is_a_requantization() -> None:
    """Two clamps of one tensor, with a slope for each channel behind one: a PReLU."""

    def body(self: Toy, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc(F.prelu(self.fc(self.norm(x)).mT, torch.linspace(-0.5, 1, 16)).mT)

    found = agree(trace(toy(body=body), SHAPE))
    assert names.LUT not in found and names.MULTIPLY in found


GATE: dict[str, Callable[[Toy, torch.Tensor], torch.Tensor]] = {
    "two activations": lambda self, x: x + self.fc(self.fc(self.norm(x)) + F.gelu(self.fc(x))),
    "a table": lambda self, x: x + self.fc(self.fc(self.norm(x)) + self.fc.weight),
    "a table for each head": lambda self, x: (
        x + (self.fc(self.norm(x)).reshape(-1, 16, 4, 4) + self.fc.weight[:, :1, None]).flatten(2)
    ),
}


@pytest.mark.parametrize("name", GATE)
def test_products(name: str) -> None:
    """A sum that is a product: of two activations, with constants of both signs, broadcast."""
    graph = trace(toy(body=GATE[name]), SHAPE)
    node = next(node for node in graph if node.op is OpKind.ADD)
    node.op = OpKind.MULTIPLY
    assert names.MULTIPLY in agree(graph)


@pytest.mark.parametrize("eps", [1e-6, 0.3])
def test_rms_norm(eps: float) -> None:
    graph = trace(toy(), SHAPE)
    for node in graph:
        if node.op is OpKind.LAYER_NORM:
            node.op = OpKind.RMS_NORM
            node.attrs["eps"] = eps
            del node.params["beta"]
    assert agree(graph).count(names.RMSNORM) == 2


@pytest.mark.parametrize("name", SPELLED)
def test_rotations_have_one_rounding(name: str) -> None:
    """Two products and their sum are one operator."""

    def head(self: Toy, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(x).mean(1))

    found = agree(trace(toy(body=SPELLED[name], head=head), SHAPE))
    assert found.count(names.MULTIPLY_ADD) == 1
    assert names.MULTIPLY not in found and names.ADD not in found


def swiglu(self: Toy, x: torch.Tensor) -> torch.Tensor:
    """Two gates of one layer's halves."""
    g, u = self.fc(self.norm(x)).chunk(2, -1)
    return x + self.fc(torch.cat([F.silu(g) * u, F.silu(u) * g], -1))


@pytest.mark.parametrize(("recipe", "method"), [("w4a8", "best"), ("w6a6", "ptq4vit")])
def test_gates_at_other_widths(recipe: str, method: str) -> None:
    found = agree(trace(toy(body=swiglu), SHAPE), recipe, method)
    assert names.LUT in found and names.MULTIPLY in found
