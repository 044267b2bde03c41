"""The codes of attention weights (EXP nodes), as data on the node.

``attrs["log_steps"]`` codes for each octave (1 = log2, 2 = log sqrt 2, 4, 8) and
``attrs["log_levels"]`` of them, see `numerics.log_codes`; with ``attrs["log_zero"]`` what lies
beyond the last code weighs nothing. ``attrs["twin_fine"]`` and ``attrs["twin_coarse"]`` are the
steps of two ranges, see `numerics.twin_codes`. A node without them has uniform codes. `Node.out` is
the 8-bit quantizer of the weights in any case: codes become weights before anything is multiplied.
"""

from typing import NamedTuple

from vitq.numerics.errors import VitqError
from vitq.numerics.log_codes import NAMES, log_code_params
from vitq.numerics.shiftmax import CodeParams, code_params
from vitq.numerics.twin_codes import ONE_RANGE, TwinCodes, describe_twin, twin_choices
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.offsets import is_masked
from vitq.quantization.plan.methods import AttentionForm
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.plan.widths import layer_widths

WIDEST_BITS = 7
"""Methods use other codes than uniform ones up to this width: at 8 bits a weight is one of 256
multiples of 1 / 255 in any case, and uniform codes are all of them."""
CODE_ATTRS = ("log_steps", "log_levels", "log_zero", "twin_fine", "twin_coarse")
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
    """Return the log codes of an EXP node, None where they are uniform.

    Raises:
        VitqError: if only one of steps and levels is there.
    """
    if ("log_steps" in node.attrs) != ("log_levels" in node.attrs):
        raise VitqError(f"{node.name}: log codes need log_steps and log_levels")
    if "log_steps" not in node.attrs:
        return None
    zero = bool(node.attrs.get("log_zero", False))
    return LogCodes(node.attrs["log_steps"], node.attrs["log_levels"], zero)


def twin_codes_of(node: Node) -> TwinCodes:
    """Return the two ranges of an EXP node's codes, `ONE_RANGE` where they have none.

    Raises:
        VitqError: if only one of their steps is there, or log codes besides.
    """
    if ("twin_fine" in node.attrs) != ("twin_coarse" in node.attrs):
        raise VitqError(f"{node.name}: twin codes need twin_fine and twin_coarse")
    if "twin_fine" not in node.attrs:
        return ONE_RANGE
    if "log_steps" in node.attrs:
        raise VitqError(f"{node.name}: codes are logarithmic or have two ranges, not both")
    return TwinCodes(int(node.attrs["twin_fine"]), int(node.attrs["twin_coarse"]))


def set_twin_codes(node: Node, twin: TwinCodes) -> None:
    """Give an EXP node two ranges."""
    node.attrs.update(twin_fine=twin.fine, twin_coarse=twin.coarse)


def narrow_codes(node: Node, bits: int) -> None:
    """Give an EXP node's codes, of which there are no uniform narrow ones, another width."""
    twin = twin_codes_of(node)
    if twin == ONE_RANGE:
        node.attrs["log_levels"] = 2**bits
        return
    reach = twin.fine + twin.bits - bits
    set_twin_codes(node, min(twin_choices(bits), key=lambda choice: abs(choice.fine - reach)))


def codes_name(node: Node) -> str:
    """Describe an EXP node's codes for a person: ``log sqrt 2, 16 codes``, or ``uniform``."""
    log, twin = log_codes_of(node), twin_codes_of(node)
    if twin != ONE_RANGE:
        return describe_twin(twin)
    if log is None:
        return AttentionForm.UNIFORM.value
    return f"{NAMES[log.steps]}, {log.levels} codes{' and zero' if log.zero else ''}"


def exp_params(node: Node, scale: float) -> CodeParams:
    """Return the integers of an EXP node for scores of one scale."""
    log = log_codes_of(node)
    if log is not None:
        return log_code_params(scale, *log)
    return code_params(scale, twin_codes_of(node))


def use_codes(
    graph: Graph, form: AttentionForm, recipe: Recipe, zero: bool, widest: int = 8
) -> None:
    """Give every EXP node codes as wide as the activations of the product that reads it.

    Args:
        graph: after `quantization.graph.rewrites.defer_softmax_normalization`.
        form: adaptive leaves the nodes as they are: it is chosen later, from data
            (`quantization.ranges.attention_search`). Twin ranges begin with the coarsest of their
            fine steps, from where a method may search on (`quantization.ranges.hessian_walk`).
        recipe: the widths.
        zero: see `LogCodes`; where scores are masked it is always so.
        widest: wider codes stay uniform.
    """
    if form is AttentionForm.ADAPTIVE:
        return
    widths = layer_widths(graph, recipe)
    for node in graph:
        if node.op is not OpKind.EXP:
            continue
        for attribute in CODE_ATTRS:
            node.attrs.pop(attribute, None)
        bits = min(widths[r.name].activation_bits for r in graph.consumers(node.name))
        if form is AttentionForm.UNIFORM or bits > widest:
            continue
        if form is AttentionForm.TWIN:
            set_twin_codes(node, twin_choices(bits)[-1])
        else:
            log = LogCodes(LOG_STEPS[form], 2**bits, zero or is_masked(graph, node))
            log_code_params(1.0, *log)  # refuses what cannot be executed
            node.attrs.update(log_steps=log.steps, log_levels=log.levels, log_zero=log.zero)
