"""The families of integer nonlinear operators, and what each can do. Loads nothing."""

from enum import StrEnum

from vitq.numerics.errors import VitqError, nearest


class Nonlinear(StrEnum):
    """Which integer softmax and GELU stand for the float ones.

    Layer normalization is `numerics.int_layernorm` in both. `numerics.nonlinear` builds the
    operators.
    """

    VITQ = "vitq"
    IVIT = "ivit"

    @classmethod
    def parse(cls, name: str) -> "Nonlinear":
        """Return the family of that name.

        Raises:
            VitqError: if there is none.
        """
        if name not in list(cls):
            raise VitqError(
                f"nonlinear is {str(name)!r}{nearest(str(name), cls)}: choose {' or '.join(cls)}"
            )
        return cls(name)

    @property
    def defers_normalization(self) -> bool:
        """Whether softmax has an unnormalized form, divided behind the product with V."""
        return self is Nonlinear.VITQ

    @property
    def has_twin_gelu(self) -> bool:
        """Whether a GELU's output may have a fine and a coarse range (`numerics.twin`)."""
        return self is Nonlinear.VITQ

    @property
    def reads_residual_codes(self) -> bool:
        """Whether softmax and GELU are exact enough for the residual stream's wide codes.

        I-ViT's read what a matrix product reads.
        """
        return self is Nonlinear.VITQ
