"""Random weights that nobody asked for: refused, or said with what is random."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from vitq.compiler.stages.quantize import quantize
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.numerics.errors import VitqError
from vitq.quantization.model import randomness
from vitq.quantization.model.randomness import check_learned, random_parameters


def network(learned: bool = True) -> nn.Module:
    """Patches, a norm and a head, as if trained, or not."""
    module = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Flatten(2), nn.LayerNorm(16), nn.Flatten(1))
    module.append(nn.Linear(128, 5))
    if learned:
        numbers = torch.Generator().manual_seed(5)
        for value in module.parameters():
            value.data = torch.randn(value.shape, generator=numbers)
    return module


def new_head() -> nn.Module:
    """Learned, but for the head."""
    module = network()
    nn.init.normal_(module[4].weight)
    return module


def seeded() -> nn.Module:
    """The same random weights at each call."""
    torch.manual_seed(3)
    return network(learned=False)


def broken_the_second_time() -> nn.Module:
    raise VitqError("it is registered already")


def as_factory(monkeypatch: pytest.MonkeyPatch, build: Callable[[], nn.Module]) -> None:
    monkeypatch.setattr(randomness, "build", lambda name, arguments: build())


@pytest.mark.parametrize(
    ("build", "random"),
    [
        (network, []),
        (new_head, ["4.weight"]),
        (lambda: network(learned=False), ["0.weight", "0.bias", "4.weight", "4.bias"]),
        (seeded, []),
    ],
)
def test_what_is_random_is_found(
    build: Callable[[], nn.Module], random: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_factory(monkeypatch, build)
    module, before = build(), torch.random.get_rng_state()
    assert random_parameters("m:f", module) == random
    assert build is seeded or torch.equal(torch.random.get_rng_state(), before)


def test_a_factory_that_cannot_be_called_again_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    as_factory(monkeypatch, broken_the_second_time)
    assert random_parameters("m:f", network()) == []


def test_a_random_part_and_untouched_norms_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(randomness, "MOST", 0.9)
    as_factory(monkeypatch, new_head)
    check_learned("m:f", new_head(), is_made_again=True)
    assert "m:f: 1 of 6 parameters (4.weight) are random, others at each call" in caplog.text
    caplog.clear()
    check_learned("m", network(), is_made_again=False)
    assert caplog.text == ""
    as_factory(monkeypatch, seeded)
    check_learned("m:f", seeded(), is_made_again=True)
    assert "the weights of its norms (1) are 1 and their biases 0, as before any" in caplog.text


def test_a_factory_of_random_weights_is_refused_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = "tests.compiler.factories:plain"
    options = QuantizeOptions.parse(
        model=model, calib="noise", calib_count=2, method="minmax", artifacts=tmp_path
    )
    said = r"has random weights: \d+ of \d+ parameters \(cls_token, pos_embed, .* more\) are others"
    with pytest.raises(VitqError, match=said):
        quantize(options)
    assert not list(tmp_path.rglob("quantize.json"))
    with caplog.at_level(logging.WARNING):
        quantize(QuantizeOptions.parse(
            model=model, calib="noise", calib_count=2, method="minmax", artifacts=tmp_path,
            random_weights=0,
        ))  # fmt: skip
    assert "others at each call" not in caplog.text and "before any" not in caplog.text
