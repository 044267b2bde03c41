"""The families of integer nonlinear operators."""

from enum import StrEnum


class Nonlinear(StrEnum):
    """Which integer softmax and GELU stand for the float ones.

    Layer normalization is `numerics.int_layernorm` in both.
    """

    VITQ = "vitq"
    IVIT = "ivit"
