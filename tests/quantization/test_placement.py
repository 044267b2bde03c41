"""Where quantizers are put, which share parameters, and where a second width is inserted."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.quantization.vits import (
    MEAN,
    SHAPE,
    STD,
    VARIANTS,
    Toy,
    float_logits,
    lowest_cosine,
    pixels,
    quantize,
    toy,
    traced,
)
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.graph.normalization import fold_normalization
from vitq.quantization.graph.rewrites import (
    defer_softmax_normalization,
    fold_channel_scales,
    select_tokens_early,
)
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.placement import Placement, Role, place_quantizers
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.plan.widths import last_layers
from vitq.quantization.run.reference import IntegerReference

PRODUCTS = {OpKind.LINEAR, OpKind.CONV2D, OpKind.MATMUL, OpKind.NORMALIZED_MATMUL}


def prepared(graph: Graph) -> Graph:
    """All rewrites."""
    fold_normalization(graph, MEAN, STD)
    fold_channel_scales(graph)
    select_tokens_early(graph)
    defer_softmax_normalization(graph)
    return graph


def place(graph: Graph, recipe: str = "w8a8") -> Placement:
    """All rewrites, then quantizers."""
    return place_quantizers(prepared(graph), Recipe.parse(recipe))


def quantizer(graph: Graph, placement: Placement, name: str) -> Node:
    """The node whose quantizer gives a value its codes."""
    node = graph.nodes[name]
    while node.name not in placement.roles:
        assert node.op in LAYOUT_OPS or node.op is OpKind.SCALE, node.name
        node = graph.operand(node)
    return node


@pytest.mark.parametrize("recipe", ["w8a8", "w4a4"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_operand_is_quantized_at_the_reader_s_width(variant: str, recipe: str) -> None:
    graph = traced(variant)
    placement, widths = place(graph, recipe), Recipe.parse(recipe)
    last = last_layers(graph)
    for node in graph:
        for name in node.inputs:
            if node.op is OpKind.EXP:
                continue  # reads accumulators
            if node.op in PRODUCTS:
                source = quantizer(graph, placement, name)
                wide = source.op in (OpKind.EXP, OpKind.INPUT) or node.name in last
                allowed = 8 if wide else widths.activation_bits
                assert placement.bits[source.name] == allowed, (node.name, source.name)
            elif node.op in (OpKind.ADD, OpKind.CONCAT, OpKind.MEAN, OpKind.GELU):
                source = quantizer(graph, placement, name)
                assert placement.bits[source.name] == 16, (node.name, source.name)
    assert placement.bits[quantizer(graph, placement, graph.output).name] == 16


def test_scores_stay_accumulators() -> None:
    graph = traced("class_token")
    placement = place(graph)
    for node in graph:
        if node.op is OpKind.EXP:
            source = graph.operand(node)
            while source.op is not OpKind.MATMUL:
                assert source.name not in placement.roles
                source = graph.operand(source)
            assert source.name not in placement.roles


def test_ivit_reads_scores_and_gelu_at_activation_width() -> None:
    graph = traced("class_token")
    fold_normalization(graph, MEAN, STD)
    placement = place_quantizers(graph, Recipe.parse("w8a8", "ivit"))
    for node in graph:
        if node.op in (OpKind.SOFTMAX, OpKind.GELU):
            assert placement.bits[quantizer(graph, placement, node.inputs[0]).name] == 8
        if node.op is OpKind.SOFTMAX:
            assert placement.roles[node.name] is Role.PROBABILITY


def test_query_key_and_value_have_quantizers_of_their_own() -> None:
    graph = traced("class_token")
    placement = place(graph)
    for node in graph:
        if node.op is OpKind.LINEAR and node.shape[-1] == 72:
            assert node.name not in placement.roles
    selects = [n for n in graph if n.op is OpKind.SELECT and len(n.shape) == 4]
    spots = set()
    for node in graph:
        if node.op is OpKind.MATMUL:
            spots |= {quantizer(graph, placement, name).name for name in node.inputs}
        if node.op is OpKind.NORMALIZED_MATMUL:
            spots.add(quantizer(graph, placement, node.inputs[1]).name)
    assert len(selects) == len(spots) == 6
    assert all(placement.roles[spot] is Role.ACTIVATION for spot in spots)


def test_roles_of_the_operators() -> None:
    graph = traced("class_token")
    placement = place(graph)
    expected = {
        OpKind.INPUT: Role.PIXELS,
        OpKind.LAYER_NORM: Role.POST_NORM,
        OpKind.EXP: Role.EXPONENTIAL,
        OpKind.ADD: Role.RESIDUAL,
        OpKind.CONCAT: Role.RESIDUAL,
        OpKind.CONSTANT: Role.RESIDUAL,
        OpKind.GELU: Role.ACTIVATION,
        OpKind.NORMALIZED_MATMUL: Role.ACTIVATION,
    }
    for node in graph:
        if node.op in expected:
            assert placement.roles[node.name] is expected[node.op], node.name
        if node.op in LAYOUT_OPS and node.name in placement.roles:
            assert node.op in (OpKind.SELECT, OpKind.RESHAPE, OpKind.PERMUTE)


def test_branches_take_over_the_parameters_of_their_sum() -> None:
    graph = traced("class_token")
    placement = place(graph)
    for node in graph:
        if node.op is OpKind.ADD and graph.operand(node, 1).op is OpKind.LINEAR:
            assert placement.ties[node.inputs[1]] == node.name
        if node.op is OpKind.CONCAT:
            sources = [quantizer(graph, placement, name).name for name in node.inputs]
            assert [placement.ties[name] for name in sources] == [node.name] * 2
    norms_and_sums = {OpKind.ADD, OpKind.LAYER_NORM}
    assert not any(graph.nodes[name].op in norms_and_sums for name in placement.ties)


def test_an_accumulator_with_two_readers_is_not_tied() -> None:
    model = toy(body=lambda self, x: (lambda y: x + y + self.norm(y))(self.fc(self.norm(x))))
    graph = trace(model, SHAPE)
    placement = place(graph)
    shared = [n.name for n in graph if n.op is OpKind.LINEAR and len(graph.consumers(n.name)) == 2]
    assert shared and not set(shared) & set(placement.ties)


def test_a_residual_that_goes_straight_into_a_linear_is_requantized() -> None:
    graph = trace(toy(head=lambda self, x: self.last((x + self.fc(x))[:, 0])), SHAPE)
    placement = place(graph)
    inserted = [node for node in graph if node.op is OpKind.REQUANTIZE]
    assert [placement.bits[node.name] for node in inserted] == [8]
    assert [reader.op for reader in graph.consumers(inserted[0].name)] == [OpKind.LINEAR]
    assert placement.bits[quantizer(graph, placement, inserted[0].inputs[0]).name] == 16


def test_two_linear_readers_share_one_requantize() -> None:
    model = toy(
        head=lambda self, x: self.last((x + functional.gelu(self.fc(x)) + self.fc(x))[:, 0])
    )
    graph = trace(model, SHAPE)
    place(graph)
    assert sum(node.op is OpKind.REQUANTIZE for node in graph) == 1


def test_no_requantize_in_a_plain_vit() -> None:
    for variant in ("class_token", "mean", "distilled", "layer_scale"):
        graph = traced(variant)
        place(graph)
        assert not any(node.op is OpKind.REQUANTIZE for node in graph)


def test_exponentials_with_two_readers_keep_their_eight_bits() -> None:
    def body(self: object, x: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(x @ x.transpose(1, 2), -1)
        return p @ x + p @ self.norm(x)  # type: ignore[attr-defined,no-any-return]

    graph = trace(toy(body=body), SHAPE)
    placement = place(graph, "w4a4")
    (exp,) = (node for node in graph if node.op is OpKind.EXP)
    assert placement.bits[exp.name] == 8
    readers = [reader.op for reader in graph.consumers(exp.name)]
    assert readers == [OpKind.NORMALIZED_MATMUL] * 2


CONCATS = {
    "one source, two slices": lambda self, x: self.last(
        torch.cat(self.norm(x).chunk(2, -1)[::-1], -1)[:, 0]
    ),
    "token and mean": lambda self, x: (
        lambda y: self.last(torch.cat([y[:, 0, :8], y[:, 1:, 8:].mean(1)], -1))
    )(self.norm(x)),
    "accumulator and gelu": lambda self, x: self.last(
        torch.cat([self.fc(x)[:, 0, :8], functional.gelu(self.fc(x)[:, 1, 8:])], -1)
    ),
    "a value twice": lambda self, x: self.last(torch.cat([x, x], 1)[:, 3] + x[:, 0]),
}


@pytest.mark.parametrize("name", CONCATS)
def test_the_inputs_of_a_concatenation_share_one_scale(name: str) -> None:
    model = toy(head=CONCATS[name])
    graph = quantize(trace(model, SHAPE))
    pictures = pixels(6)
    reference = IntegerReference(graph)
    logits = reference(pictures.numpy()) * reference.output_scale
    assert lowest_cosine(logits, float_logits(model, pictures)) > 0.99


def test_residual_width_of_eight_bits() -> None:
    model, pictures = VARIANTS["class_token"](), pixels(6)
    graph = quantize(traced("class_token"), Recipe(8, 8, 8))
    reference = IntegerReference(graph)
    logits = reference(pictures.numpy()) * reference.output_scale
    assert lowest_cosine(logits, float_logits(model, pictures)) > 0.9
    assert max(node.out.qmax for node in graph if node.out is not None) == 255


def test_placing_changes_no_values() -> None:
    graph = prepared(traced("class_token"))
    before = copy.deepcopy(graph.tensors)
    place_quantizers(graph, Recipe())
    assert all(np.array_equal(graph.tensors[key], value) for key, value in before.items())


ROTATED = {
    "of all tokens": lambda self, x: (
        lambda q: x + self.fc(q * self.norm.weight + torch.cat([-q[..., 8:], q[..., :8]], 2) * x)
    )(self.fc(self.norm(x))),
    "of some tokens": lambda self, x: (
        lambda q: x + self.fc(torch.cat([q[:, :3], q[:, 3:] * self.fc.weight[:13] + q[:, 3:]], 1))
    )(self.fc(self.norm(x))),
}


@pytest.mark.parametrize("name", ROTATED)
def test_readers_of_the_same_channels_share_a_quantizer(name: str) -> None:
    """A rotation's operand is quantized once, above the slices, at residual width."""
    graph = trace(toy(body=ROTATED[name]), SHAPE)
    first = next(node for node in graph if node.op is OpKind.LINEAR)
    placement = place(graph)
    assert placement.bits[first.name] == 16
    slices = [node for node in graph if node.op is OpKind.SLICE and node.inputs == (first.name,)]
    assert slices and not any(node.name in placement.roles for node in slices)


def test_a_constant_factor_has_14_bits_and_its_own_range() -> None:
    graph = trace(
        toy(body=lambda self, x: x + self.fc(self.fc(self.norm(x)) * (self.fc.weight - 0.5))), SHAPE
    )
    quantized_graph = quantize(graph)
    (product,) = (node for node in quantized_graph if node.op is OpKind.MULTIPLY)
    factor = quantized_graph.operand(product, 1)
    assert factor.out is not None and (factor.out.qmin, factor.out.qmax) == (-(2**13), 2**13 - 1)
    codes = np.abs(quantized_graph.tensor(factor, "value").astype(int))
    assert codes.max() >= 2**13 - 1


def test_a_function_reads_12_bits_and_a_clamp_what_there_is() -> None:
    for function, bits in ((functional.silu, 12), (functional.relu, None)):
        graph = trace(toy(body=lambda s, x, f=function: x + s.fc(f(s.fc(s.norm(x))))), SHAPE)
        placement = place(graph)
        (node,) = (node for node in graph if node.op is OpKind.POINTWISE)
        assert placement.bits.get(node.inputs[0]) == bits
        assert placement.bits[node.name] == 8


@pytest.mark.parametrize("moved", [
    lambda y: y[:, 1:], lambda y: y.roll(2, 1), lambda y: y.unflatten(1, (4, 4)).flatten(1, 2),
])  # fmt: skip
def test_a_sum_that_is_read_through_layout_alone_keeps_its_width(
    moved: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """A layer asks for 8 bits of it, and the next sum behind the same layout for 16."""

    def body(self: Toy, x: torch.Tensor) -> torch.Tensor:
        y = moved(x + self.fc(self.norm(x)))
        return y + self.fc(y)

    graph = trace(toy(body=body), SHAPE)
    placement = place(graph)
    sums = [node for node in graph if node.op is OpKind.ADD]
    assert len(sums) == 2 and all(placement.bits[node.name] == 16 for node in sums)
    layers = [node for node in graph if node.op is OpKind.LINEAR]
    assert all(_bits_read(graph, placement, node) == 8 for node in layers)


def _bits_read(graph: Graph, placement: Placement, layer: Node) -> int:
    return placement.bits[quantizer(graph, placement, layer.inputs[0]).name]
