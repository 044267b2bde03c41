"""FoldInputNormalization: float pixels and their quantizer become a table for uint8 pixels."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from vitq.numerics.arrays import FloatArray
from vitq.numerics.errors import VitqError
from vitq.numerics.table import LEVELS, pixel_table
from vitq.relay_passes.dialect import calls as dialect
from vitq.relay_passes.expressions import (
    Expr,
    constant,
    dtype_of,
    is_constant,
    is_float,
    op_name,
    shape_of,
    uses_of,
)
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context
from vitq.relay_passes.reading.matching import read_quantize
from vitq.relay_passes.rewriting import BindingPass

log = logging.getLogger(__name__)

PIXELS = "uint8"
ELEMENTWISE: dict[str, Callable[[Any, Any], Any]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
}


class FoldInputNormalization(BindingPass):
    """Takes uint8 pixels where the network takes normalized floats.

    Before::

        main(x: float32 (B, C, H, W)):  dequantize(quantize(f(x), s, z), s, z)

    After, with ``table[c][p] = quantize(f((p / 255 - mean[c]) / std[c]), s, z)``::

        main(x: uint8 (B, C, H, W)):    dequantize(vitq.lut(x, table), s, z)

    f: any additions, subtractions, products and quotients with constants for each channel. A
    network that takes uint8 pixels and casts them has ``quantize(f(p), s, z)`` in its table. The
    table is computed in float32. A signed quantizer's codes and zero point are moved up by 128, so
    that the table is uint8 for every network. Exact for every pixel.

    Refuses an input that anything but one quantizer reads, and a quantizer that is not 8-bit per
    tensor. Raises VitqError without mean and std: no default is right.
    """

    requires = (Property.CLIPS_FOLDED, Property.QDQ_CANONICAL)
    ensures = (Property.INPUT_UINT8,)

    def __init__(
        self, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
    ) -> None:
        """Take the normalization that the network's input has already gone through."""
        super().__init__()
        self._mean, self._std = mean, std
        self._tables: dict[str, tuple[Expr, FloatArray]] = {}
        self._folded: set[Expr] = set()
        self._pixels: dict[Expr, Expr] = {}

    def prepare(self, function: Expr) -> None:
        """Find the float inputs whose only reader is a quantizer."""
        uses = uses_of(function)
        for param in function.params:
            if not _takes_pictures(param, uses):
                continue
            found = _quantizer_of(param, uses)
            if isinstance(found, str):
                self.declines[param.name] = f"{self.name}: {found}"
                continue
            binding, steps = found
            self._tables[binding.var.name] = (param, self._values(param, steps))
            if is_float(param):
                self._folded.add(param)

    def parameters(self, function: Expr) -> list[Expr]:
        """Return the folded inputs become uint8."""
        return [
            relax.Var(param.name, relax.TensorType(list(shape_of(param)), "uint8"))
            if param in self._folded
            else param
            for param in function.params
        ]

    def enter(self, function: Expr, params: list[Expr], ctx: Context) -> dict[Expr, Expr]:
        """Let what still reads the float input read a dequantize of the pixels until it is dead."""
        mapping = dict(zip(function.params, params, strict=True))
        self._pixels = dict(mapping)
        for old, new in mapping.items():
            if old in self._folded:
                ctx.current = new.name
                mapping[old] = ctx.emit(dialect.dequantize(new, 1.0, 0, None), "real")
        return mapping

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """See the class."""
        if op_name(value) != "relax.dequantize" or not isinstance(value.args[0], relax.Var):
            return None
        entry = self._tables.get(value.args[0].name)
        quantizer = ctx.quantizer(value.args[0])
        if entry is None or quantizer is None:
            return None
        param, real = entry
        table, qparams = pixel_table(real, quantizer.qparams)
        codes = ctx.emit(dialect.lut(self._pixels[param], table), "lut")
        zero_point = constant(qparams.zero_point.astype(np.uint8))
        return relax.op.dequantize(codes, value.args[1], zero_point, out_dtype="float32")

    def _values(self, param: Expr, steps: list[tuple[str, FloatArray]]) -> FloatArray:
        """Return the real value that each pixel has at the quantizer: (C, 256) float32."""
        channels = shape_of(param)[1]
        real: Any = np.tile(np.arange(LEVELS, dtype=np.float32), (channels, 1))
        if is_float(param):
            real = self._normalized(param, real)
        elif self._mean is not None:
            log.warning(
                "input %s is uint8 and normalized in the file: mean and std are not used",
                param.name,
            )
        for name, operand in steps:
            real = ELEMENTWISE[name](real, operand.astype(np.float32).reshape(-1, 1))
        return np.asarray(real, np.float32)

    def _normalized(self, param: Expr, pixels: FloatArray) -> FloatArray:
        """Return what pixels (C, 256) became before the network saw them.

        Raises:
            VitqError: without mean and std for each channel.
        """
        channels = len(pixels)
        if self._mean is None or self._std is None:
            raise VitqError(
                f"input {param.name} is float32: give the mean and std it was normalized with "
                "(vitq.mean and vitq.std in the file's metadata, or the options mean and std)"
            )
        if len(self._mean) != channels or len(self._std) != channels:
            raise VitqError(
                f"input {param.name} has {channels} channels, mean {len(self._mean)} and std "
                f"{len(self._std)}"
            )
        mean = np.array(self._mean, np.float32).reshape(-1, 1)
        std = np.array(self._std, np.float32).reshape(-1, 1)
        real: FloatArray = (pixels / np.float32(255) - mean) / std
        return real


def _takes_pictures(param: Expr, uses: dict[Expr, list[Any]]) -> bool:
    """Whether an input is pictures as floats, or as pixels that become floats at once."""
    if len(shape_of(param)) != 4:
        return False
    readers = [op_name(binding.value) for binding in uses.get(param, [])]
    return is_float(param) or (dtype_of(param) == PIXELS and readers == ["relax.astype"])


def _quantizer_of(
    param: Expr, uses: dict[Expr, list[Any]]
) -> tuple[Any, list[tuple[str, FloatArray]]] | str:
    """Find the quantizer behind an input and the steps before it, or why there is none."""
    steps: list[tuple[str, FloatArray]] = []
    current = param
    while True:
        readers = uses.get(current, [])
        if len(readers) != 1:
            return f"{len(readers)} operators read {current.name}"
        binding = readers[0]
        call = binding.value
        name = op_name(call)
        quantizer = read_quantize(call)
        if quantizer is not None:
            if not quantizer.is_per_tensor or quantizer.dtype not in dialect.BYTES:
                return "the input's quantizer is not 8-bit per tensor"
            return binding, steps
        if name == "relax.astype" and current is param and dtype_of(call) == "float32":
            current = binding.var
            continue
        if name not in ELEMENTWISE or call.args[0] != current or not is_constant(call.args[1]):
            return f"{name or 'the result'} reads the float input"
        operand = call.args[1].value.numpy()
        channels = shape_of(param)[1]
        if operand.size != 1 and operand.shape[-3:] != (channels, 1, 1):
            return f"a constant of shape {operand.shape} is not one value for each channel"
        steps.append((name, operand))
        current = binding.var
