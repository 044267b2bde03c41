"""Other libraries' names of a Vision Transformer's weights, as timm's.

    vit.encoder.layer.0.attention.attention.query.weight   Hugging Face   \
    backbone.layers.0.attn.qkv.weight                      mmpretrain      blocks.0.attn.qkv.weight
    encoder.layers.encoder_layer_0...in_proj_weight        torchvision    /

Each layout is a list of rewrites, of which the first that matches the whole name counts; a name
that none matches stays. Query, key and value that lie apart are put together in this order, as
timm's one matrix holds them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

PARTS = ("query", "key", "value")


@dataclass(frozen=True)
class Layout:
    """How a library calls what timm calls otherwise.

    Attributes:
        library: whose names these are.
        mark: a regular expression for names that only it has.
        rewrites: whole name -> timm's name; ``qkv#query`` is a part of a matrix.
    """

    library: str
    mark: str
    rewrites: tuple[tuple[str, str], ...]

    def rename(self, name: str) -> str:
        """Return timm's name of a weight."""
        for pattern, replacement in self.rewrites:
            found = re.fullmatch(pattern, name)
            if found:
                return found.expand(replacement)
        return name


_HF_BLOCK = r"(?:\w+\.)?(?:encoder\.layer|layers)\.(\d+)\."
_MM_BLOCK = r"(?:backbone\.)?layers\.(\d+)\."
_TV_BLOCK = r"encoder\.layers\.encoder_layer_(\d+)\."
LAYOUTS = (
    Layout(
        "Hugging Face",
        r".*(attention\.attention\.query|attention\.q_proj)\.weight",
        (
            (r"(?:\w+\.)?embeddings\.cls_token", "cls_token"),
            (r"(?:\w+\.)?embeddings\.distillation_token", "dist_token"),
            (r"(?:\w+\.)?embeddings\.position_embeddings", "pos_embed"),
            (r"(?:\w+\.)?embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
            (
                rf"{_HF_BLOCK}attention\.attention\.(query|key|value)\.(\w+)",
                r"blocks.\1.attn.qkv#\2.\3",
            ),
            (rf"{_HF_BLOCK}attention\.q_proj\.(\w+)", r"blocks.\1.attn.qkv#query.\2"),
            (rf"{_HF_BLOCK}attention\.k_proj\.(\w+)", r"blocks.\1.attn.qkv#key.\2"),
            (rf"{_HF_BLOCK}attention\.v_proj\.(\w+)", r"blocks.\1.attn.qkv#value.\2"),
            (rf"{_HF_BLOCK}attention\.(?:output\.dense|o_proj)\.(\w+)", r"blocks.\1.attn.proj.\2"),
            (rf"{_HF_BLOCK}(?:intermediate\.dense|mlp\.fc1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
            (rf"{_HF_BLOCK}(?:output\.dense|mlp\.fc2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
            (rf"{_HF_BLOCK}(?:layernorm_before|norm1)\.(\w+)", r"blocks.\1.norm1.\2"),
            (rf"{_HF_BLOCK}(?:layernorm_after|norm2)\.(\w+)", r"blocks.\1.norm2.\2"),
            (rf"{_HF_BLOCK}layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
            (r"(?:\w+\.)?layernorm\.(\w+)", r"norm.\1"),
            (r"(?:cls_)?classifier\.(\w+)", r"head.\1"),
            (r"distillation_classifier\.(\w+)", r"head_dist.\1"),
        ),
    ),
    Layout(
        "mmpretrain",
        r"(backbone\.)?layers\.\d+\.ffn\.layers\.0\.0\.weight",
        (
            (rf"{_MM_BLOCK}ln([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
            (rf"{_MM_BLOCK}ffn\.layers\.0\.0\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
            (rf"{_MM_BLOCK}ffn\.layers\.1\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
            (rf"{_MM_BLOCK}attn\.gamma1\.weight", r"blocks.\1.ls1.gamma"),
            (rf"{_MM_BLOCK}ffn\.gamma2\.weight", r"blocks.\1.ls2.gamma"),
            (rf"{_MM_BLOCK}(attn\..+)", r"blocks.\1.\2"),
            (r"(?:backbone\.)?patch_embed\.projection\.(\w+)", r"patch_embed.proj.\1"),
            (r"(?:backbone\.)?ln1\.(\w+)", r"norm.\1"),
            (r"(?:backbone\.)?ln2\.(\w+)", r"fc_norm.\1"),
            (r"backbone\.(\w+)", r"\1"),
            (r"head\.(?:layers\.)?head\.(\w+)", r"head.\1"),
            (r"head\.(?:layers\.)?head_dist\.(\w+)", r"head_dist.\1"),
            (r"head\.fc\.(\w+)", r"head.\1"),
        ),
    ),
    Layout(
        "torchvision",
        r"encoder\.layers\.encoder_layer_\d+\.self_attention\.in_proj_weight",
        (
            (r"class_token", "cls_token"),
            (r"conv_proj\.(\w+)", r"patch_embed.proj.\1"),
            (r"encoder\.pos_embedding", "pos_embed"),
            (rf"{_TV_BLOCK}ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
            (rf"{_TV_BLOCK}self_attention\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
            (rf"{_TV_BLOCK}self_attention\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
            (rf"{_TV_BLOCK}mlp\.(?:0|linear_1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
            (rf"{_TV_BLOCK}mlp\.(?:3|linear_2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
            (r"encoder\.ln\.(\w+)", r"norm.\1"),
            (r"heads\.head\.(\w+)", r"head.\1"),
        ),
    ),
)


def to_timm(state: Mapping[str, torch.Tensor]) -> tuple[str, dict[str, torch.Tensor]] | None:
    """Give weights timm's names.

    Args:
        state: name -> tensor.

    Returns:
        Whose names they had, and the weights; None for a layout that is not known.
    """
    for layout in LAYOUTS:
        if any(re.fullmatch(layout.mark, name) for name in state):
            renamed = {layout.rename(name): tensor for name, tensor in state.items()}
            return layout.library, _joined(renamed)
    return None


def _joined(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put ``qkv#query``, ``qkv#key`` and ``qkv#value`` together; what lacks a part stays apart."""
    joined: dict[str, torch.Tensor] = {}
    for name in state:
        if "#query" not in name:
            continue
        parts = [state.get(name.replace("#query", f"#{part}")) for part in PARTS]
        found = [part for part in parts if part is not None]
        if len(found) == len(PARTS) and len({part.shape[1:] for part in found}) == 1:
            joined[name.replace("#query", "")] = torch.cat(found)
    whole = {name.replace(".qkv.", f".qkv#{part}.") for name in joined for part in PARTS}
    return {**{name: v for name, v in state.items() if name not in whole}, **joined}
