"""Calibration pictures without data, on small models."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.quantization.vits import MEAN, SHAPE, STD, toy, traced
from vitq.models.digits_vit import MEAN as DIGITS_MEAN
from vitq.models.digits_vit import STD as DIGITS_STD
from vitq.numerics.errors import VitqError
from vitq.quantization.datafree import psaq2
from vitq.quantization.datafree.descent import LEARNING_RATE, Normalization, learning_rate
from vitq.quantization.datafree.patches import find_patches
from vitq.quantization.datafree.psaq import gaussian_noise, psaq_pictures
from vitq.quantization.datafree.psaq2 import discrepancy, psaq2_pictures, straight_through
from vitq.quantization.datafree.request import Request
from vitq.quantization.datafree.sources import SOURCES, generate
from vitq.quantization.datafree.teacher import Teacher
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.identity import graph_hash
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.methods import get_method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.observers import QScheme, activation_qparams
from vitq.quantization.run.fake_quantize import fake_quantize

CPU = torch.device("cpu")
SPANS = {
    "class_token": (1, 16),
    "registers": (3, 16),
    "distilled": (2, 16),
    "mean_without_class_token": (0, 16),
    "unfused_attention": (1, 16),
    "normalized_query_and_key": (1, 16),
}


def request(seed: int = 0, count: int = 3, steps: int = 12) -> Request:
    return Request(count, seed, steps, MEAN, STD, CPU)


def silent(steps, title, count):  # type: ignore[no-untyped-def]
    return steps


@pytest.fixture(scope="module")
def graph() -> Graph:
    return traced("class_token")


@pytest.fixture(scope="module")
def digits(digits_model: torch.nn.Module) -> Graph:
    return trace(digits_model, SHAPE)


@pytest.mark.parametrize("variant", list(SPANS))
def test_patches_are_found_by_structure(variant: str) -> None:
    graph = traced(variant)
    probe = find_patches(graph)
    assert (probe.start, probe.count) == SPANS[variant]
    assert len(probe.blocks) == 2
    for name in probe.blocks:
        assert graph.nodes[name].op is OpKind.LINEAR
        assert graph.nodes[name].shape == (1, sum(SPANS[variant]), 24)


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(VitqError, match="no softmax attention"):
        find_patches(trace(toy(), SHAPE))


def test_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(step, 50) for step in range(50)]
    assert rates[9] == rates[10] == LEARNING_RATE == max(rates)
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.01 * LEARNING_RATE
    assert learning_rate(0, 1) == LEARNING_RATE


@pytest.mark.parametrize("name", list(SOURCES))
def test_a_seed_gives_the_same_pictures_and_another_one_others(name: str, graph: Graph) -> None:
    before = graph_hash(graph)

    def run(seed: int) -> np.ndarray:
        asked = request(seed, steps=4)
        return generate(name, asked, graph, Recipe(), get_method("minmax"), silent)

    first = run(1)
    assert first.shape == (3, *SHAPE) and first.dtype == np.uint8
    assert np.array_equal(first, run(1))
    assert not np.array_equal(first, run(2))
    assert len({picture.tobytes() for picture in first}) == 3
    assert graph_hash(graph) == before


def test_noise_is_standard_normal_in_normalized_units(graph: Graph) -> None:
    pixels = generate("noise", request(count=64), graph, Recipe(), get_method("repq"), silent)
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    values = (pixels / 255 - mean) / std
    assert np.abs(values.mean(axis=(0, 2, 3))).max() < 0.05
    assert np.abs(values.std(axis=(0, 2, 3)) - 1).max() < 0.1  # clipped to [0, 255]


def test_psaq_raises_the_entropy_and_finds_its_classes(digits: Graph) -> None:
    asked = dataclasses.replace(request(count=4, steps=40), mean=DIGITS_MEAN, std=DIGITS_STD)
    made = psaq_pictures(asked, digits, silent)
    teacher, normalization = Teacher(digits, CPU), Normalization.of(asked)
    x = (torch.from_numpy(made).float() / 255 - normalization.mean) / normalization.std
    with torch.no_grad():
        logits, entropy = teacher(x)
        noise_logits, noise_entropy = teacher(gaussian_noise(asked, digits))
    assert entropy.mean() > noise_entropy.mean() + 1
    classes = np.random.RandomState(asked.seed + 1).permutation(10)[:4]
    chosen = torch.log_softmax(logits, 1)[range(4), classes]
    assert chosen.mean() > torch.log_softmax(noise_logits, 1)[range(4), classes].mean() + 1


def test_psaq2_goes_where_the_student_differs(
    digits: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the discrepancy in the loss the student is worse on the pictures than without.

    In 40 steps the usual weight shows by 1 to 43 %, ten times as much by 24 to 67 % (three seeds).
    """
    monkeypatch.setattr(psaq2, "CYCLES", 1)  # one student, the same for both
    asked = dataclasses.replace(request(count=4, steps=40), mean=DIGITS_MEAN, std=DIGITS_STD)
    recipe, method = Recipe(2, 4), get_method("minmax")
    normalization = Normalization.of(asked)
    start = normalization.pixels(gaussian_noise(asked, digits))
    student = psaq2._student(asked, digits, recipe, method, start)

    def apart(weight: float) -> float:
        monkeypatch.setattr(psaq2, "DISCREPANCY_WEIGHT", weight)
        pixels = torch.from_numpy(psaq2_pictures(asked, digits, recipe, method, silent)) / 255
        with torch.no_grad():
            x = (pixels - normalization.mean) / normalization.std
            logits, _ = Teacher(digits, CPU)(x)
            return float(discrepancy(logits, student(pixels)).mean())

    assert apart(10.0) > 1.2 * apart(0.0)


def test_discrepancy_is_the_mean_difference_over_the_spread() -> None:
    teacher, student = np.random.RandomState(0).normal(size=(2, 3, 5)).astype(np.float32)
    found = discrepancy(torch.from_numpy(teacher), torch.from_numpy(student)).numpy()
    for i in range(3):
        expected = np.abs(teacher[i] - student[i]).sum() / 5 / np.std(teacher[i], ddof=1)
        assert found[i] == pytest.approx(expected, rel=1e-5)


def test_gradients_pass_quantizers() -> None:
    x = torch.linspace(-2, 2, 41).requires_grad_()
    qparams = activation_qparams(-1, 1, 4, QScheme.SYMMETRIC)
    node = Node("x", OpKind.ADD, (), (41,), 0, out=qparams)
    y = straight_through(node, x)
    assert torch.allclose(y, fake_quantize(x, qparams), atol=1e-6)
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones(41))


def test_hash_tells_weights_and_structure_apart(graph: Graph) -> None:
    other = traced("class_token")
    assert graph_hash(other) == graph_hash(graph)
    key = next(key for key in other.tensors if key.endswith("weight"))
    other.tensors[key] = other.tensors[key] + np.float32(1e-6)
    assert graph_hash(other) != graph_hash(graph)
    assert graph_hash(traced("eps")) != graph_hash(graph)
