"""Scale reparameterization against RepQ-ViT's equations, element by element."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

from tests.quantization.vits import (
    SHAPE,
    Toy,
    float_logits,
    normalized,
    pixels,
    quantize,
    toy,
    traced,
)
from vitq.numerics.arrays import FloatArray, IntArray
from vitq.numerics.qparams import QuantParams
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.tracing import trace
from vitq.quantization.ranges.reparameterize import reparameterize_norm
from vitq.quantization.run.fake_quantize import GraphModule

Ranges = tuple[FloatArray, FloatArray]


def hand_made(seed: int, channels: int = 6, outputs: int = 4) -> tuple[Graph, Node]:
    """LayerNorm -> linear with uneven channels, some gammas negative."""
    random = np.random.RandomState(seed)
    spread = 10.0 ** random.uniform(-2, 1, channels)
    tensors = {
        "gamma": (spread * random.choice([-1, 1], channels)).astype(np.float32),
        "beta": (spread * random.randn(channels)).astype(np.float32),
        "weight": random.randn(outputs, channels).astype(np.float32),
        "bias": random.randn(outputs).astype(np.float32),
    }
    norm_params = {"gamma": "gamma", "beta": "beta"}
    fc_params = {"weight": "weight", "bias": "bias"}
    nodes = [
        Node("x", OpKind.INPUT, (), (1, channels), 0),
        Node("norm", OpKind.LAYER_NORM, ("x",), (1, channels), 0, norm_params, {"eps": 1e-6}),
        Node("fc", OpKind.LINEAR, ("norm",), (1, outputs), 0, fc_params),
    ]
    graph = Graph({node.name: node for node in nodes}, {"logits": "fc"}, dict(tensors))
    return graph, graph.nodes["norm"]


def ranges(graph: Graph, reach: float = 3.0) -> Ranges:
    """Channel ranges of normalized values from -reach to reach / 2."""
    norm = graph.nodes["norm"]
    gamma, beta = graph.real(norm, "gamma"), graph.real(norm, "beta")
    ends = np.stack([beta - gamma * reach, beta + gamma * reach / 2])
    return ends.min(axis=0), ends.max(axis=0)


def expected(graph: Graph, low: FloatArray, high: FloatArray, bits: int) -> dict[str, FloatArray]:
    """Eq. 9 to 15 with scalars in float64; the layer's zero point is rounded."""
    gamma, beta, weight, bias = (
        graph.tensors[key].astype(float) for key in ("gamma", "beta", "weight", "bias")
    )
    steps = 2**bits - 1
    s = [(float(h) - float(m)) / steps for m, h in zip(low, high, strict=True)]
    z = [round(-float(m) / sc) for m, sc in zip(low, s, strict=True)]
    layer_s = sum(s) / len(s)
    layer_z = round(sum(z) / len(z))
    for c in range(len(s)):
        r1, r2 = s[c] / layer_s, z[c] - layer_z
        gamma[c] = gamma[c] / r1
        beta[c] = (beta[c] + s[c] * r2) / r1
        for o in range(weight.shape[0]):
            bias[o] -= s[c] * r2 * weight[o, c]
            weight[o, c] *= r1
    return {
        "gamma": gamma,
        "beta": beta,
        "weight": weight,
        "bias": bias,
        "scale": np.asarray(layer_s),
        "zero_point": np.asarray(layer_z - 2 ** (bits - 1)),
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 6, 8]))
def test_equals_the_equations(seed: int, bits: int) -> None:
    graph, norm = hand_made(seed)
    low, high = ranges(graph)
    want = expected(graph, low, high, bits)
    qparams = reparameterize_norm(graph, norm, low, high, bits)
    assert qparams is not None
    assert float(qparams.scale) == pytest.approx(float(want["scale"]), rel=1e-6)
    if -(2 ** (bits - 1)) < want["zero_point"] < 2 ** (bits - 1) - 1:
        assert int(qparams.zero_point) == int(want["zero_point"])
        for role, node in (("gamma", norm), ("beta", norm)):
            np.testing.assert_allclose(graph.real(node, role), want[role], rtol=2e-5, atol=1e-5)
        for role in ("weight", "bias"):
            got = graph.real(graph.nodes["fc"], role)
            np.testing.assert_allclose(got, want[role], rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 8]))
def test_the_float_function_is_kept(seed: int, bits: int) -> None:
    graph, norm = hand_made(seed)
    x = torch.from_numpy(np.random.RandomState(seed).randn(5, 6).astype(np.float32))
    before = GraphModule(graph)(x).numpy()
    assert reparameterize_norm(graph, norm, *ranges(graph), bits) is not None
    after = GraphModule(graph)(x).numpy()
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * max(1, np.abs(before).max()))


def without_shift(seed: int) -> tuple[Graph, Node]:
    """`hand_made` with an RMSNorm, which has no beta."""
    graph, norm = hand_made(seed)
    norm.op = OpKind.RMS_NORM
    del norm.params["beta"]
    return graph, norm


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 8]))
def test_channels_of_an_rms_norm_get_the_step_of_their_reach(seed: int, bits: int) -> None:
    """The layer's codes are those of a quantizer for each channel with one zero point, 0's own."""
    graph, norm = without_shift(seed)
    gamma, weight = graph.real(norm, "gamma").astype(np.float64), graph.tensors["weight"].copy()
    low, high = -3 * np.abs(gamma), 1.5 * np.abs(gamma)
    x = torch.from_numpy(np.random.RandomState(seed).randn(5, 6).astype(np.float32))
    before = GraphModule(graph)(x).numpy()
    qparams = reparameterize_norm(graph, norm, low, high, bits)
    assert qparams is not None
    after = GraphModule(graph)(x).numpy()
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * max(1, np.abs(before).max()))
    scale = (high - low) / (2**bits - 1)  # of each channel
    ratio = gamma / graph.real(norm, "gamma")
    np.testing.assert_allclose(ratio, np.abs(gamma) / np.abs(gamma).mean(), rtol=1e-5)
    np.testing.assert_allclose(ratio * float(qparams.scale), scale, rtol=1e-5)
    assert int(qparams.zero_point) == round(-(2 ** (bits - 1)) + 3 / 4.5 * (2**bits - 1))
    np.testing.assert_allclose(graph.real(graph.nodes["fc"], "weight"), weight * ratio, rtol=1e-5)
    np.testing.assert_array_equal(graph.real(graph.nodes["fc"], "bias"), graph.tensors["bias"])


def test_a_dead_channel_of_an_rms_norm_takes_no_part() -> None:
    graph, norm = without_shift(3)
    graph.tensors["gamma"][2] = 0
    reach = np.abs(graph.tensors["gamma"]).astype(np.float64)
    x = torch.from_numpy(np.random.RandomState(0).randn(5, 6).astype(np.float32))
    before = GraphModule(graph)(x).numpy()
    qparams = reparameterize_norm(graph, norm, -reach, reach, 8)
    assert qparams is not None
    assert float(qparams.scale) == pytest.approx(2 * reach[reach > 0].mean() / 255, rel=1e-6)
    np.testing.assert_allclose(GraphModule(graph)(x).numpy(), before, rtol=0, atol=1e-5)
    assert reparameterize_norm(graph, norm, 0 * reach, 0 * reach, 8) is None


@pytest.mark.parametrize("method", ["repq", "best"])
def test_channels_of_an_rms_norm_are_apart_when_it_is_quantized(method: str) -> None:
    """Uneven gammas at 4 bits: one step for all leaves nothing of the smaller channels."""

    def head(self: Toy, x: torch.Tensor) -> torch.Tensor:
        uneven = 10 ** torch.linspace(-2, 1, 16)
        return self.last((F.rms_norm(x, (16,), uneven) @ torch.diag(1 / uneven))[:, 0])

    x = pixels(8)
    wanted = float_logits(toy(head=head), x)
    found = []
    for name in (method, "minmax"):
        graph = trace(toy(head=head), SHAPE)
        quantize(graph, "w8a4", name)
        found.append(np.square(GraphModule(graph, simulate=True)(x).numpy() - wanted).mean())
        (norm,) = (node for node in graph if node.op is OpKind.RMS_NORM)
        spread = np.abs(graph.real(norm, "gamma"))
        assert (spread.max() / spread.min() < 30) == (name == method)
    assert found[0] < found[1] / 4


def codes(values: FloatArray, scale: FloatArray, zero: FloatArray, q: QuantParams) -> IntArray:
    """Affine quantization in float64."""
    return np.clip(np.rint(values / scale) + zero, q.qmin, q.qmax).astype(np.int64)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 8]))
def test_layer_wise_codes_are_the_channel_wise_codes(seed: int, bits: int) -> None:
    graph, norm = hand_made(seed)
    gamma, beta = (graph.real(norm, role).astype(np.float64) for role in ("gamma", "beta"))
    low, high = ranges(graph)
    scale = (high.astype(np.float64) - low) / (2**bits - 1)
    zero = np.rint(-(2 ** (bits - 1)) - low.astype(np.float64) / scale)
    # three tenths beside each code, and some beyond both ends: no rounding boundary is near
    steps = np.arange(-5, 2**bits + 5)[:, None] + 0.3 - 2 ** (bits - 1)
    channel_values = (steps - zero) * scale
    hidden = (channel_values - beta) / gamma
    qparams = reparameterize_norm(graph, norm, low, high, bits)
    assert qparams is not None
    layer_values = hidden * graph.real(norm, "gamma") + graph.real(norm, "beta")
    layer = codes(layer_values, qparams.scale.astype(np.float64), qparams.zero_point, qparams)
    np.testing.assert_array_equal(layer, codes(channel_values, scale, zero, qparams))
    assert set(np.unique(layer)) == set(range(qparams.qmin, qparams.qmax + 1))


def test_dead_channels_move_their_constant_and_take_no_part_in_the_means() -> None:
    graph, norm = hand_made(3)
    graph.tensors["gamma"][2] = 0
    graph.tensors["beta"][2] = 250.0
    weight = graph.tensors["weight"].copy()
    bias = graph.tensors["bias"].copy()
    low, high = ranges(graph)
    x = torch.from_numpy(np.random.RandomState(0).randn(5, 6).astype(np.float32))
    before = GraphModule(graph)(x).numpy()
    qparams = reparameterize_norm(graph, norm, low, high, 8)
    assert qparams is not None
    live = [0, 1, 3, 4, 5]
    mean = ((high - low).astype(np.float64)[live] / 255).mean()
    assert float(qparams.scale) == pytest.approx(mean, rel=1e-6)
    assert graph.real(norm, "gamma")[2] == 0 and graph.real(norm, "beta")[2] == 0
    fc = graph.nodes["fc"]
    np.testing.assert_array_equal(graph.real(fc, "weight")[:, 2], weight[:, 2])
    assert np.abs(graph.real(fc, "bias") - bias - 250 * weight[:, 2]).max() < 50
    np.testing.assert_allclose(GraphModule(graph)(x).numpy(), before, rtol=0, atol=1e-3)


def test_only_dead_channels_are_declined() -> None:
    graph, norm = hand_made(0)
    same = np.ones(6, np.float32)
    before = copy.deepcopy(graph.tensors)
    assert reparameterize_norm(graph, norm, same, same, 8) is None
    assert all(np.array_equal(graph.tensors[key], value) for key, value in before.items())


DECLINED = {
    "gelu": lambda self, x: self.last(F.gelu(self.norm(x))[:, 0]),
    "sum": lambda self, x: (lambda y: self.last((y + self.fc(y))[:, 0]))(self.norm(x)),
    "transposed": lambda self, x: self.last(self.norm(x).transpose(1, 2)[:, 0]),
    "scaled": lambda self, x: self.last((self.norm(x) * 0.5)[:, 0]),
    "heads": lambda self, x: self.last(self.norm(x).reshape(-1, 16, 2, 8)[:, 0].flatten(1)),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declined_where_something_else_reads_the_layer_norm(name: str) -> None:
    graph = trace(toy(body=lambda self, x: x, head=DECLINED[name]), SHAPE)
    (norm,) = (node for node in graph if node.op is OpKind.LAYER_NORM)
    before = {(n.name, role): graph.real(n, role).copy() for n in graph for role in n.params}
    low, high = -np.ones(16, np.float32), 2 * np.ones(16, np.float32)
    assert reparameterize_norm(graph, norm, low, high, 8) is None
    for (node, role), value in before.items():
        np.testing.assert_array_equal(graph.real(graph.nodes[node], role), value)


def test_all_readers_are_rewritten_through_layout() -> None:
    graph = traced("distilled")
    norm = [node for node in graph if node.op is OpKind.LAYER_NORM][-1]
    assert len(graph.consumers(norm.name)) == 2
    x = normalized(pixels(3))
    before = GraphModule(graph)(x).numpy()
    values: dict[str, FloatArray] = {}
    GraphModule(graph, observer=lambda n, v: values.update({n.name: v.numpy()}))(x)
    rows = values[norm.name].reshape(-1, 24)
    assert reparameterize_norm(graph, norm, rows.min(axis=0), rows.max(axis=0), 8) is not None
    np.testing.assert_allclose(GraphModule(graph)(x).numpy(), before, rtol=0, atol=1e-4)
    heads = [node for node in graph if node.op is OpKind.LINEAR][-2:]
    assert all(node.params["weight"] == f"{node.name}.weight" for node in heads)
