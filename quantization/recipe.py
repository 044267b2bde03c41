"""Recipes: which widths, as data."""

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from numerics.errors import VitqError

Nonlinear = Literal["vitq", "ivit"]


@dataclass(frozen=True)
class Recipe:
    """Bit widths of a quantized model.

    Attributes:
        weight_bits: of linear and convolution weights, per output channel, symmetric.
        activation_bits: of what goes into a matrix product.
        residual_bits: of the residual stream and of what the nonlinear operators read.
        nonlinear: which integer forms of Softmax and GELU: this project's, or I-ViT's as published
            (for models that were trained with them).
    """

    weight_bits: int = 8
    activation_bits: int = 8
    residual_bits: int = 16
    nonlinear: Nonlinear = "vitq"

    def __post_init__(self) -> None:
        """Refuse widths that no kernel executes."""
        for name, low, high in (
            ("weight_bits", 2, 8),
            ("activation_bits", 2, 8),
            ("residual_bits", 8, 16),
        ):
            if not low <= getattr(self, name) <= high:
                raise VitqError(f"{name} is {getattr(self, name)}: choose {low} to {high}")
        if self.nonlinear not in ("vitq", "ivit"):
            raise VitqError(f"nonlinear is {self.nonlinear!r}: choose vitq or ivit")

    @classmethod
    def parse(cls, name: str, nonlinear: Nonlinear = "vitq") -> "Recipe":
        """Read a name such as ``w8a8``."""
        match = re.fullmatch(r"w(\d+)a(\d+)", name)
        if match is None:
            raise VitqError(f"recipe {name!r} is unknown: write w<bits>a<bits>, such as w8a8")
        return cls(int(match[1]), int(match[2]), nonlinear=nonlinear)

    @property
    def name(self) -> str:
        """The name that `parse` reads."""
        return f"w{self.weight_bits}a{self.activation_bits}"

    def to_json(self) -> dict[str, Any]:
        """All fields, for an artifact's metadata."""
        return asdict(self)
