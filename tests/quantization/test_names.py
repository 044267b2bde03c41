"""Names of models as timm, Hugging Face and people spell them."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.quantization.test_weights import fresh, hugging_face, source
from tests.quantization.vits import DEFAULTS
from vitq.numerics.errors import VitqError
from vitq.quantization.model.models import load_model
from vitq.quantization.model.names import folder_name, model_folder, parse_kwargs

TINY = {k: v for k, v in DEFAULTS.items() if k != "num_classes"}
CONFIG = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "id2label": {str(i): f"class {i}" for i in range(7)},
}
PROCESSOR = {
    "size": {"height": 32, "width": 32},
    "do_resize": True,
    "do_normalize": True,
    "resample": 2,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.5, 0.5, 0.5],
}


def write_folder(folder: Path, config: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    """What save_pretrained writes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    safetensors.torch.save_file(state, folder / "model.safetensors")


def timm_config() -> dict[str, Any]:
    """As timm's save_for_hf writes it."""
    pretrained = {"input_size": [3, 32, 32], "mean": [0.1] * 3, "std": [0.2] * 3}
    return {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 7,
        "model_args": TINY,
        "pretrained_cfg": pretrained,
    }


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_a_folder_is_a_model_with_weights(kind: str, tmp_path: Path) -> None:
    config, state = (
        (timm_config(), source().state_dict()) if kind == "timm" else (CONFIG, hugging_face())
    )
    write_folder(tmp_path / "saved", config, state)
    model = load_model(f"local-dir:{tmp_path / 'saved'}")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.module(x), source()(x))
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)
    assert model.preprocessing.input_shape == (3, 32, 32)


def test_a_repository_is_taken_from_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    name = "hf-hub:someone/tiny"
    with pytest.raises(
        VitqError, match=r"not in Hugging Face's local cache.* hf download someone/t"
    ):
        load_model(name)
    repository = tmp_path / "models--someone--tiny"
    write_folder(repository / "snapshots" / "abc", timm_config(), source().state_dict())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network is used"))
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(load_model(name).module(x), source()(x))
    assert torch.equal(load_model(f"{name}@main").module(x), source()(x))
    with pytest.raises(VitqError, match="give hf-hub:ORG/NAME"):
        load_model("hf-hub:a b/c/d")


REFUSED = {
    "x" * 5000: "model 'xxx",
    "local-dir:none": "none is no folder: give the folder that save_pretrained",
    "hf:": "model 'hf:' names nothing: give hf:FOLDER",
    "local-dir: ": "model 'local-dir: ' names nothing: give local-dir:FOLDER",
    "hf-hub:": "model 'hf-hub:' names nothing: give hf-hub:ORG/NAME of the local cache",
    "vit_tiny_patch16_224.nosuchtag": "no tag 'nosuchtag' of vit_tiny_patch16_224: give one of aug",
    "timm/vit_tinny_patch16_224": "did you mean vit_tiny_patch16_224",
    "google/vit-base-patch16-224": "local cache hf-hub:google/vit-base-patch16-224",
    "tests": "is a folder: give local-dir:tests",
    "pyproject.toml": "model 'pyproject.toml' is a file, not a name: give --weights pyproject.toml",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_there_is_said_with_what_is_near(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    with pytest.raises(VitqError) as raised:
        load_model(name, seed=0)
    assert REFUSED[name] in str(raised.value)


def test_arguments_reach_timm() -> None:
    assert parse_kwargs(["img_size=32", "qk_norm=True", "act_layer=gelu_tanh"]) == (
        ("act_layer", "gelu_tanh"), ("img_size", 32), ("qk_norm", True),
    )  # fmt: skip
    with pytest.raises(VitqError, match="give key=value, such as img_size=384"):
        parse_kwargs(["img_size"])
    model = load_model("vit_tiny_patch16_224", seed=0, arguments={**DEFAULTS, "num_classes": 3})
    assert model.module(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert model.preprocessing.input_shape == (3, 32, 32)
    with pytest.raises(VitqError, match=r"timm refused nonsense=1: .*nonsense"):
        load_model("vit_tiny_patch16_224", seed=0, arguments={"nonsense": 1})
    with pytest.raises(VitqError, match="'digits_vit' takes no arguments"):
        load_model("digits_vit", arguments={"num_classes": 3})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["SwinModel"]}, "describes SwinModel: taken are timm's models and ViTF"),
        ({**CONFIG, "hidden_size": None}, "is incomplete"),
        ({k: v for k, v in CONFIG.items() if k != "patch_size"}, "is incomplete: patch_size"),
        ([], "holds a JSON list and no object: download it again"),
        ({"architecture": "no_such_net"}, "timm refused"),
    ],
)
def test_configurations_that_cannot_be_built(config: Any, said: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "saved", config, source().state_dict())
    with pytest.raises(VitqError) as raised:
        load_model(f"local-dir:{tmp_path / 'saved'}")
    assert said in str(raised.value)


def test_a_configuration_that_is_no_json(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    write_folder(folder, {}, source().state_dict())
    (folder / "config.json").write_text("<html>")
    with pytest.raises(
        VitqError, match=r"the configuration .*config\.json cannot be read as JSON: Expecting"
    ):
        load_model(f"local-dir:{folder}")


def test_folders_of_artifacts_are_plain_and_never_shared(tmp_path: Path) -> None:
    assert folder_name("vit_tiny_patch16_224.augreg") == "vit_tiny_patch16_224.augreg"
    assert folder_name("timm/vit_tiny") == "vit_tiny"
    assert folder_name("a.b:c") == "a.b.c"
    assert folder_name("hf-hub:org/name@main") == "hf-hub.org.name.main"
    first, second = (folder_name(f"local-dir:{tmp_path / p / 'model'}") for p in "ab")
    assert first != second and first.startswith("model-") and "/" not in first
    assert model_folder("vit_tiny") is None and model_folder("a.b:c") is None


def test_the_head_of_a_checkpoint_decides_with_the_option(tmp_path: Path) -> None:
    torch.save(source().state_dict(), tmp_path / "w.pth")
    arguments = {**TINY, "num_classes": 7}
    model = load_model("vit_tiny_patch16_224", tmp_path / "w.pth", arguments=arguments)
    assert torch.equal(model.module.state_dict()["head.bias"], source().state_dict()["head.bias"])
    assert fresh().state_dict()["head.bias"].shape == (7,)
