"""The codes of attention weights (EXP nodes), as data on the node.

``attrs["log_steps"]`` codes for each octave (1 = log2, 2 = log sqrt 2, 4, 8) and
``attrs["log_levels"]`` of them, see `numerics.log_codes`; with ``attrs["log_zero"]`` what lies
beyond the last code weighs nothing. A node without them has uniform codes. `Node.out` is the
8-bit quantizer of the weights in any case: codes become weights before anything is multiplied.
"""

from enum import StrEnum
from typing import NamedTuple

from numerics.errors import VitqError
from numerics.log_codes import NAMES, log_code_params
from numerics.shiftmax import CodeParams, code_params
from quantization.graph import Graph, Node, OpKind
from quantization.recipe import Recipe
from quantization.widths import layer_widths


class AttentionForm(StrEnum):
    """What a method asks of attention weights."""

    UNIFORM = "uniform"
    LOG2 = "log2"
    LOG_SQRT2 = "log_sqrt2"
    ADAPTIVE = "adaptive"


WIDEST_LOG_BITS = 7
"""Methods use log codes up to this width: at 8 bits a weight is one of 256 multiples of 1 / 255 in
any case, and uniform codes are all of them."""
LOG_STEPS = {AttentionForm.LOG2: 1, AttentionForm.LOG_SQRT2: 2}


class LogCodes(NamedTuple):
    """Log codes of one node.

    Attributes:
        steps: codes for each octave.
        levels: how many codes.
        zero: whether what lies beyond them weighs nothing.
    """

    steps: int
    levels: int
    zero: bool


def log_codes_of(node: Node) -> LogCodes | None:
    """The log codes of an EXP node, None where they are uniform.

    Raises:
        VitqError: if only one of steps and levels is there.
    """
    if ("log_steps" in node.attrs) != ("log_levels" in node.attrs):
        raise VitqError(f"{node.name}: log codes need log_steps and log_levels")
    if "log_steps" not in node.attrs:
        return None
    zero = bool(node.attrs.get("log_zero", False))
    return LogCodes(node.attrs["log_steps"], node.attrs["log_levels"], zero)


def codes_name(node: Node) -> str:
    """What a person reads of an EXP node's codes: ``log sqrt 2, 16 codes``, or ``uniform``."""
    log = log_codes_of(node)
    if log is None:
        return AttentionForm.UNIFORM.value
    return f"{NAMES[log.steps]}, {log.levels} codes{' and zero' if log.zero else ''}"


def exp_params(node: Node, scale: float) -> CodeParams:
    """The integers of an EXP node for scores of one scale."""
    log = log_codes_of(node)
    return code_params(scale) if log is None else log_code_params(scale, *log)


def use_log_codes(
    graph: Graph, form: AttentionForm, recipe: Recipe, zero: bool, widest: int = 8
) -> None:
    """Give every EXP node log codes as wide as the activations of the product that reads it.

    Args:
        graph: after `quantization.rewrites.defer_softmax_normalization`.
        form: adaptive leaves the nodes as they are: it is chosen later, from data
            (`quantization.attention_search`).
        recipe: the widths.
        zero: see `LogCodes`.
        widest: wider codes stay uniform.
    """
    if form is AttentionForm.ADAPTIVE:
        return
    widths = layer_widths(graph, recipe)
    for node in graph:
        if node.op is not OpKind.EXP:
            continue
        for attribute in ("log_steps", "log_levels", "log_zero"):
            node.attrs.pop(attribute, None)
        bits = min(widths[r.name].activation_bits for r in graph.consumers(node.name))
        if form is not AttentionForm.UNIFORM and bits <= widest:
            log = LogCodes(LOG_STEPS[form], 2**bits, zero)
            log_code_params(1.0, *log)  # refuses what cannot be executed
            node.attrs.update(log_steps=log.steps, log_levels=log.levels, log_zero=log.zero)
