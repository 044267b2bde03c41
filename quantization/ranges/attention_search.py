r"""Choose each layer's codes of attention weights: an adaptive logarithm's base.

AdaLog (arXiv:2407.12951) searches the base of the logarithmic quantizer of post-Softmax values for
each layer. Here the base is restricted to what shifts execute, ``2**(1/r)`` with r = 1, 2, 4 or 8
(`numerics.log_codes`), each with and without a zero beyond its last code. What is compared is the
normalized weight, which is what multiplies V:

    sum over rows i of  w_i  sum_j (p'_ij - p_ij)**2,    p = e / sum(e)

with w_i the importance of the attention's output row. Codes of 8 bits stay uniform.
"""

import torch

from vitq.numerics.log_codes import STEPS
from vitq.quantization.graph.graph import Graph, Node
from vitq.quantization.graph.offsets import is_masked
from vitq.quantization.plan.attention_codes import WIDEST_BITS, LogCodes
from vitq.quantization.plan.widths import LayerBits
from vitq.quantization.ranges.samples import Sampler
from vitq.quantization.run.fake_quantize import quantize_exponents

ROWS = 4096


def choose_codes(
    graph: Graph,
    node: Node,
    value: torch.Tensor,
    widths: dict[str, LayerBits],
    sampler: Sampler,
) -> None:
    """Write the best log codes on an EXP node, or none at 8 bits.

    Args:
        graph: its readers give the width.
        node: the exponential.
        value: (..., N) its result on the calibration pictures.
        widths: of each product.
        sampler: draws rows by the importance of what reads them.
    """
    reader = graph.consumers(node.name)[0]
    bits = min(widths[r.name].activation_bits for r in graph.consumers(node.name))
    if bits > WIDEST_BITS:
        return
    weights = sampler.row_weights(reader, value)
    drawn = torch.multinomial(
        weights, ROWS, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    rows = value.reshape(-1, value.shape[-1])[drawn]
    zeros = (True,) if is_masked(graph, node) else (False, True)
    choices = [LogCodes(steps, 2**bits, zero) for steps in STEPS for zero in zeros]
    best = min(choices, key=lambda log: codes_error(rows, log))
    node.attrs.update(log_steps=best.steps, log_levels=best.levels, log_zero=best.zero)


def codes_error(rows: torch.Tensor, log: LogCodes) -> float:
    """Mean squared error of normalized attention weights.

    Args:
        rows: (R, N) exponentials relative to each row's maximum.
        log: the codes.

    Returns:
        The mean over rows of the sum over j of ``(p'_j - p_j)**2``.
    """
    weights = quantize_exponents(rows, log)
    difference = weights / weights.sum(-1, keepdim=True) - rows / rows.sum(-1, keepdim=True)
    return float(difference.square().sum(-1).mean())
