"""What models and the files beside their weights say of their pictures."""

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from tests.quantization.test_described import CLIP, HALF, VIT, Processor
from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.models.timm_compat import import_timm
from vitq.quantization.pictures.described import Described, resolve, standard
from vitq.quantization.pictures.inputs import input_of, own_description
from vitq.quantization.pictures.preprocessing import (
    Interpolation,
    Orientation,
)
from vitq.quantization.pictures.processors import described


def test_options_come_before_a_processors_file(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(CLIP))
    options = QuantizeOptions(
        preprocessor=tmp_path / "p.json",
        crop_fraction=1.0,
        interpolation=Interpolation.BOX,
        orientation=Orientation.APPLY,
        std=(0.25, 0.25, 0.25),
    )
    found = resolve(options.described, "m")
    assert (found.resize_size, found.interpolation) == ((224, 224), "box")
    assert (found.mean, found.std, found.orientation) == (HALF, (0.25,) * 3, "apply")


class Tiny(nn.Module):
    """Says nothing but what it is built for."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.image_size = 16
        self.conv = nn.Conv2d(channels, 4, 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.conv(x).mean((2, 3))


def test_a_size_that_the_model_was_not_built_for_is_said(caplog: pytest.LogCaptureFixture) -> None:
    said = Described(size=(32, 24), mean=(0.5,), std=(0.5,))
    with caplog.at_level(logging.WARNING):
        assert input_of("m", Tiny(), said).input_shape == (3, 32, 24)
    assert "m was built for 16 x 16, and its input is to be 32 x 24" in caplog.text


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_size_and_channels_are_the_modules(channels: int) -> None:
    given = Described(mean=(0.5,), std=(0.5,))
    assert input_of("m", Tiny(channels), given).input_shape == (channels, 16, 16)


def test_a_timm_model_says_all_of_it(caplog: pytest.LogCaptureFixture) -> None:
    timm = import_timm()
    model = timm.create_model("vit_tiny_patch16_384", num_classes=2)
    with caplog.at_level(logging.INFO):
        found = input_of("vit_tiny_patch16_384", model)
    assert (found.resize_size, found.input_shape) == ((384, 384), (3, 384, 384))
    assert "short side to 384 (bicubic)" in caplog.text and "pretrained_cfg" in caplog.text
    other = timm.create_model("vit_tiny_patch16_384", num_classes=2, img_size=(64, 128))
    assert input_of("x", other).input_shape == (3, 64, 128)
    assert input_of("x", other).resize_size == (64, 128)


def test_a_file_beside_the_weights_comes_before_the_model(tmp_path: Path) -> None:
    module = Tiny()
    module.pretrained_cfg = {  # type: ignore[assignment]
        "input_size": (3, 16, 16), "mean": HALF, "std": (0.25,) * 3, "crop_pct": 0.875,
    }  # fmt: skip
    (tmp_path / "config.json").write_text("{}")  # transformers' own says nothing of pictures
    weights = tmp_path / "model.safetensors"
    assert input_of("m", module, None, weights).std == (0.25,) * 3
    small = {**VIT, "size": {"height": 16, "width": 16}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(small))
    found = input_of("m", module, None, weights)
    assert (found.resize, found.std) == ("squash", HALF)
    assert own_description("m", module, weights)[1].endswith("preprocessor_config.json")


def test_torchvisions_models_have_its_weights_transforms() -> None:
    import_timm()
    import torchvision.models

    model = torchvision.models.vit_b_32(num_classes=2)
    found = input_of("torchvision.models:vit_b_32", model)
    assert (found.resize_size, found.interpolation) == ((256, 256), "bilinear")
    assert found.mean == (0.485, 0.456, 0.406) and found.assumed == ()


def test_a_whole_stands_as_it_is() -> None:
    prep = standard((3, 8, 8), HALF, HALF)
    assert input_of("m", Tiny(), prep) is prep
    assert asdict(prep)["assumed"]


def test_a_module_of_that_name_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are read by their shape: transformers need not be there."""
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    assert described(Processor(), "p").size == (224, 224)
