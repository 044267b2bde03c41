"""Channels that calibration left quiet: the rule's properties, and what they are worth."""

import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.quantization.vits import pixels, traced
from vitq.models.digits_vit import MEAN, STD
from vitq.models.digits_vit.data import load_digits_split
from vitq.numerics.arrays import UInt8Array
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.tracing import trace
from vitq.quantization.model.models import load_model
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph
from vitq.quantization.ranges.evidence import BELIEVED, LIVELY, SPREADS, Ranges, widen_quiet
from vitq.quantization.run.fake_quantize import GraphModule

CHANNELS = 7
numbers = st.floats(-100, 100, width=32)
columns = st.lists(numbers, min_size=CHANNELS, max_size=CHANNELS)


def layer(gamma: list[float], beta: list[float]) -> tuple[Graph, Node]:
    """One LayerNorm."""
    tensors = {"g": np.array(gamma, np.float32), "b": np.array(beta, np.float32)}
    shape = (1, CHANNELS)
    node = Node("norm", OpKind.LAYER_NORM, ("x",), shape, 0, {"gamma": "g", "beta": "b"})
    nodes = {"x": Node("x", OpKind.INPUT, (), shape, 0), "norm": node}
    return Graph(nodes, {"logits": "norm"}, dict(tensors)), node


def ranges(ends: list[float], others: list[float]) -> Ranges:
    """The two ends in order."""
    pair = np.array([ends, others], np.float32)
    return Ranges(pair.min(0), pair.max(0))


@settings(max_examples=60, deadline=None)
@given(columns, columns, columns, columns)
def test_equals_the_equations(
    gamma: list[float], beta: list[float], ends: list[float], others: list[float]
) -> None:
    graph, node = layer(gamma, beta)
    seen = ranges(ends, others)
    got = widen_quiet(graph, node, seen)
    widths = [
        (float(h) - float(m)) / abs(g) for m, h, g in zip(*seen, gamma, strict=True) if g != 0
    ]
    whole = 2 - 2 * statistics.median(widths) / LIVELY if widths else 0.0
    for c in range(CHANNELS):
        spread, low, high = abs(gamma[c]), float(seen.low[c]), float(seen.high[c])
        if spread == 0:
            assert (got.low[c], got.high[c]) == (low, high)
            continue
        missing = min(max(2 - 2 * (high - low) / spread / BELIEVED, whole, 0.0), 1.0)
        middle = (low + high) / 2
        lower, upper = min(beta[c], middle), max(beta[c], middle)
        lower, upper = lower - SPREADS * spread, upper + SPREADS * spread
        want = low + missing * min(lower - low, 0), high + missing * max(upper - high, 0)
        np.testing.assert_allclose((got.low[c], got.high[c]), want, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(columns, columns, columns, columns, st.sampled_from([0.5, 0.8, 1.0]))
def test_no_range_is_narrower_and_none_narrower_than_half_of_what_is_believed(
    gamma: list[float], beta: list[float], ends: list[float], others: list[float], cut: float
) -> None:
    graph, node = layer(gamma, beta)
    seen = ranges(ends, others)
    chosen = Ranges(*((cut * end).astype(np.float32) for end in seen))
    low, high = widen_quiet(graph, node, seen, chosen)
    assert np.all(low <= chosen.low) and np.all(high >= chosen.high)
    spread = np.abs(np.array(gamma, np.float32))
    width = widen_quiet(graph, node, seen)
    assert np.all(width.high - width.low >= BELIEVED / 2 * spread * (1 - 1e-5) - 1e-4)


@settings(max_examples=40, deadline=None)
@given(columns, columns, columns, st.floats(1, 50))
def test_a_lively_range_stays_bit_for_bit(
    gamma: list[float], beta: list[float], ends: list[float], more: float
) -> None:
    graph, node = layer(gamma, beta)
    low = np.array(ends, np.float32)
    high = low + np.float32(more * 1.001 * LIVELY) * np.abs(np.array(gamma, np.float32)) + 1e-3
    got = widen_quiet(graph, node, Ranges(low, high.astype(np.float32)))
    np.testing.assert_array_equal(got.low, low)
    np.testing.assert_array_equal(got.high, high.astype(np.float32))


def test_the_ends_move_continuously() -> None:
    graph, node = layer([1.0] * CHANNELS, [0.0] * CHANNELS)
    widths = np.linspace(0, 5, 500)
    ends = [
        widen_quiet(graph, node, Ranges(np.full(CHANNELS, -w / 2), np.full(CHANNELS, w / 2))).high
        for w in widths
    ]
    assert np.abs(np.diff(np.array(ends)[:, 0])).max() < 0.05


@pytest.mark.parametrize("method", ["repq", "best"])
def test_pictures_that_are_all_one_do_not_stretch_the_class_token(method: str) -> None:
    """Its range is then rounding noise, and gamma shows how far it was stretched."""
    graph = traced("class_token")
    one = pixels(1, seed=1).repeat(8, 1, 1, 1)
    before = {n.name: graph.real(n, "gamma") for n in graph if n.op is OpKind.LAYER_NORM}
    quantize_graph(graph, one, Recipe.parse("w8a8"), get_method(method), MEAN, STD)
    for name, gamma in before.items():
        # The mean range is that of 2 `SPREADS` or less, the narrowest one half of `BELIEVED`.
        stretched = np.abs(graph.real(graph.nodes[name], "gamma") / gamma)
        assert stretched.max() / stretched.min() < 100


def correct(graph: Graph, pictures: UInt8Array, labels: np.ndarray) -> int:
    """How many answers are right, quantizers simulated."""
    parts = torch.from_numpy(np.array(pictures)).split(20)
    module = GraphModule(graph, simulate=True)
    return int((torch.cat([module(part) for part in parts]).argmax(1).numpy() == labels).sum())


@pytest.mark.parametrize(
    ("method", "digit"),
    [("repq", 0), ("repq", 5), ("best", 0), ("best", 6), ("ptq4vit", 0), ("pdquant", 0)],
)
def test_digits_of_one_class_cost_points_and_not_the_model(
    digits_model: torch.nn.Module, method: str, digit: int
) -> None:
    """`minmax` gives 356 or 357 of 360 on each of the ten; without the floor `repq` gives 36."""
    train, test = load_digits_split()
    graph = trace(digits_model, (3, 32, 32))
    images = torch.from_numpy(train.images[train.labels == digit][:32])
    quantize_graph(graph, images, Recipe.parse("w8a8"), get_method(method), MEAN, STD)
    assert correct(graph, test.images, test.labels) >= 356 - 0.03 * 360


def test_the_floor_does_not_bind_on_good_pictures(
    digits_model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = []
    for factor in (1, 1e-30):
        for name, value in (("BELIEVED", BELIEVED), ("LIVELY", LIVELY)):
            monkeypatch.setattr(f"vitq.quantization.ranges.evidence.{name}", factor * value)
        graph = trace(digits_model, (3, 32, 32))
        images = torch.from_numpy(load_digits_split().train.images[:32].copy())
        graphs.append(
            quantize_graph(graph, images, Recipe.parse("w8a8"), get_method("repq"), MEAN, STD)
        )
    first, second = graphs
    assert all(np.array_equal(first.tensors[key], second.tensors[key]) for key in first.tensors)


def crops(path: Path, count: int) -> UInt8Array:
    """Random crops of one picture, scaled to 224."""
    random, found = np.random.RandomState(0), []
    with Image.open(path) as image:
        for _ in range(count):
            side = random.randint(160, 257)
            left, top = random.randint(0, 257 - side, 2)
            box = (left, top, left + side, top + side)
            found.append(np.asarray(image.convert("RGB").crop(box).resize((224, 224))))
    return np.stack(found).transpose(0, 3, 1, 2)


def test_deit_tiny_on_crops_of_one_picture(real_data: Path) -> None:
    """Without the floor 8 of 50 answers are those of the float model."""
    name = "deit_tiny_patch16_224"
    loaded = load_model(name, real_data / f"{name}.safetensors")
    files = sorted((real_data / "imagenet300" / "calib").glob("*.jpg"))
    graph = trace(loaded.module, (3, 224, 224))
    images = torch.from_numpy(crops(files[7], 16).copy())
    prep = loaded.preprocessing
    method = get_method("repq")
    quantize_graph(graph, images, Recipe.parse("w8a8"), method, prep.mean, prep.std)
    others = np.stack([_centre(file) for file in files[-50:]])
    answers = GraphModule(graph, simulate=True)(torch.from_numpy(others)).argmax(1).numpy()
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (prep.mean, prep.std))
    with torch.inference_mode():
        wanted = loaded.module((torch.from_numpy(others) / 255 - mean) / std).argmax(1).numpy()
    same = int((answers == wanted).sum())
    assert same >= 40, same


def _centre(path: Path) -> UInt8Array:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").crop((16, 16, 240, 240))).transpose(2, 0, 1)
