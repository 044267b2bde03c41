"""Equalized V: the float function stays, channels become alike."""

import copy

import numpy as np
import pytest

from tests.quantization.vits import normalized, pixels, traced
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.rewrites import defer_softmax_normalization
from vitq.quantization.ranges.equalize import equalize_value, value_paths
from vitq.quantization.run.fake_quantize import GraphModule

VARIANTS = ["class_token", "distilled", "unfused_attention", "normalized_query_and_key", "mean"]


def attention_layers(graph: Graph) -> list[Node]:
    return [node for node in graph if node.op is OpKind.LINEAR and value_paths(graph, node)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_float_function_is_unchanged(variant: str) -> None:
    graph = traced(variant)
    defer_softmax_normalization(graph)
    x = normalized(pixels(4))
    before = GraphModule(copy.deepcopy(graph))(x).numpy()
    layers = attention_layers(graph)
    assert len(layers) == 2
    random = np.random.RandomState(0)
    for linear in layers:
        (path,) = value_paths(graph, linear)
        assert path.attention.op is OpKind.NORMALIZED_MATMUL
        width = linear.shape[-1]
        weight = graph.real(linear, "weight").copy()
        mean, size = random.randn(width), np.exp(random.randn(width))
        equalize_value(graph, linear, path, mean, size)
        changed = np.abs(graph.real(linear, "weight") - weight).max(1) > 0
        assert set(np.flatnonzero(changed)) <= set(path.rows)
        assert changed.sum() > width // 6
    after = GraphModule(graph)(x).numpy()
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())


def test_channels_get_the_same_mean_and_size() -> None:
    graph = traced("class_token")
    defer_softmax_normalization(graph)
    linear = attention_layers(graph)[0]
    (path,) = value_paths(graph, linear)

    def outputs() -> np.ndarray:
        seen = {}
        observer = lambda node, value: seen.update({node.name: value.numpy()})  # noqa: E731
        GraphModule(graph, observer=observer)(normalized(pixels(8)))
        return seen[linear.name].reshape(-1, linear.shape[-1])

    before = outputs()
    mean, size = before.mean(0), before.std(0)
    equalize_value(graph, linear, path, mean, size)
    after = outputs()[:, path.rows]
    np.testing.assert_allclose(after.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(after.std(0), size[path.rows].mean(), rtol=1e-3)


def test_v_that_something_else_reads_is_left_alone() -> None:
    graph = traced("class_token")
    defer_softmax_normalization(graph)
    linear = attention_layers(graph)[0]
    (path,) = value_paths(graph, linear)
    value = path.attention.inputs[1]
    extra = Node("extra", OpKind.GELU, (value,), graph.nodes[value].shape, 0)
    extra.attrs["approximate"] = "none"
    graph.insert_after(value, extra)
    assert value_paths(graph, linear) == []


def test_a_dead_channel_keeps_its_weights() -> None:
    graph = traced("class_token")
    defer_softmax_normalization(graph)
    linear = attention_layers(graph)[0]
    (path,) = value_paths(graph, linear)
    size = np.ones(linear.shape[-1])
    size[path.rows[3]] = 0
    weight = graph.real(linear, "weight").copy()
    equalize_value(graph, linear, path, np.zeros(linear.shape[-1]), size)
    np.testing.assert_array_equal(graph.real(linear, "weight")[path.rows[3]], weight[path.rows[3]])


def test_values_that_are_constant_stay() -> None:
    """What varies of them is rounding, 1e-16 of a mean of 1; it is not stretched."""
    graph = traced("class_token")
    defer_softmax_normalization(graph)
    linear = attention_layers(graph)[0]
    (path,) = value_paths(graph, linear)
    before = {key: value.copy() for key, value in graph.tensors.items()}
    width = linear.shape[-1]
    equalize_value(graph, linear, path, np.ones(width), np.full(width, 1e-16))
    assert all(np.array_equal(graph.tensors[key], value) for key, value in before.items())
