"""Models read through torch.export: same function, or a refusal that names everything."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.quantization.vits import SHAPE, VARIANTS, Toy, toy, traced, vit
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.graph.tracing import trace
from vitq.quantization.run.fake_quantize import GraphModule


def assert_same_function(model: nn.Module, tolerance: float = 1e-4) -> Graph:
    """The traced graph computes what the model does, at batch 1 and 5; it is returned."""
    graph = trace(model, SHAPE)
    module = GraphModule(graph)
    for batch in (1, 5):
        x = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(batch))
        with torch.inference_mode():
            expected = model(x).numpy()
        np.testing.assert_allclose(module(x).numpy(), expected, rtol=0, atol=tolerance)
        assert np.ptp(expected) > 100 * tolerance
    return graph


def test_embedded_model(digits_model: nn.Module) -> None:
    assert_same_function(digits_model)


@pytest.mark.parametrize("variant", VARIANTS)
def test_vits(variant: str) -> None:
    model, module = VARIANTS[variant](), GraphModule(traced(variant))
    for batch in (1, 5):
        x = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(batch))
        with torch.inference_mode():
            expected = model(x).numpy()
        np.testing.assert_allclose(module(x).numpy(), expected, rtol=0, atol=1e-4)
        assert np.ptp(expected) > 0.1


def test_other_layer_norm_eps_is_carried() -> None:
    norms = [node for node in traced("eps") if node.op is OpKind.LAYER_NORM]
    assert norms and all(node.attrs["eps"] == 1e-2 for node in norms)
    assert {n.attrs["eps"] for n in traced("class_token") if "eps" in n.attrs} == {1e-6}


def test_gelu_form_is_carried() -> None:
    forms = {
        variant: {n.attrs["approximate"] for n in traced(variant) if n.op is OpKind.GELU}
        for variant in ("tanh_gelu", "class_token")
    }
    assert forms == {"tanh_gelu": {"tanh"}, "class_token": {"none"}}


def test_shapes_are_those_of_batch_1() -> None:
    graph = traced("class_token")
    shapes: dict[str, tuple[int, ...]] = {}
    module = GraphModule(graph, observer=lambda node, x: shapes.update({node.name: tuple(x.shape)}))
    for batch in (1, 3):
        module(torch.zeros(batch, *SHAPE))
        assert shapes == {node.name: node.shape_at(batch) for node in graph}


def test_absent_bias_is_zero() -> None:
    graph = traced("qkv_without_bias")
    biases = [graph.real(n, "bias") for n in graph if n.op is OpKind.LINEAR]
    assert sum(not np.any(bias) for bias in biases) == 2


SAME_FUNCTION = {
    "chunk": lambda self, x: self.last(torch.cat(self.norm(x).chunk(2, -1)[::-1], -1)[:, 0]),
    "split": lambda self, x: self.last(torch.cat(self.norm(x).split([4, 12], 2)[::-1], 2)[:, 0]),
    "slice": lambda self, x: self.last(self.norm(x)[:, -3:-1][:, 1]),
    "whole_slice": lambda self, x: self.last(self.norm(x)[:, :100][:, 2]),
    "negative_index": lambda self, x: self.last(self.norm(x)[:, -1]),
    "mean": lambda self, x: self.last(self.norm(x).mean(dim=-2)),
    "division": lambda self, x: self.last(self.norm(x)[:, 0] / 8),
    "scaled_attention": lambda self, x: self.last(
        functional.scaled_dot_product_attention(x, self.norm(x), x, scale=0.3)[:, 0]
    ),
    "dropout_that_is_off": lambda self, x: self.last(functional.dropout(x[:, 0], 0.5, False)),
    "unbind": lambda self, x: self.last(x.unbind(1)[3]),
    "constant_first": lambda self, x: self.last(self.fc.weight[0] + x[:, 0]),
}


@pytest.mark.parametrize("form", SAME_FUNCTION)
def test_forms(form: str) -> None:
    assert_same_function(toy(head=SAME_FUNCTION[form]))


def test_linear_layers_may_share_a_weight() -> None:
    assert_same_function(toy(body=lambda self, x: x + self.fc(self.fc(self.norm(x)))))


REFUSED = {
    "div that rounds": lambda self, x: self.last(torch.div(x, x, rounding_mode="trunc")[:, 0]),
    "dropout that is on": lambda self, x: self.last(functional.dropout(x, 0.5, True)[:, 0]),
    "to torch.int": lambda self, x: self.last(x.to(torch.int32).float()[:, 0]),
    "a weight computed at run time": lambda self, x: functional.linear(
        x[:, 0], self.last.weight * x.mean()
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(message: str) -> None:
    with pytest.raises(VitqError, match="not supported") as raised:
        trace(toy(head=REFUSED[message]), SHAPE)
    assert message in str(raised.value)


FIXED = {
    "a weight made of weights": lambda self, x: functional.linear(
        x[:, 0], self.last.weight * self.fc.bias.sigmoid()
    ),
    "a mask that hides nothing": lambda self, x: self.last(
        functional.scaled_dot_product_attention(
            x, x, x, torch.arange(x.shape[1]).view(1, -1, 1).expand(x.shape[0], -1, x.shape[1]) >= 0
        )[:, 0]
    ),
    "a mask of zeros": lambda self, x: self.last(
        functional.scaled_dot_product_attention(
            x, x, x, (1 - torch.ones(x.shape[0], x.shape[1], x.shape[1])) * -1e4
        )[:, 0]
    ),
    "zeros added": lambda self, x: self.last((x + (1 - torch.ones(x.shape[1], 1)) * -1e4)[:, 0]),
    "nothing filled": lambda self, x: self.last(
        x.masked_fill(torch.zeros(x.shape[1], 1, dtype=torch.bool), -1.0)[:, 0]
    ),
    "one side of where": lambda self, x: self.last(
        torch.where(torch.arange(x.shape[1])[:, None] < 1000, x, x * 2)[:, 0]
    ),
    "a mask that is written in place": lambda self, x: self.last(
        functional.scaled_dot_product_attention(
            x, x, x, torch.zeros(x.shape[1], x.shape[1], dtype=torch.bool).fill_(True)
        )[:, 0]
    ),
}


@pytest.mark.parametrize("case", FIXED)
def test_what_no_picture_decides_is_computed(case: str) -> None:
    assert_same_function(toy(head=FIXED[case]))


HIDING = {
    "masked_fill that hides": lambda self, x: self.last(
        x.masked_fill(torch.arange(x.shape[1])[:, None] > 2, -1.0)[:, 0]
    ),
    "where": lambda self, x: self.last(torch.where(torch.arange(16) > 2, x, x * 2)[:, 0]),
    "rand": lambda self, x: self.last((x + torch.rand(x.shape[1], 1))[:, 0]),
    "mean over all axes, the pictures' too": lambda self, x: self.last(x[:, 0]) + x.mean(),
}


@pytest.mark.parametrize("message", HIDING)
def test_masks_that_hide_something_and_chance_are_refused(message: str) -> None:
    with pytest.raises(VitqError, match="not supported") as raised:
        trace(toy(head=HIDING[message]), SHAPE)
    assert message in str(raised.value)


def test_everything_unsupported_is_in_one_error() -> None:
    def head(self: Toy, x: torch.Tensor) -> torch.Tensor:
        x = torch.sin(self.norm(x)).cumsum(1).erf().erf()
        return self.last(x[:, :2].flip(0)[:, 0])

    with pytest.raises(VitqError) as raised:
        trace(toy(head=head), SHAPE)
    message = str(raised.value)
    for part in (
        "sin (x1)",
        "cumsum (x1)",
        "erf outside of GELU (x2)",
        "an operator along the pictures of a batch (x1)",
    ):
        assert part in message
    assert "\n" not in message


CONVOLUTIONS = [
    {"kernel_size": 8, "stride": 8, "padding": 4},
    {"kernel_size": 8, "stride": 4},
    {"kernel_size": 2},
    {"kernel_size": (8, 4), "stride": (8, 4)},
    {"kernel_size": 7, "stride": 7},
    {"kernel_size": 3, "stride": 5, "dilation": 2, "bias": False},
    {"kernel_size": 4, "padding": "same"},
    {"kernel_size": 1},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_convolutions_that_are_no_patches(options: dict[str, Any]) -> None:
    model = toy()
    model.conv = nn.Conv2d(3, 16, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same_function(model)


def test_grouped_transposed_convolutions_are_refused_with_their_place() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(3, 6, 2, 2, groups=3), nn.Flatten())
    message = r"conv_transpose2d of 3 groups \(x1, in 0\); a transposed convolution needs groups"
    with pytest.raises(VitqError, match=message):
        trace(model.eval(), SHAPE)


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_convolutions(groups: int) -> None:
    model = toy()
    model.conv = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 16, 1, groups=groups))
    assert_same_function(model)


def test_convolution_without_bias() -> None:
    model = toy()
    model.conv = nn.Conv2d(3, 16, 8, 8, bias=False)
    assert_same_function(model)


def test_convolution_with_a_computed_weight_is_refused() -> None:
    def tokens(self: Toy, x: torch.Tensor) -> torch.Tensor:
        weight = self.conv.weight * x.mean()
        return functional.conv2d(x, weight, self.conv.bias, 8).flatten(2).transpose(1, 2)

    with pytest.raises(VitqError, match="a weight computed at run time"):
        trace(toy(tokens=tokens), SHAPE)


def test_two_inputs_are_refused() -> None:
    class Two(Toy):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(x + y)

    with pytest.raises(VitqError, match="cannot be exported"):
        trace(Two(), SHAPE)


def test_control_flow_on_values_is_refused_in_one_line() -> None:
    def head(self: Toy, x: torch.Tensor) -> torch.Tensor:
        return self.last(x[:, 0]) if float(x.detach().sum()) > 0 else self.last(x[:, 1])

    with pytest.raises(VitqError, match="cannot be exported") as raised:
        trace(toy(head=head), SHAPE)
    assert "\n" not in str(raised.value)


def test_wrong_picture_size_is_refused() -> None:
    with pytest.raises(VitqError, match="pictures of 40 x 40, and it takes 32 x 32: give --i"):
        trace(vit(), (3, 40, 40))
