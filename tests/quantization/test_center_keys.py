"""Keys without their means: the same function, and only where a shift is a constant."""

import numpy as np
import pytest
import torch

from tests.quantization.vits import MEAN, STD, pixels, traced
from vitq.numerics.families import Nonlinear
from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.ranges.calibrate import rewrite
from vitq.quantization.ranges.center_keys import center_keys, key_rows
from vitq.quantization.run.fake_quantize import GraphModule


@pytest.fixture
def graph() -> Graph:
    found = traced("class_token")
    rewrite(found, Nonlinear.VITQ, MEAN, STD)
    return found


def test_centered_keys_compute_the_same(graph: Graph) -> None:
    before = GraphModule(graph)(pixels(2))
    layers = [node for node in graph if node.op is OpKind.LINEAR and key_rows(graph, node).size]
    assert layers
    for node in layers:
        rows, channels = key_rows(graph, node), node.shape[-1]
        np.testing.assert_array_equal(rows, np.arange(channels // 3, 2 * channels // 3))
        bias = graph.real(node, "bias").copy()
        center_keys(graph, node, np.linspace(-3, 3, channels))
        moved = bias - graph.real(node, "bias")
        np.testing.assert_allclose(moved[rows], np.linspace(-3, 3, channels)[rows], atol=1e-6)
        assert not np.delete(moved, rows).any()
    torch.testing.assert_close(GraphModule(graph)(pixels(2)), before, rtol=0, atol=1e-4)


def test_keys_that_are_read_elsewhere_stay(graph: Graph) -> None:
    layer = next(n for n in graph if n.op is OpKind.LINEAR and key_rows(graph, n).size)
    key = next(n for n in graph if n.op is OpKind.MATMUL).inputs[1]
    graph.outputs["keys"] = key
    assert not key_rows(graph, layer).size
    del graph.outputs["keys"]
    reader = next(n for n in graph if n.op is OpKind.EXP)
    reader.op = OpKind.GELU  # not blind to a shift
    assert not key_rows(graph, layer).size
