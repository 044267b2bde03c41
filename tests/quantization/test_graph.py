"""The graph's editing operations."""

import numpy as np
import pytest

from vitq.numerics.errors import VitqError
from vitq.numerics.qparams import QuantParams
from vitq.quantization.graph.graph import Graph, Node, OpKind


def chain() -> Graph:
    """x -> a -> b, where a and b share a weight."""
    nodes = [
        Node("x", OpKind.INPUT, (), (1, 4), 0),
        Node("a", OpKind.LINEAR, ("x",), (1, 4), 0, {"weight": "w", "bias": "v"}),
        Node("b", OpKind.LINEAR, ("a",), (1, 4), 0, {"weight": "w", "bias": "v"}),
    ]
    tensors = {"w": np.eye(4, dtype=np.float32), "v": np.zeros(4, np.float32)}
    return Graph({node.name: node for node in nodes}, {"logits": "b"}, tensors)


def test_set_param_leaves_shared_tensors_alone() -> None:
    graph = chain()
    graph.set_param(graph.nodes["a"], "weight", np.zeros((4, 4), np.float32))
    assert not graph.real(graph.nodes["a"], "weight").any()
    np.testing.assert_array_equal(graph.real(graph.nodes["b"], "weight"), np.eye(4))


def test_set_param_does_not_overwrite_a_tensor_named_like_the_node() -> None:
    graph = chain()
    graph.tensors["a.weight"] = 7 * np.eye(4, dtype=np.float32)
    graph.nodes["b"].params["weight"] = "a.weight"
    graph.set_param(graph.nodes["a"], "weight", np.zeros((4, 4), np.float32))
    np.testing.assert_array_equal(graph.real(graph.nodes["b"], "weight"), 7 * np.eye(4))
    assert not graph.real(graph.nodes["a"], "weight").any()


def test_set_param_twice_keeps_the_key() -> None:
    graph = chain()
    for value in (1, 2):
        graph.set_param(graph.nodes["a"], "bias", np.full(4, value, np.float32))
    assert graph.nodes["a"].params["bias"] == "a.bias"
    np.testing.assert_array_equal(graph.tensors["a.bias"], 2)


def test_insert_after_keeps_execution_order() -> None:
    graph = chain()
    graph.insert_after("a", Node("m", OpKind.GELU, ("a",), (1, 4), 0))
    assert list(graph.nodes) == ["x", "a", "m", "b"]


def test_bypass_rewires_readers_and_the_output() -> None:
    graph = chain()
    graph.bypass(graph.nodes["a"])
    assert graph.nodes["b"].inputs == ("x",)
    graph.bypass(graph.nodes["b"])
    assert graph.output == "x" and list(graph.nodes) == ["x"]


def test_remove_dead_drops_nodes_tensors_and_parameters() -> None:
    graph = chain()
    graph.insert_after("a", Node("dead", OpKind.CONSTANT, (), (4,), None, {"value": "c"}))
    graph.tensors["c"] = np.zeros(4, np.float32)
    graph.qparams["c"] = QuantParams.per_tensor(1, 0, -8, 7)
    graph.remove_dead()
    assert list(graph.nodes) == ["x", "a", "b"]
    assert set(graph.tensors) == {"w", "v"} and not graph.qparams


def test_replace_input_only_changes_that_name() -> None:
    graph = chain()
    node = Node("sum", OpKind.ADD, ("a", "b", "a"), (1, 4), 0)
    graph.replace_input(node, "a", "x")
    assert node.inputs == ("x", "b", "x")


def test_shape_at_multiplies_the_batch_axis() -> None:
    assert Node("n", OpKind.RESHAPE, (), (3, 5, 2), 1).shape_at(4) == (3, 20, 2)
    assert Node("n", OpKind.CONSTANT, (), (3, 5), None).shape_at(4) == (3, 5)


def test_real_dequantizes_codes() -> None:
    graph = chain()
    graph.tensors["w"] = np.array([[-3, 2]], np.int8)
    graph.qparams["w"] = QuantParams.per_tensor(0.5, 1, -128, 127)
    np.testing.assert_array_equal(graph.real(graph.nodes["a"], "weight"), [[-2.0, 0.5]])


def test_check_finite_names_every_bad_tensor() -> None:
    graph = chain()
    graph.check_finite()
    graph.tensors["w"][0, 0] = np.nan
    graph.tensors["v"][1] = np.inf
    with pytest.raises(VitqError, match=r"not finite .* in: v, w$"):
        graph.check_finite()
