"""Convolutions in the graph: the float function, the layout inside, and the integers at borders."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from tests.quantization import convnets
from vitq.numerics.arrays import IntArray
from vitq.quantization.graph.graph import LAYER_OPS, LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph
from vitq.quantization.run.fake_quantize import GraphModule
from vitq.quantization.run.reference import IntegerReference, pixel_codes

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def traced(model: nn.Module, size: tuple[int, int] = (13, 16)) -> Graph:
    """The graph of a model, which computes what the model does."""
    graph = trace(model, (3, *size))
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(x)
    found = GraphModule(graph)(x)
    assert float((found - expected).abs().max()) <= 2e-5 * float(expected.abs().max())
    return graph


def test_no_transposition_is_left_between_convolutions() -> None:
    graph = traced(convnets.dense())
    kinds = [node.op for node in graph]
    first, last = kinds.index(OpKind.LINEAR), len(kinds) - kinds[::-1].index(OpKind.MEAN)
    moves = [node for node in list(graph)[first:last] if node.op is OpKind.PERMUTE]
    assert all(len(node.shape) == 6 for node in moves if _moves(node))  # these split windows


def _moves(node: Node) -> bool:
    """Whether a permutation changes the order of elements."""
    axes = [axis for axis, n in zip(node.attrs["axes"], node.shape, strict=True) if n > 1]
    return axes != sorted(axes)


def test_each_channel_alone_is_one_operator() -> None:
    graph = traced(convnets.depthwise())
    assert [node.op for node in graph].count(OpKind.DEPTHWISE) == 3
    assert not any(node.op in (OpKind.MULTIPLY, OpKind.CHANNEL_SCALE) for node in graph)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d((2, 3), (1, 2), (1, 1), dilation=2),
        nn.MaxPool2d(2),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d((3, 2), 2, (1, 0)),
        nn.AvgPool2d(4),
        nn.AdaptiveAvgPool2d((3, 5)),
        nn.AdaptiveAvgPool2d((13, 2)),
        nn.AdaptiveMaxPool2d((13, 4)),
        nn.Sequential(nn.ConstantPad2d((0, 1, 1, 2), -torch.inf), nn.MaxPool2d(3, 2)),
        nn.ConstantPad2d((2, -1, 0, 1), 0.75),
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.ConvTranspose2d(4, 3, (3, 4), 2, 1, output_padding=1),
        nn.ConvTranspose2d(4, 4, 3, 1, 1, dilation=2),
    ],
    ids=str,
)
def test_windows_of_any_kind_trace(layer: nn.Module) -> None:
    first = nn.Conv2d(3, 4, 1)
    traced(convnets.settled(nn.Sequential(first, nn.GELU(), layer, nn.Flatten())))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (2, 3), "dilation": (2, 1), "padding": (0, 1)},
        {"kernel_size": 2, "stride": 3},
    ],
    ids=str,
)
def test_columns_are_added_where_windows_took_them(options: dict[str, int]) -> None:
    cut, size = nn.Unfold(**options), (14, 17)  # type: ignore[arg-type]

    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            back: torch.Tensor = nn.functional.fold(cut(self.conv(x)), size, **options)  # type: ignore[arg-type]
            return back.flatten(1)

    graph = traced(convnets.settled(Folded()), size)
    assert {node.op for node in graph} <= {OpKind.INPUT, OpKind.ADD, OpKind.LINEAR, *LAYOUT_OPS}


@pytest.mark.parametrize("out", [3, 6])
def test_a_first_convolution_may_have_groups(out: int) -> None:
    """Its mean and std fold, and the border is exact; the layers of `convnets` are behind it."""
    first = nn.Conv2d(3, out, 3, 2, 1, groups=3)
    model = convnets.settled(nn.Sequential(first, nn.GELU(), nn.Conv2d(out, 4, 1), nn.Flatten()))
    pixels = np.random.default_rng(2).integers(0, 256, (2, 3, 9, 8), dtype=np.uint8)
    graph = quantized(model, pixels)
    x = torch.from_numpy(pixels).float() / 255
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        expected = model((x - mean) / std).numpy()
    real = IntegerReference(graph).real(IntegerReference(graph)(pixels))
    assert np.abs(real - expected).max() < 0.05 * np.abs(expected).max()


def test_batch_norm_and_layer_scale_are_in_the_layer_before() -> None:
    graph = traced(convnets.dense())
    assert not any(node.op is OpKind.CHANNEL_SCALE for node in graph)
    assert sum(node.op is OpKind.MULTIPLY for node in graph) == 1  # squeeze and excite


class Flattened(nn.Module):
    """LeViT's linear layer: BatchNorm over the tokens of all pictures, then the shape before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear, self.norm = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), nn.BatchNorm1d(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(self.conv(x).flatten(2).transpose(1, 2))
        return nn.functional.dropout(self.norm(x.flatten(0, 1)).reshape_as(x), 0.1, False).mean(1)


def test_batch_norm_over_all_tokens_folds() -> None:
    graph = traced(convnets.settled(Flattened()))
    assert not any(node.op in (OpKind.MULTIPLY, OpKind.ADD) for node in graph)


class ReadTwice(nn.Module):
    """A convolution that BatchNorm and something else read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.head((self.norm(x) + x).mean((2, 3)))


def test_a_layer_that_something_else_reads_keeps_its_weights() -> None:
    graph = traced(convnets.settled(ReadTwice()))
    assert sum(node.op is OpKind.MULTIPLY for node in graph) == 1


@pytest.mark.parametrize("fill", ["random", 0, 255])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 7, "stride": 4, "padding": 3},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
    ],
)
def test_a_first_convolution_is_exact_at_the_border(
    options: dict[str, int], fill: str | int
) -> None:
    """Normalized pixels, real zeros around them: against PyTorch in float64, from raw pixels."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 6, **options)  # type: ignore[arg-type]
    body = convnets.settled(nn.Sequential(conv, nn.ReLU(), nn.Conv2d(6, 2, 1), nn.Flatten()))
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (2, 3, 13, 11), dtype=np.uint8)
    graph = quantized(body, pixels)
    if fill != "random":
        pixels = np.full_like(pixels, int(fill))
    real = IntegerReference(graph).real(IntegerReference(graph)(pixels))
    x = torch.from_numpy(pixels.astype(np.float64) / 255)
    mean, std = (torch.tensor(v, dtype=torch.float64).reshape(3, 1, 1) for v in (MEAN, STD))
    with torch.no_grad():
        expected = body.double()((x - mean) / std).numpy()
    # constant pictures may lie beyond the calibrated range: the border must not stand out
    scale = np.abs(expected).max()
    assert np.abs(real - expected).max() < (0.05 if fill == "random" else 0.35) * scale


def quantized(model: nn.Module, pixels: np.ndarray) -> Graph:
    """A model at w8a8."""
    graph = trace(model, pixels.shape[1:])
    found = torch.from_numpy(pixels)
    return quantize_graph(graph, found, Recipe.parse("w8a8"), get_method("minmax"), MEAN, STD)


def direct(x: IntArray, zero: int, weight: IntArray, stride: int, pad: int) -> IntArray:
    """Convolve (N, H, W, C) codes by (O, i, j, C), one tap after the other."""
    _, rows, columns, _ = weight.shape
    down, across = ((n + 2 * pad - k) // stride + 1 for n, k in zip(x.shape[1:3], (rows, columns),
                                                                    strict=True))  # fmt: skip
    acc = np.zeros((len(x), down, across, len(weight)), np.int64)
    for y, z, i, j in product(range(down), range(across), range(rows), range(columns)):
        at, beside = y * stride - pad + i, z * stride - pad + j
        if 0 <= at < x.shape[1] and 0 <= beside < x.shape[2]:
            acc[:, y, z] += (x[:, at, beside].astype(np.int64) - zero) @ weight[:, i, j].T
    return acc


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (2, 4)])
def test_the_reference_sums_what_a_direct_convolution_does(stride: int, groups: int) -> None:
    """Inside of the network, where the zero point is none of the type's ends."""
    inner = nn.Conv2d(4, 4, 3, stride, 1, groups=groups)
    model = convnets.settled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU(), inner, nn.Flatten()))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 7, 8), dtype=np.uint8)
    graph = quantized(model, pixels)
    layer = [node for node in graph if node.op in LAYER_OPS][-1]
    source = layer
    while source.op is not OpKind.GELU:
        source = graph.operand(source)
    assert source.out is not None
    codes, acc = codes_of(graph, source, pixels), codes_of(graph, layer, pixels)
    weight = graph.tensor(layer, "weight").astype(np.int64)
    if groups == 1:
        weight = weight.reshape(4, 3, 3, 4)
    else:  # zeros for the other channels
        weight = weight.reshape(4, 3, 3, 1) * np.eye(4, dtype=np.int64)[:, None, None]
    expected = direct(codes, int(source.out.zero_point), weight, stride, 1)
    np.testing.assert_array_equal(acc, expected + graph.tensor(layer, "bias"))


def codes_of(graph: Graph, node: Node, pixels: np.ndarray) -> IntArray:
    """A node's codes; of a layer its accumulators."""
    run = IntegerReference(graph)
    values = {}
    for found in graph:
        inputs = [values[name] for name in found.inputs]
        if found.op is OpKind.INPUT:
            values[found.name] = pixel_codes(found, pixels)
            continue
        out = found.out
        found.out = None if found is node and node.op in LAYER_OPS else out
        values[found.name] = run.execute(found, inputs, len(pixels))
        found.out = out
        if found is node:
            break
    return values[node.name].codes
