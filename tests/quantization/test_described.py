"""What a model's input means: who says it, what is assumed, and what no model expects."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from vitq.compiler.stages.quantize_options import QuantizeOptions
from vitq.models.timm_compat import import_timm
from vitq.numerics.errors import VitqError
from vitq.quantization.pictures.described import Described, resolve, standard
from vitq.quantization.pictures.preprocessing import (
    Color,
    CropOffset,
    Interpolation,
    Orientation,
    Preprocessing,
    Resize,
    SideRounding,
    check_normalization,
)
from vitq.quantization.pictures.processors import described, read_processor

HALF = (0.5, 0.5, 0.5)
OWN = Described(
    size=(224, 224), mean=HALF, std=HALF, crop_fraction=0.9, resize=Resize.SHORTEST,
    interpolation=Interpolation.BICUBIC,
)  # fmt: skip
VIT = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
CLIP = {
    **VIT,
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
}


@pytest.mark.parametrize(
    ("given", "resize_size", "shape"),
    [
        (Described(), (248, 248), (3, 224, 224)),
        (Described(crop_fraction=1.0), (224, 224), (3, 224, 224)),
        (Described(size=(384, 384)), (426, 426), (3, 384, 384)),
        (Described(size=(128, 256)), (142, 284), (3, 128, 256)),
        (Described(resize=Resize.SQUASH), (248, 248), (3, 224, 224)),
    ],
)
def test_each_field_may_be_said_alone(
    given: Described, resize_size: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    found = resolve(given.over(OWN), "model")
    assert (found.resize_size, found.input_shape) == (resize_size, shape)
    assert (found.mean, found.assumed) == (HALF, ())
    assert found.resize is (given.resize or Resize.SHORTEST)


def test_another_size_scales_what_is_resized_before_the_crop() -> None:
    base = described({**CLIP, "size": {"shortest_edge": 256}}, "clip")
    assert resolve(base, "m").resize_size == (256, 256)
    assert resolve(Described(size=(384, 384)).over(base), "m").resize_size == (438, 438)
    assert resolve(Described(crop_fraction=0.5).over(base), "m").resize_size == (448, 448)


def test_what_nobody_says_is_assumed_and_listed() -> None:
    found = resolve(Described(size=(32, 32), mean=(0.5,), std=(0.25,)), "model")
    assert found.assumed == ("the shortest side is resized", "crop fraction 0.875", "bicubic")
    assert (found.resize_size, found.interpolation) == ((36, 36), "bicubic")
    assert (found.mean, found.std, found.color) == (HALF, (0.25,) * 3, "RGB")


@pytest.mark.parametrize("missing", ["size", "mean", "std"])
def test_what_cannot_be_assumed_is_asked_for(missing: str) -> None:
    fields: dict[str, Any] = {"size": (32, 32), "mean": HALF, "std": HALF, missing: None}
    with pytest.raises(VitqError, match=r"pass --image-size, --mean and --std .* --preprocessor"):
        resolve(Described(**fields), "model")


@pytest.mark.parametrize(("channels", "color"), [(1, Color.L), (3, Color.RGB), (4, Color.RGBA)])
def test_channels_decide_the_colours(channels: int, color: Color) -> None:
    found = resolve(Described(size=(8, 8), channels=channels, mean=(0.5,), std=(0.5,)), "m")
    assert found.color is color and len(found.mean) == len(found.fill) == channels


def test_channels_and_numbers_that_do_not_go_together() -> None:
    with pytest.raises(
        VitqError, match=r"takes 1 channels, .* has 3 numbers: pass --mean and --std of 1"
    ):
        resolve(Described(size=(8, 8), channels=1, mean=HALF, std=HALF), "m")
    with pytest.raises(VitqError, match="takes 3 channels, and color L has 1"):
        resolve(Described(size=(8, 8), channels=3, color=Color.L, mean=HALF, std=HALF), "m")
    with pytest.raises(VitqError, match=r"2 channels, and pictures have 1, 3 or 4: .*\.npy"):
        resolve(Described(size=(8, 8), channels=2, mean=(0.5,), std=(0.5,)), "m")


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (127.5, 127.5, r"into -1 to -0\.9922, .*divide both by 255, 0\.5 and 0\.5"),
        (123.675, 58.395, r"divide both by 255, 0\.485 and 0\.229"),
        (127.5, 1.0, "divide both by 255"),
        (0.5, 127.5, "divide both by 255"),
        (0.5, 0.001, r"into -500 to 500, which no model expects: give both for pixels in \[0, 1\]"),
        (0.5, 0.0, "std > 0"),
        (0.5, -0.5, "std > 0"),
        (math.nan, 0.5, "finite"),
        (0.5, math.inf, "finite"),
        (30.0, 2.0, "divide both"),
        (-3.0, 1.0, "no model expects"),
    ],
)
def test_normalizations_that_no_model_expects_are_named(
    mean: float, std: float, message: str
) -> None:
    with pytest.raises(VitqError, match=message):
        check_normalization((0.5, mean), (0.5, std))
    with pytest.raises(VitqError, match=message):
        standard((3, 8, 8), (mean,) * 3, (std,) * 3)
    with pytest.raises(VitqError, match=message):
        QuantizeOptions(mean=(mean,), std=(std,))


@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 1.0), (0.5, 0.5), (0.485, 0.229), (0.0, 1 / 255), (0.1307, 0.3081)]
)
def test_normalizations_that_models_have(mean: float, std: float) -> None:
    check_normalization((mean,), (std,))


def test_json_and_back() -> None:
    for prep in (standard((3, 32, 64), HALF, HALF), resolve(described(CLIP, "c"), "m")):
        text = json.dumps(prep.to_json())
        assert Preprocessing.from_json(json.loads(text), "file") == prep


@pytest.mark.parametrize(
    "change",
    [
        {"color": "pink"}, {"mean": None}, {"mean": [1, "x", 2]}, {"resize_size": [1]}, {"fill": 3},
        {"input_shape": [3, 0, 5]}, {"std": [0, 0, 0]}, {"rounding": []}, {"input_shape": [1e999]},
        {"fill": [1, 2, 300]}, {"resize_size": "ab"},
    ],
)  # fmt: skip
def test_damaged_json(change: dict[str, Any]) -> None:
    content = {**standard((3, 32, 32), HALF, HALF).to_json(), **change}
    with pytest.raises(VitqError):
        Preprocessing.from_json(content, "manifest.json")
    del content[next(iter(change))]
    with pytest.raises(VitqError, match=r"manifest\.json: its preprocessing is damaged"):
        Preprocessing.from_json(content, "manifest.json")
    with pytest.raises(VitqError, match="quantize again"):
        Preprocessing.from_json([content], "manifest.json")
    with pytest.raises(VitqError, match="does not say how pictures become its input"):
        Preprocessing.from_json(None, "quantize.json")


def test_mean_and_std_of_different_lengths() -> None:
    given = described({**VIT, "image_std": [0.5] * 4}, "p")
    with pytest.raises(VitqError, match="'m': its mean has 3 numbers and its std 4: give one of"):
        resolve(given, "m")
    assert resolve(described({**VIT, "image_std": [0.5]}, "p"), "m").std == HALF


def test_a_size_of_nothing() -> None:
    with pytest.raises(VitqError, match="image size 0 x 8: give at least 1"):
        Described(size=(0, 8))


def test_transformers_processors() -> None:
    vit, clip = (resolve(described(content, "p"), "m") for content in (VIT, CLIP))
    assert (vit.resize, vit.resize_size, vit.interpolation) == ("squash", (224, 224), "bilinear")
    assert (clip.resize, clip.interpolation) == ("shortest", "bicubic")
    for prep in (vit, clip):
        assert prep.mean == HALF and prep.assumed == ()
        assert (prep.rounding, prep.crop_offset) == (SideRounding.FLOOR, CropOffset.FLOOR)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"do_normalize": False}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ({"do_normalize": False, "do_rescale": False}, {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
         {"mean": HALF, "std": HALF}),
        ({"do_flip_channel_order": True}, {"color": "BGR"}),
        ({"size": 224}, {"resize": "squash"}),
        ({"image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor",
          "size": 256, "do_center_crop": True, "crop_size": 224},
         {"resize": "shortest", "resize_size": (256, 256), "input_shape": (3, 224, 224)}),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
         {"resize": "shortest", "resize_size": (256, 256), "input_shape": (3, 224, 224)}),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
         {"resize": "squash", "resize_size": (384, 384)}),
        ({"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 224},
          "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
         {"resize_size": (256, 256), "input_shape": (3, 224, 224)}),
        ({"image_processor_type": "PoolFormerImageProcessor", "crop_pct": 0.95,
          "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
         {"resize": "shortest", "resize_size": (235, 235)}),
        ({"resample": 0}, {"interpolation": "nearest"}),
        ({"resample": 1}, {"interpolation": "lanczos"}),
    ],
)  # fmt: skip
def test_kinds_of_processors(change: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = resolve(described({**VIT, **change}, "p"), "m")
    for name, value in wanted.items():
        assert getattr(found, name) == pytest.approx(value), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": {"shortest_edge": 224}}, "no fixed size"),
        (
            {"size": {"shortest_edge": 800, "longest_edge": 1333}},
            "a size of longest_edge, shortest",
        ),
        ({"image_processor_type": "XImageProcessor", "size": 224}, "short side or both"),
        ({"image_processor_type": "PerceiverImageProcessor"}, "crops before it resizes"),
        ({"do_pad": True, "pad_size": {"height": 1}}, "do_pad pads"),
        ({"keep_aspect_ratio": True}, "keep_aspect_ratio"),
        ({"do_center_crop": True}, "without a crop_size"),
        ({"resample": "sinc"}, "filter 'sinc' is none of bicubic"),
        ({"image_mean": None}, "do_normalize without image_mean"),
        ({"image_mean": "x"}, "cannot be read as an image processor"),
        ({"size": {"height": "a", "width": 3}}, "cannot be read as an image processor"),
    ],
)
def test_what_a_processor_says_and_cannot_be_done(change: dict[str, Any], message: str) -> None:
    with pytest.raises(VitqError, match=message):
        described({**VIT, **change}, "p")


def test_an_unknown_processor_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        described({**VIT, "image_processor_type": "MyImageProcessor"}, "p")
    assert "a processor of kind 'my' is not known here" in caplog.text


class Processor:
    """As transformers' are: without importing them."""

    def to_dict(self) -> dict[str, Any]:
        """Its fields."""
        return dict(CLIP)


def test_objects_in_hand() -> None:
    assert described(Processor(), "p") == described(CLIP, "p")
    own = {"crop_fraction": 1, "resize": "squash", "color": "BGR", "orientation": "apply"}
    assert described(own, "p") == Described(
        crop_fraction=1.0, resize=Resize.SQUASH, color=Color.BGR, orientation=Orientation.APPLY
    )
    for wrong in (3, object(), {"resize": "huge"}, {"foo": 1}, {}):
        with pytest.raises(VitqError):
            described(wrong, "p")


def test_resizes_that_cannot_be_said() -> None:
    import_timm()
    from timm.data.transforms import ResizeKeepRatio
    from torchvision.transforms import Compose, Resize

    with pytest.raises(VitqError, match=r"ResizeKeepRatio with longest=0\.5 is neither side"):
        described(Compose([ResizeKeepRatio(32, longest=0.5)]), "p")
    with pytest.raises(VitqError, match="a Resize with max_size cannot be said here"):
        described(Compose([Resize(32, max_size=64)]), "p")


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    with pytest.raises(VitqError, match=r"holds no preprocessor_config\.json or config\.json"):
        read_processor(tmp_path)
    with pytest.raises(VitqError, match="no processor lies there: give preprocessor_config"):
        read_processor(file)
    damaged = r"--preprocessor .* cannot be read as JSON"
    for text, message in (("{", damaged), ("[" * 100_000, damaged), ("\xff", damaged),
                          ("[]", "list and no object"), ("{}", "says nothing of")):  # fmt: skip
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(VitqError, match=message):
            read_processor(file)
    file.write_text(json.dumps(CLIP))
    assert read_processor(tmp_path) == read_processor(file) == described(CLIP, "p")
    file.unlink()
    timms = {"input_size": [3, 96, 96], "mean": HALF, "std": HALF, "crop_pct": 0.95}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": timms}))
    assert resolve(read_processor(tmp_path), "m").resize_size == (101, 101)
