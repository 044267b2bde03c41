"""A call of each integer operator: what the tests over all records take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitq.numerics.add import add_params
from vitq.numerics.arrays import IntArray
from vitq.numerics.attention import attention_params
from vitq.numerics.int_layernorm import layernorm_params
from vitq.numerics.ivit import ivit_gelu_params, ivit_softmax_params
from vitq.numerics.linear import linear_params, linear_sum
from vitq.numerics.multiply import multiply_add_params, multiply_params
from vitq.numerics.nonlinear import SoftmaxParams
from vitq.numerics.pooling import mean_params
from vitq.numerics.qparams import QuantParams
from vitq.numerics.requantize import requantize_params
from vitq.numerics.shiftgelu import gelu_params
from vitq.numerics.shiftmax import (
    SMALLEST_WIDE_SUM,
    code_params,
    normalize_params,
    normalized_matmul_params,
    shiftmax_params,
)
from vitq.numerics.table import PIXELS
from vitq.relay_passes.dialect import names

OUT = QuantParams(np.float32(0.1), np.int32(-3), -128, 127)
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Sample:
    """Operands of one call, the parameters last, and the type of its result."""

    arrays: tuple[IntArray, ...]
    dtype: str = "int8"


def codes(*shape: int, dtype: str = "int8") -> IntArray:
    """Codes over a type's whole range."""
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def scalars(values: Any) -> IntArray:
    """A ``params`` operand."""
    return np.array([int(value) for value in values], np.int64)


def layer(*weight: int) -> tuple[IntArray, ...]:
    """A layer's operands behind its input; the weight's shape."""
    bias = RNG.integers(-1000, 1000, weight[0])
    return linear_params(linear_sum(codes(*weight), 2e-3, bias, 0.05, 7), OUT).operands()


def weights(*shape: int) -> IntArray:
    """Codes of Shiftmax: each row's largest is 255."""
    found = codes(*shape, dtype="uint8")
    found[..., 0] = 255
    return found


ROWS = np.array([4, 0, 0, 2], np.int32)
ADD = scalars(add_params(0.1, -3, 0.02, 4, OUT))
GELU = scalars(gelu_params(1e-4, 3, OUT))
CODES = code_params(2e-3)
NORM = normalized_matmul_params(0.03, OUT)
WIDE = SoftmaxParams(shiftmax_params(2e-3), normalize_params(255.0, SMALLEST_WIDE_SUM, OUT))
REQUANTIZE = requantize_params(3e-3, 11, OUT)
NORMALIZED = layernorm_params(
    1e-3, 1e-6, RNG.normal(size=16).astype(np.float32), RNG.normal(size=16).astype(np.float32), OUT
)

MAKERS: dict[str, Callable[[], Sample]] = {
    names.PATCH_EMBED: lambda: Sample((codes(2, 3, 8, 8, dtype="uint8"), *layer(16, 3, 4, 4))),
    names.LINEAR: lambda: Sample((codes(2, 5, 32), *layer(16, 32))),
    names.LINEAR_ADD: lambda: Sample((codes(2, 5, 32), *layer(16, 32), codes(2, 5, 16), ADD)),
    names.LINEAR_GELU: lambda: Sample((codes(2, 5, 32), *layer(16, 32), GELU)),
    names.GATHER_ROWS: lambda: Sample(
        (
            codes(2, 5, 16, dtype="int16"),
            np.array([4, -1, 0, 0, 2, 3], np.int32),
            scalars((-7,)),
        ),
        "int16",
    ),
    names.DEPTHWISE: lambda: Sample((
        codes(2, 5, 21),
        np.array([[0, -1, 4], [2, 3, 3]], np.int32),
        *layer(21, 3)[:-1],
        scalars((7, -128, 127)),
    )),
    names.GATHER_LINEAR: lambda: Sample((codes(2, 5, 32), ROWS, *layer(16, 32))),
    names.GATHER_LINEAR_ADD: lambda: Sample((
        codes(2, 5, 32),
        ROWS,
        *layer(16, 32),
        codes(2, 4, 16),
        ADD,
    )),
    names.MATMUL: lambda: Sample((codes(2, 5, 32), codes(2, 8, 32), scalars((3, -4))), "int32"),
    names.OFFSET: lambda: Sample(
        (codes(2, 3, 2, 5, 7, dtype="int16"), codes(3, 1, 5, 7, dtype="int16").astype(np.int32)),
        "int32",
    ),
    names.SHIFTMAX_CODES: lambda: Sample((codes(2, 3, 7, dtype="int16"), scalars(CODES)), "uint8"),
    names.SHIFTMAX: lambda: Sample((codes(2, 3, 7, dtype="int16"), scalars(WIDE.scalars()))),
    names.IVIT_SHIFTMAX: lambda: Sample(
        (codes(2, 3, 7, dtype="int16"), scalars(ivit_softmax_params(2e-3))), "uint8"
    ),
    names.NORMALIZED_MATMUL: lambda: Sample((
        weights(2, 5, 7),
        codes(2, 7, 16),
        scalars((5, *NORM)),
    )),
    names.ATTENTION: lambda: Sample((
        codes(1, 5, 3, 2, 32),
        scalars(attention_params((1, -2, 3), CODES, NORM)),
    )),
    names.OFFSET_ATTENTION: lambda: Sample((
        codes(4, 5, 3, 2, 32),
        RNG.integers(-5000, 5000, (3, 5, 5), dtype=np.int32),
        np.array([[2, 0], [1, 2]], np.int32),
        scalars(attention_params((1, -2, 3), CODES, NORM)),
    )),
    names.SHIFTGELU: lambda: Sample((codes(2, 5, 16, dtype="int16"), GELU)),
    names.IVIT_SHIFTGELU: lambda: Sample((
        codes(2, 5, 16),
        scalars(ivit_gelu_params(0.05, 3, OUT)),
    )),
    names.LAYERNORM: lambda: Sample((
        codes(2, 5, 16, dtype="int16"),
        NORMALIZED.multiplier.astype(np.int32),
        NORMALIZED.addend.astype(np.int32),
        scalars(NORMALIZED.scalars()),
    )),
    names.RMSNORM: lambda: Sample((
        codes(2, 5, 16, dtype="int16"),
        NORMALIZED.multiplier.astype(np.int32),
        NORMALIZED.addend.astype(np.int32),
        scalars(NORMALIZED._replace(fraction_bits=12).scalars()),
    )),
    names.REQUANTIZE: lambda: Sample((
        codes(2, 5, 16, dtype="int16"),
        REQUANTIZE.dyadic.multiplier.reshape(-1).astype(np.int32),
        REQUANTIZE.dyadic.shift.reshape(-1).astype(np.int32),
        scalars(REQUANTIZE.scalars()),
    )),
    names.ADD: lambda: Sample((codes(2, 5, 16), codes(2, 5, 16), ADD)),
    names.ARGMAX: lambda: Sample((codes(2, 5, 19) // 64,), "uint8"),  # with ties
    names.MEAN: lambda: Sample((codes(2, 5, 16), scalars(mean_params(0.05, 3, 5, OUT)))),
    names.MULTIPLY: lambda: Sample((
        codes(2, 1, 5, 16, dtype="int16"),
        codes(3, 1, 16),
        scalars(multiply_params(1e-4, 0, 0.02, 4, OUT)),
    )),
    names.MULTIPLY_ADD: lambda: Sample((
        codes(2, 3, 5, 16, dtype="int16"),
        codes(5, 16),
        codes(2, 3, 5, 16, dtype="int16"),
        codes(5, 16),
        scalars(multiply_add_params(1e-7, (0, 2, 0, -3), OUT)),
    )),
    names.LUT: lambda: Sample((
        codes(2, 3, 4, 5, dtype="uint8"),
        codes(3, 256),
        scalars(PIXELS),
    )),
}
"""By operator."""
