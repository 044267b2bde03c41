"""Weights in every trainer's layout are found, fitted and named; other values are refused."""

import argparse
import logging
from collections import OrderedDict, defaultdict
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.quantization.vits import DEFAULTS, Toy, distilled, vit
from vitq.models.timm_compat import import_timm
from vitq.numerics.errors import VitqError
from vitq.quantization.model.weights import load_weights, read_weights

State = dict[str, torch.Tensor]
ARGS = argparse.Namespace(lr=1e-3, output=Path("out"), started=datetime(2026, 1, 1))


@cache
def source() -> nn.Module:
    """The model whose weights all files hold."""
    return vit()


def fresh(**options: Any) -> nn.Module:
    """Another one of its structure."""
    made: nn.Module = import_timm().create_model("vit_tiny_patch16_224", **{**DEFAULTS, **options})
    return made


def under(prefix: str, state: State | None = None) -> State:
    """The weights with a prefix."""
    return {prefix + k: v for k, v in (state or source().state_dict()).items()}


def hugging_face(old: bool = True) -> State:
    """The weights as Transformers writes them (`old`), or calls them since version 5."""
    block = "vit.encoder.layer" if old else "vit.layers"
    names = {
        "attn.proj": "attention.output.dense" if old else "attention.o_proj",
        "mlp.fc1": "intermediate.dense" if old else "mlp.fc1",
        "mlp.fc2": "output.dense" if old else "mlp.fc2",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
    }
    parts = ("query", "key", "value") if old else ("q_proj", "k_proj", "v_proj")
    top = {
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm": "vit.layernorm",
        "head": "classifier",
    }
    found: State = {}
    for name, tensor in source().state_dict().items():
        stem, _, kind = name.rpartition(".")
        if not name.startswith("blocks."):
            found[top[name] if name in top else f"{top[stem]}.{kind}"] = tensor
            continue
        _, index, inner = stem.split(".", 2)
        if inner == "attn.qkv":
            for part, piece in zip(parts, tensor.chunk(3), strict=True):
                place = f"attention.attention.{part}" if old else f"attention.{part}"
                found[f"{block}.{index}.{place}.{kind}"] = piece.clone()
        else:
            found[f"{block}.{index}.{names[inner]}.{kind}"] = tensor
    return found


def renamed(*pairs: tuple[str, str], prefix: str = "", head: str = "head") -> State:
    """The weights with parts of their names replaced."""
    found: State = {}
    for name, tensor in source().state_dict().items():
        for old, new in pairs:
            name = name.replace(old, new)
        is_head = name.startswith("head.")
        found[name.replace("head", head, 1) if is_head else prefix + name] = tensor
    return found


def mmpretrain() -> State:
    """As mmpretrain's ImageClassifier of a VisionTransformer calls them."""
    return renamed(
        ("norm.", "ln1."), ("blocks.", "layers."), ("norm1", "ln1"), ("norm2", "ln2"),
        ("mlp.fc1", "ffn.layers.0.0"), ("mlp.fc2", "ffn.layers.1"), (".proj.", ".proj."),
        ("patch_embed.proj", "patch_embed.projection"),
        prefix="backbone.", head="head.layers.head",
    )  # fmt: skip


def torchvision() -> State:
    """As torchvision's VisionTransformer calls them."""
    return renamed(
        ("norm.", "encoder.ln."), ("blocks.", "encoder.layers.encoder_layer_"),
        ("norm1", "ln_1"), ("norm2", "ln_2"), ("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.3"),
        ("attn.qkv.", "self_attention.in_proj_"), ("attn.proj", "self_attention.out_proj"),
        ("patch_embed.proj", "conv_proj"), ("cls_token", "class_token"),
        ("pos_embed", "encoder.pos_embedding"), head="heads.head",
    )  # fmt: skip


def noisy(state: State) -> State:
    """Other weights of the same names."""
    return {k: v + 1 for k, v in state.items()}


def layouts() -> dict[str, tuple[Any, str]]:
    """Content of a checkpoint, and what is said of it."""
    own = source().state_dict()
    mlp = {"head.mlp.0.weight": torch.ones(3, 3)}
    adam = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return {
        "timm": (
            {"arch": "vit", "state_dict": own, "state_dict_ema": noisy(own), "optimizer": adam,
             "args": ARGS, "metric": np.float64(0.5), "epoch": 3},
            "also holds state_dict_ema (EMA",
        ),
        "DeiT": (
            {"model": own, "model_ema": noisy(own), "optimizer": adam, "args": ARGS, "epoch": 1},
            "--weights-key model_ema",
        ),
        "MAE": (
            {"model": {**own, "mask_token": torch.zeros(1, 1, 8), "decoder_embed.bias": mlp},
             "args": ARGS}, "of model",
        ),
        "MAE's decoder": (
            {"model": {**own, "mask_token": torch.zeros(1, 1, 8),
                       "decoder_embed.weight": torch.ones(3)}},
            "2 left out: mask_token, decoder_embed.weight",
        ),
        "DINO": (
            {"student": {**under("module.backbone."), **mlp},
             "teacher": {**under("backbone."), **mlp}, "args": ARGS,
             "dino_loss": {"center": torch.zeros(1, 9)}},
            "of teacher; without the prefix backbone.; 1 left out: head.mlp.0.weight",
        ),
        "Lightning": (
            {"state_dict": {**under("model."), "criterion.weight": torch.ones(7)},
             "pytorch-lightning_version": "2.5", "optimizer_states": [adam],
             "hyper_parameters": {"config": ARGS}, "global_step": np.int64(7),
             "callbacks": {"ModelCheckpoint": {"best": torch.tensor(0.5)}}},
            "without the prefix model.; 1 left out: criterion.weight",
        ),
        "Lightning's teacher and student": (
            {"state_dict": {**under("student.net.", noisy(own)), **under("teacher.net.")}},
            "also holds state_dict.student.net",
        ),
        "DistributedDataParallel": (under("module."), "without the prefix module."),
        "torch.compile": (under("_orig_mod."), "tensors of the top level"),
        "torch.compile, of each block": (
            {k.replace("blocks.0.", "blocks.0._orig_mod."): v for k, v in own.items()},
            "32 tensors",
        ),
        "stacked": (under("module._orig_mod.net.encoder."), "prefix module.net.encoder."),
        "AveragedModel": (
            {**under("module."), "n_averaged": torch.tensor(3)}, "1 left out: n_averaged",
        ),
        "Hugging Face": (hugging_face(), "Hugging Face's names as timm's"),
        "Hugging Face, version 5": (hugging_face(old=False), "Hugging Face's names as timm's"),
        "mmpretrain": (
            {"meta": {"epoch": 3}, "state_dict": mmpretrain()}, "mmpretrain's names as timm's",
        ),
        "torchvision": (torchvision(), "torchvision's names as timm's"),
        "nested": ({"checkpoint": {"ckpt": {"net": own}}}, "of checkpoint.ckpt.net"),
        "NumPy": ({"net": {k: v.numpy() for k, v in own.items()}}, "of net"),
        "defaultdict": (defaultdict(list, own), "32 tensors"),
        "beside numbers": ({**own, "epoch": 3, "best": 0.5}, "also in it: epoch, best"),
        "thop": ({**own, "total_ops": torch.zeros(1), "blocks.0.total_params": torch.zeros(1)},
                 "2 left out"),
    }  # fmt: skip


@pytest.mark.parametrize("layout", layouts())
def test_layouts(layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content, said = layouts()[layout]
    path = tmp_path / "w.pth"
    torch.save(content, path)
    module = fresh()
    with caplog.at_level(logging.INFO):
        load_weights(module, path)
    for key, value in source().state_dict().items():
        assert torch.equal(module.state_dict()[key], value), key
    assert said in caplog.text
    assert "optimizer" not in caplog.text


@pytest.mark.parametrize(
    ("key", "added"),
    [("model_ema", 1), ("model", 0), ("teacher.backbone", 2), ("deep.er", 3)],
)
def test_a_key_chooses(key: str, added: int, tmp_path: Path) -> None:
    own = source().state_dict()
    plus = [{k: v + n for k, v in own.items()} for n in range(4)]
    content = {
        "model": plus[0],
        "model_ema": plus[1],
        "teacher": {**under("backbone.", plus[2]), **under("other.")},
        "deep": {"er": plus[3]},
    }
    torch.save(content, tmp_path / "w.pth")
    module = fresh()
    load_weights(module, tmp_path / "w.pth", key)
    assert torch.equal(module.state_dict()["head.bias"], own["head.bias"] + added)


def test_a_trainers_own_tensors_are_no_weights(tmp_path: Path) -> None:
    content = {"random": torch.zeros(9), "losses": np.ones(3), "model": {"w": torch.ones(2)}}
    torch.save(content, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth")) == {"w"}


def test_a_key_that_is_not_there_lists_what_is(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "ema": {"w": torch.ones(2)}}, tmp_path / "w.pth")
    with pytest.raises(VitqError, match=r"no state dict 'modle': did you mean model\? It has"):
        read_weights(tmp_path / "w.pth", "modle")


def refuse(content: Any, tmp_path: Path, module: nn.Module | None = None) -> str:
    """The line with which a checkpoint is refused."""
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(VitqError) as raised:
        load_weights(module or fresh(), tmp_path / "w.pth", named=True)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def misfits() -> dict[str, Any]:
    """What the refusal says -> content."""
    own = source().state_dict()
    headless = {k: v for k, v in own.items() if not k.startswith("head.")}
    weight = own["head.weight"]
    return {
        "has 9 classes: pass --num-classes 9": vit(num_classes=9).state_dict(),
        "the file has no classifier": headless,
        "unexpected: blocks.2.norm1.weight": vit(depth=3).state_dict(),
        "distilled": distilled().state_dict(),
        "this is a quantizer's state": {**own, "head.weight_fake_quant.scale": torch.ones(1)},
        "head.weight holds 1 values that are NaN": {
            **own, "head.weight": torch.where(torch.arange(24) + torch.arange(7)[:, None] == 0,
                                              torch.nan, weight),
        },
        "head.weight is sparse (torch.sparse_coo): save it as tensor.to_dense()": {
            **own, "head.weight": weight.to_sparse(),
        },
        "head.weight is sparse (torch.sparse_csr)": {**own, "head.weight": weight.to_sparse_csr()},
        "has no values (device meta)": {k: v.to("meta") for k, v in own.items()},
        "head.weight is complex": {**own, "head.weight": weight.to(torch.complex64)},
        "holds int8, no floats": {k: v.to(torch.int8) for k, v in own.items()},
        "the file is of another model": {"conv1.weight": torch.ones(3), "bn1.bias": torch.ones(3)},
        "hold no state dict": {0: torch.ones(3), "a": torch.ones(2)},
    }  # fmt: skip


@pytest.mark.parametrize("said", misfits())
def test_misfits_are_refused_with_the_remedy(said: str, tmp_path: Path) -> None:
    assert said in refuse(misfits()[said], tmp_path)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_quantized_tensor_is_refused(tmp_path: Path) -> None:
    state = source().state_dict()
    state["head.weight"] = torch.quantize_per_tensor(state["head.weight"], 0.1, 0, torch.qint8)
    assert "is quantized by torch (qint8): give the float" in refuse(state, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_widths_are_said(
    dtype: torch.dtype, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({k: v.to(dtype) for k, v in source().state_dict().items()}, tmp_path / "w.pth")
    with caplog.at_level(logging.INFO):
        load_weights(module := fresh(), tmp_path / "w.pth")
    assert f"tensors of {str(dtype)[6:]} became float32" in caplog.text
    expected = source().state_dict()["head.weight"].to(dtype).float()
    assert torch.equal(module.state_dict()["head.weight"], expected)


def test_positions_of_another_size_are_resampled_as_timm_does_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"model": under("module.")}, tmp_path / "w.pth")
    module = fresh(img_size=48)
    with caplog.at_level(logging.INFO):
        load_weights(module, tmp_path / "w.pth")
    expected = import_timm().layers.resample_abs_pos_embed(
        source().state_dict()["pos_embed"], [6, 6], num_prefix_tokens=1
    )
    assert torch.equal(module.state_dict()["pos_embed"], expected)
    assert "pos_embed resampled from (1, 17, 24) to (1, 37, 24)" in caplog.text


def test_a_model_of_ones_own_is_not_resampled(tmp_path: Path) -> None:
    state = Toy().state_dict()
    state["last.bias"] = torch.zeros(9)
    assert "last.bias (9,) instead of (5,)" in refuse(state, tmp_path, Toy())


def test_the_models_own_prefix_is_no_hindrance(tmp_path: Path) -> None:
    module = nn.Module()
    module.inner = Toy()
    torch.save(OrderedDict(under("wrapped.inner.", Toy().state_dict())), tmp_path / "w.pth")
    load_weights(module, tmp_path / "w.pth")
