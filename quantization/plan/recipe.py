"""Recipes: which widths, as data.

``w4a8`` is 4-bit weights and 8-bit activations in all layers but the first and the last one, which
keep 8 bits unless the name says otherwise: ``w4a4-first4-last6``. ``w8a8-out8`` has results of 8
bits instead of 16. A file ``NAME.json`` (what
`Recipe.to_json` writes) also gives single layers widths of their own.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

from vitq.numerics.errors import VitqError, nearest, reason
from vitq.numerics.families import Nonlinear

ENDS_BITS = 8
KNOWN = ("w8a8", "w4a8", "w4a4", "w6a6", "w3a8", "w2a8", "mixed")
"""Recipes that people mean when they misspell one."""
LONGEST_VALUE = 40
LARGEST_FILE = 1 << 24
"""Bytes; a recipe of a thousand layers has a hundredth of it."""
_NAME = re.compile(r"w(\d+)a(\d+)(?:-first(\d+))?(?:-last(\d+))?(?:-out(\d+))?")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXAMPLE = '{"weight_bits": 4, "activation_bits": 8}'
_LAYER_EXAMPLE = '{"layer": "blocks_0_mlp_fc1", "weight_bits": 4, "activation_bits": 8}'
_USAGE = (
    "write w<bits>a<bits>, such as w8a8, then perhaps -first<bits>-last<bits>-out<bits>, or "
    "NAME.json"
)


class LayerBits(NamedTuple):
    """Widths of one layer, by the name of its module or node.

    Attributes:
        layer: ``blocks.0.attn.qkv`` or ``linear_3``, see `quantization.graph.origins`.
        weight_bits: of its weights, if it has any.
        activation_bits: of what it reads.
    """

    layer: str
    weight_bits: int
    activation_bits: int


@dataclass(frozen=True)
class Recipe:
    """Bit widths of a quantized model.

    Attributes:
        weight_bits: of linear and convolution weights, per output channel, symmetric.
        activation_bits: of what goes into a matrix product. Stored as int8 whatever they are: no
            dot product reads narrower codes, and packing them would cost more than it saves.
        residual_bits: of the residual stream and of what the nonlinear operators read.
        nonlinear: which integer forms of Softmax and GELU: this project's, or I-ViT's as published
            (for models that were trained with them).
        first_bits: of the weights of the layers that read pixels (the pixels are 8 bits).
        last_bits: of the weights and the input of the layers that make the logits.
        layers: widths of single layers, instead of all of the above.
        output_bits: of the results; None for `residual_bits`.
        label: what the recipe is called instead of its widths.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    residual_bits: int = 16
    nonlinear: Nonlinear = Nonlinear.VITQ
    first_bits: int = ENDS_BITS
    last_bits: int = ENDS_BITS
    layers: tuple[LayerBits, ...] = ()
    output_bits: int | None = None
    label: str = ""

    def __post_init__(self) -> None:
        """Refuse widths that no kernel executes."""
        own = ("weight_bits", "activation_bits", "first_bits", "last_bits")
        widths = [(name, getattr(self, name)) for name in own]
        for bits in self.layers:
            widths += [(f"{name} of {bits.layer}", getattr(bits, name)) for name in own[:2]]
        for name, value in widths:
            _check_bits(name, value, 2, 8)
        _check_bits("residual_bits", self.residual_bits, 8, 16)
        if self.output_bits is not None:
            _check_bits("output_bits", self.output_bits, 8, 16)
        object.__setattr__(self, "nonlinear", Nonlinear.parse(self.nonlinear))
        if self.label and not _LABEL.fullmatch(self.label):
            raise VitqError(f"a recipe called {self.label!r}: use letters, digits, '.', '_', '-'")

    @classmethod
    def parse(cls, name: str, nonlinear: Nonlinear = Nonlinear.VITQ) -> "Recipe":
        """Read a name such as ``w8a8`` or ``w4a4-first4``, or a file ``NAME.json``."""
        if name.endswith(".json"):
            return cls._load(Path(name), nonlinear)
        match = _NAME.fullmatch(name)
        if match is None:
            raise VitqError(f"recipe {name!r} is unknown{nearest(name, KNOWN)}: {_USAGE}")
        first, last = (int(bits) if bits else ENDS_BITS for bits in match.groups()[2:4])
        widths = int(match[1]), int(match[2])
        out = int(match[5]) if match[5] else None
        return cls(*widths, nonlinear=nonlinear, first_bits=first, last_bits=last, output_bits=out)

    @classmethod
    def _load(cls, path: Path, nonlinear: Nonlinear) -> "Recipe":
        """Read a file; it is called like the file."""
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise VitqError(f"{path} is no recipe: it is larger than {LARGEST_FILE} bytes")
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
        except (OSError, ValueError, RecursionError) as error:
            raise VitqError(
                f"{path} is no recipe: it cannot be read as JSON: {reason(error)}"
            ) from error
        if not isinstance(content, dict):
            raise VitqError(f"{path} is no recipe: give an object such as {_EXAMPLE}")
        try:
            layers = tuple(_layer(bits) for bits in _listed(content.pop("layers", [])))
            content.pop("name", None)
            _check_keys(content, [field.name for field in fields(cls)])
            given = content | {"layers": layers, "label": path.stem, "nonlinear": nonlinear}
            return cls(**given)
        except VitqError as error:
            raise VitqError(f"the recipe {path} is refused: {error}") from error

    @property
    def name(self) -> str:
        """Its label, or what `parse` reads; a hash stands for layers without a label."""
        if self.label:
            return self.label
        name = f"w{self.weight_bits}a{self.activation_bits}"
        name += f"-first{self.first_bits}" if self.first_bits != ENDS_BITS else ""
        name += f"-last{self.last_bits}" if self.last_bits != ENDS_BITS else ""
        name += f"-out{self.output_bits}" if self.output_bits is not None else ""
        if not self.layers:
            return name
        return f"{name}-mixed-{hashlib.sha256(repr(self.layers).encode()).hexdigest()[:8]}"

    def to_json(self) -> dict[str, Any]:
        """All fields and the name, for an artifact's metadata and for a file."""
        layers = [bits._asdict() for bits in self.layers]
        return asdict(self) | {"name": self.name, "layers": layers}


def _check_bits(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is no whole number in its bounds."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or not low <= value <= high:  # type: ignore[operator]
        shown = repr(value)
        shown = shown if len(shown) <= LONGEST_VALUE else f"{shown[:LONGEST_VALUE]}..."
        raise VitqError(f"{name} is {shown}: choose {low} to {high}, a whole number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON; a key that is there twice would silently lose one of its values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _listed(layers: object) -> list[Any]:
    if not isinstance(layers, list):
        raise VitqError("layers is no list: give one object for each layer")
    return layers


def _layer(bits: object) -> LayerBits:
    """Read one layer's widths."""
    if not isinstance(bits, dict) or not isinstance(bits.get("layer"), str):
        raise VitqError("a layer's widths need an object with its name: " + _LAYER_EXAMPLE)
    _check_keys(bits, LayerBits._fields)
    missing = [key for key in LayerBits._fields if key not in bits]
    if missing:
        raise VitqError(f"layer {bits['layer']} lacks {missing[0]}: {_LAYER_EXAMPLE}")
    return LayerBits(**bits)


def _check_keys(content: dict[str, Any], known: Sequence[str]) -> None:
    """Refuse a key that means nothing."""
    for key in content:
        if key not in known:
            raise VitqError(
                f"the key {key!r} is unknown{nearest(key, known)}: use {', '.join(known)}"
            )
