r"""What ranges the integer GELU (`numerics.shiftgelu`) can take and give.

It works in steps of its input with 16-bit words, so that both ends of a scale are limited:

* Input. Above a step of 2**-7 its positive side is shifted left, and with codes of 16 bits the sum
  leaves int32: codes reach `MOST` = 2**-7 * 32767 at most. Calibration leaves headroom, which
  shrinks where it would go beyond; positive values beyond are refused by the layer's name, as
  clipping them would be silently wrong (of negative ones GELU is 0 long before). Below 2**-26 its
  multipliers run out of bits: `LEAST_INPUT` keeps steps above (GELU is x / 2 there, to what the
  operator's absolute error of 4e-4 shows).
* Output. Where all inputs are far below 0 the result is 0 but for 1e-9: steps of 1e-11 would need a
  factor of 1e7 from the input's. Ranges are at least `LEAST_OUTPUT` wide, 2.5 times that error.
  With MOST's step and a search's factor of 0.3 the largest factor is then 2**12.7, of 2**14.

I-ViT's form reads codes of activation width and has its own limits (`numerics.ivit`).
"""

from vitq.numerics.errors import VitqError
from vitq.numerics.families import Nonlinear
from vitq.quantization.graph.graph import LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.graph.origins import label_of
from vitq.quantization.plan.nonlinear import family_of

MOST = 255.9
LEAST_INPUT = 2.0**-10
LEAST_OUTPUT = 2.0**-10


def feeds_gelu(graph: Graph, node: Node) -> bool:
    """Whether a ShiftGELU reads a node's codes, through layout or not."""
    for reader in graph.consumers(node.name):
        if reader.op is OpKind.GELU and family_of(reader) is Nonlinear.VITQ:
            return True
        if reader.op in LAYOUT_OPS and reader.out is None and feeds_gelu(graph, reader):
            return True
    return False


def gelu_input_reach(node: Node, highest: float, wanted: float) -> float:
    """Largest magnitude that codes in front of a ShiftGELU represent.

    Args:
        node: that carries the quantizer.
        highest: largest value on the calibration pictures.
        wanted: largest magnitude, with headroom.

    Returns:
        `wanted` within the operator's limits.

    Raises:
        VitqError: if the largest value is beyond them.
    """
    if highest > MOST:
        raise VitqError(
            f"{label_of(node)}: its outputs reach {highest:.4g} and GELU's codes only {MOST:g}: "
            "check the weights, and mean and std of the input"
        )
    return min(max(wanted, LEAST_INPUT), MOST)


def gelu_output_range(node: Node, low: float, high: float) -> tuple[float, float]:
    """Widen the range of a GELU's result to what its factor can express; others stay."""
    if node.op is not OpKind.GELU or high - low >= LEAST_OUTPUT:
        return low, high
    return min(low, 0.0), min(low, 0.0) + LEAST_OUTPUT
