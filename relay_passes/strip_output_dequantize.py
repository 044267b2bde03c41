"""StripOutputDequantize: the network returns integer codes and says what they mean."""

from dataclasses import dataclass

from vitq.relay_passes.expressions import Expr, dtype_of, shape_of
from vitq.relay_passes.properties import Property
from vitq.relay_passes.reading.context import Context
from vitq.relay_passes.rewriting import BindingPass


@dataclass(frozen=True)
class OutputInfo:
    """One result of the network: ``real = scale * (codes - zero_point)``.

    Attributes:
        shape: static shape.
        dtype: of the codes.
        scale: float64; 1.0 where the network itself returns integers.
        zero_point: of the codes.
    """

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


class StripOutputDequantize(BindingPass):
    """Removes the dequantize at the end of the network.

    Before -> after::

        return dequantize(logits, s, z)  ->  return logits        # s and z in `outputs`

    A per-channel dequantize stays: its classes could not be compared as integers.
    """

    requires = (Property.FLOATS_LOWERED,)
    ensures = (Property.OUTPUT_CODES,)

    def __init__(self) -> None:
        """Begin without outputs."""
        super().__init__()
        self.outputs: list[OutputInfo] = []

    def rewrite(self, var: Expr, value: Expr, ctx: Context) -> Expr | None:
        """No binding changes."""
        return None

    def finish(self, outputs: list[Expr], ctx: Context) -> list[Expr]:
        """Return codes instead of real numbers."""
        self.outputs = []
        results = []
        for output in outputs:
            codes = ctx.codes(output)
            scale, zero_point = 1.0, 0
            if codes is not None and codes.is_per_tensor:
                output = codes.codes
                scale, zero_point = float(codes.scale), int(codes.zero_point)
            results.append(output)
            self.outputs.append(OutputInfo(shape_of(output), dtype_of(output), scale, zero_point))
        return results
