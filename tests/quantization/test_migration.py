"""Moved channels' differences: the float function stays, and the share is the best one tried."""

import copy

import numpy as np
import pytest

from tests.quantization.vits import normalized, pixels, traced
from vitq.numerics.arrays import FloatArray
from vitq.numerics.qparams import QScheme, dequantize, quantize
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.ranges.migration import SHARES, migrate
from vitq.quantization.ranges.observers import weight_qparams
from vitq.quantization.ranges.reparameterize import linear_readers
from vitq.quantization.ranges.search import search_range
from vitq.quantization.run.fake_quantize import GraphModule


def rounded(bits: int):
    def round_weight(_: Node, weight: FloatArray, __: FloatArray) -> FloatArray:
        qparams = weight_qparams(weight, bits)
        return dequantize(quantize(weight, qparams), qparams)

    return round_weight


def norm_and_rows(graph: Graph, uneven: float) -> tuple[Node, FloatArray]:
    """A LayerNorm with channels of very different size, and its output."""
    node = next(n for n in graph if n.op is OpKind.LAYER_NORM and linear_readers(graph, n))
    random = np.random.RandomState(0)
    gamma = graph.real(node, "gamma") * np.exp(uneven * random.randn(node.shape[-1]))
    graph.set_param(node, "gamma", gamma.astype(np.float32))
    seen: dict[str, FloatArray] = {}
    observer = lambda n, value: seen.update({n.name: value.numpy()})  # noqa: E731
    GraphModule(graph, observer=observer)(normalized(pixels(8)))
    return node, seen[node.name].reshape(-1, node.shape[-1])


@pytest.mark.parametrize(("weight_bits", "bits"), [(8, 4), (4, 8), (4, 4)])
def test_the_float_function_is_unchanged(weight_bits: int, bits: int) -> None:
    graph = traced("class_token")
    node, rows = norm_and_rows(graph, 1.0)
    gamma = graph.real(node, "gamma")
    gamma[5] = 0.0  # a dead channel
    graph.set_param(node, "gamma", gamma)
    rows[:, 5] = graph.real(node, "beta")[5]
    x = normalized(pixels(4, seed=3))
    before = GraphModule(copy.deepcopy(graph))(x).numpy()
    extent = rows.min(0), rows.max(0)
    assert migrate(graph, node, rows, extent, bits, rounded(weight_bits)) is not None
    after = GraphModule(graph)(x).numpy()
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())


def layer_error(rows: FloatArray, weight: FloatArray, share: float, bits: tuple[int, int]) -> float:
    """The layer's error with one share, spelled out."""
    span = np.ptp(rows, axis=0)
    ratio = (span / span.mean()) ** share
    moved = ((rows - (rows.min(0) + rows.max(0)) / 2) / ratio).astype(np.float32)
    reach = float(moved.min()), float(moved.max())
    qparams = search_range(moved.reshape(-1), bits[1], QScheme.AFFINE, reach)
    x = dequantize(quantize(moved, qparams), qparams)
    scaled = (weight * ratio).astype(np.float32)
    error = x @ rounded(bits[0])(None, scaled, x).T - moved @ scaled.T  # type: ignore[arg-type]
    return float(np.square(error - error.mean(0)).mean())


@pytest.mark.parametrize(("weight_bits", "bits"), [(8, 4), (4, 8), (4, 4)])
def test_the_share_is_the_best_one(weight_bits: int, bits: int) -> None:
    graph = traced("class_token")
    node, rows = norm_and_rows(graph, 1.0)
    weight = graph.real(linear_readers(graph, node)[0], "weight").copy()  # type: ignore[index]
    gamma = graph.real(node, "gamma").copy()
    migrate(graph, node, rows, (rows.min(0), rows.max(0)), bits, rounded(weight_bits))
    errors = [layer_error(rows, weight, share, (weight_bits, bits)) for share in SHARES]
    ratio = np.ptp(rows, axis=0) / np.ptp(rows, axis=0).mean()
    moved = np.log(gamma / graph.real(node, "gamma"))
    share = float(np.polyfit(np.log(ratio), moved, 1)[0])
    assert share == pytest.approx(SHARES[int(np.argmin(errors))], abs=1e-3)


def test_more_moves_where_activations_are_narrow() -> None:
    shares = []
    for weight_bits, bits in ((8, 4), (4, 8)):
        graph = traced("class_token")
        node, rows = norm_and_rows(graph, 1.5)
        before = graph.real(node, "gamma").copy()
        migrate(graph, node, rows, (rows.min(0), rows.max(0)), bits, rounded(weight_bits))
        shares.append(np.log(before / graph.real(node, "gamma")).std())
    assert shares[0] > 1.5 * shares[1]


def test_other_readers_are_left_alone() -> None:
    graph = traced("class_token")
    node, rows = norm_and_rows(graph, 1.0)
    reader = graph.consumers(node.name)[0]
    graph.replace_input(graph.consumers(reader.name)[0], reader.name, node.name)
    gamma = graph.real(node, "gamma").copy()
    assert migrate(graph, node, rows, (rows.min(0), rows.max(0)), 4, rounded(4)) is None
    np.testing.assert_array_equal(graph.real(node, "gamma"), gamma)
