"""Folders of Transformers' models, ``hf:FOLDER``: the same function, or a line."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitq.models.timm_compat import import_timm
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.tracing import trace
from vitq.quantization.model.models import load_model
from vitq.quantization.model.names import folder_name
from vitq.quantization.pictures.described import Described
from vitq.quantization.run.fake_quantize import GraphModule

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 16, "patch_size": 4,
}  # fmt: skip
WITHOUT_MLP = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
WITHOUT_SIZE = {key: value for key, value in SMALL.items() if key != "image_size"}
STAGES = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2],
          "window_size": 4}  # fmt: skip
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViTConfig", "ViTForImageClassification", SMALL),
    "deit": ("DeiTConfig", "DeiTForImageClassificationWithTeacher", SMALL),
    "beit": ("BeitConfig", "BeitForImageClassification",
             SMALL | {"use_relative_position_bias": True}),
    "swin": ("SwinConfig", "SwinForImageClassification", STAGES),
    "swinv2": ("Swinv2Config", "Swinv2ForImageClassification", STAGES),
    "dinov2": ("Dinov2Config", "Dinov2Model", WITHOUT_MLP),
    "registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", WITHOUT_MLP),
    "dinov3": ("DINOv3ViTConfig", "DINOv3ViTModel", SMALL | {"num_register_tokens": 2}),
    "dinov2_gated": ("Dinov2Config", "Dinov2Model", WITHOUT_MLP | {"use_swiglu_ffn": True}),
    "dinov3_gated": ("DINOv3ViTConfig", "DINOv3ViTModel",
                     SMALL | {"use_gated_mlp": True, "hidden_act": "silu"}),
    "clip": ("CLIPVisionConfig", "CLIPVisionModelWithProjection", SMALL),
    "siglip": ("SiglipVisionConfig", "SiglipVisionModel", SMALL),
    "yolos": ("YolosConfig", "YolosForObjectDetection",
              SMALL | {"image_size": [16, 16], "num_detection_tokens": 3}),
    "sam": ("SamVisionConfig", "SamVisionModel",
            {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 24,
             "image_size": 32, "patch_size": 4, "window_size": 3, "global_attn_indexes": [1],
             "output_channels": 8}),
}  # fmt: skip


def installed() -> Any:
    """The package, or a skip."""
    import_timm()  # repairs torchvision
    return pytest.importorskip("transformers", exc_type=ImportError)


def saved(kind: str, folder: Path) -> torch.nn.Module:
    """A small model with weights that matter, written by ``save_pretrained``."""
    transformers = installed()
    config, name, options = MODELS[kind]
    torch.manual_seed(0)
    model: Any = getattr(transformers, name)(getattr(transformers, config)(**options)).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(folder)
    return model  # type: ignore[no-any-return]


def preprocessing(size: int) -> Described:
    return Described(size=(size, size), mean=(0.5,) * 3, std=(0.5,) * 3, channels=3)


def first(result: Any) -> torch.Tensor:
    """The tensor that a result is about."""
    names = ("logits", "image_embeds", "last_hidden_state")
    found = next(getattr(result, name) for name in names if getattr(result, name, None) is not None)
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", MODELS)
def test_the_graph_computes_what_transformers_does(kind: str, tmp_path: Path) -> None:
    model = saved(kind, tmp_path)
    size = int(np.ravel(MODELS[kind][2]["image_size"])[0])
    loaded = load_model(f"hf:{tmp_path}", preprocessing=preprocessing(size))
    graph = trace(loaded.module, (3, size, size))
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = first(model(x)).flatten(1).numpy()
    found = GraphModule(graph)(x).flatten(1)[:, : expected.shape[1]]  # other results follow
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_another_size_resamples_the_positions(kind: str, tmp_path: Path) -> None:
    model = saved(kind, tmp_path)
    loaded = load_model(f"hf:{tmp_path}", preprocessing=preprocessing(24))
    x = torch.randn(2, 3, 24, 24)
    options = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    with torch.no_grad():
        expected = first(model(x, **options)).flatten(1).numpy()
    found = GraphModule(trace(loaded.module, (3, 24, 24)))(x)[:, : expected.shape[1]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_patches_of_a_picture_are_those_of_the_image_processor(tmp_path: Path) -> None:
    """SigLIP2 takes rows of patches, whose positions are resampled to the picture's shape."""
    transformers = installed()
    options = {**WITHOUT_SIZE, "num_patches": 9, "patch_size": 4}
    model = transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**options)).eval()
    torch.nn.init.normal_(model.embeddings.position_embedding.weight)
    model.save_pretrained(tmp_path)
    shape = (8, 20)
    said = Described(size=shape, mean=(0.5,) * 3, std=(0.5,) * 3, channels=3)
    loaded = load_model(f"hf:{tmp_path}", preprocessing=said)
    processor = transformers.Siglip2ImageProcessor(
        patch_size=4, max_num_patches=10, do_resize=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, *shape), dtype=np.uint8)
    with torch.no_grad():
        given = processor(list(torch.from_numpy(pictures)), return_tensors="pt")
        expected = model(**given).last_hidden_state.flatten(1).numpy()
    x = torch.from_numpy(pictures) / 127.5 - 1
    found = GraphModule(trace(loaded.module, (3, *shape)))(x)[:, : expected.shape[1]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    with pytest.raises(VitqError, match="pictures of 8 x 18 are not whole patches of 4: give --im"):
        trace(loaded.module, (3, 8, 18))


def test_of_two_towers_the_one_that_sees_is_taken(tmp_path: Path) -> None:
    transformers = installed()
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 8, "vocab_size": 9}  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=SMALL, projection_dim=6)
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        found = model.get_image_features(x)
    expected = getattr(found, "pooler_output", found).numpy()  # a tensor before Transformers 5
    loaded = load_model(f"hf:{tmp_path}", preprocessing=preprocessing(16))
    found = GraphModule(trace(loaded.module, (3, 16, 16)))(x)[:, :6]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_what_transformers_does_not_know_is_a_line(tmp_path: Path) -> None:
    installed()
    path = tmp_path / "config.json"
    for content, message in (
        ({"model_type": "vit"}, "names no class"),
        ({"model_type": "vit", "architectures": ["ViTForNothing"]}, "has no ViTForNothing"),
        ({"model_type": "nothing"}, "cannot read its configuration"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(VitqError, match=message):
            load_model(f"hf:{tmp_path}", seed=0)
    path.write_text(json.dumps({"model_type": "vit", "architectures": ["ViTModel"]}))
    with pytest.raises(VitqError, match="has no entry 'depth'"):
        load_model(f"hf:{tmp_path}", seed=0, arguments={"depth": 2})
    with pytest.raises(VitqError, match="ViTModel refused it"):
        load_model(f"hf:{tmp_path}", seed=0, arguments={"hidden_size": 7})


def test_weights_that_do_not_fit_are_said_once(tmp_path: Path) -> None:
    """In the project's line, and not in the library's own about what is newly initialized."""
    saved("vit", tmp_path)
    said = Said()
    logging.getLogger("transformers").addHandler(said)
    try:
        with pytest.raises(VitqError, match="classifier has 2 classes: pass --num-classes 2"):
            load_model(
                f"hf:{tmp_path}", None, None, preprocessing(16), arguments={"num_classes": 5}
            )
    finally:
        logging.getLogger("transformers").removeHandler(said)
    assert not said.texts


class Said(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.texts.append(record.getMessage())


def test_a_model_of_text_is_refused_as_one(tmp_path: Path) -> None:
    installed()
    config = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 9}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(VitqError, match="BertModel takes input_ids and no pictures"):
        load_model(f"hf:{tmp_path}", seed=0)


def test_without_transformers_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(VitqError, match=r"needs Transformers: pip install 'vitq\[transformers\]'"):
        load_model(f"hf:{tmp_path}", seed=0)
    assert folder_name(f"hf:{tmp_path}") == folder_name(f"local-dir:{tmp_path}")
