"""Which results are quantized, at which width, and which share their parameters.

Requirements come from the readers: a matrix product reads activations of its own width; the
residual stream, LayerNorm, GELU and pooling are ``residual_bits``, and so are the results unless
the recipe says otherwise (a result of 8 bits that the network reads on is requantized for itself).
Attention scores stay int32 accumulators (the exponential reads them directly, no calibrated range
is needed); the exponentials are unsigned 8-bit weights of scale 1 / 255 by construction, made of
fewer codes where these are logarithmic (`quantization.plan.attention_codes`). I-ViT's published
forms read scores and GELU inputs of ``activation_bits``, as its models were trained. A constant
added to scores (`quantization.graph.offsets`) is in their step, whatever that is, and gets no
quantizer.

**Gates and rotations.** Both operands of a product of activations (SwiGLU, RoPE, gMLP) are
``residual_bits``, its one rounding is that of its own quantizer: rounded to 8 bits each, a product
would carry both errors and its own. A constant operand has `FACTOR_BITS` = 14 and exactly its own
range: two products of 16-bit codes with such tables fit an int32 together (2 * 2**15 * 2**13 <
2**30), which is what a rotation ``x cos + x' sin`` with one rounding needs. A function reads
`FUNCTION_BITS` = 12: a table of 4096 entries stays in the first-level cache (65,536 of 16 bits do
not), and with twice the observed range for headroom a step is a 16th of an 8-bit code's, below the
rounding of its 8-bit results; a reciprocal or a root, whose error is its input's relative one,
reads ``residual_bits``. A clamp (ReLU) reads whatever there is: it is bounds of the quantizer
behind it; only an accumulator that others read, too, is quantized before it. RMS and L2
normalizations read what LayerNorm does.

A requirement climbs from the reader through layout operators to the operator that computes the
values, as long as all readers agree; q, k and v, slices of one linear layer, keep their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vitq.quantization.graph.clamps import ends_of
from vitq.quantization.graph.functions import STEEP
from vitq.quantization.graph.graph import ACCUMULATOR_OPS, LAYOUT_OPS, Graph, Node, OpKind
from vitq.quantization.plan.climbing import climb, origin, readers, sharing
from vitq.quantization.plan.recipe import LayerBits, Recipe
from vitq.quantization.plan.rotations import Rotation, rotations
from vitq.quantization.plan.widths import PRODUCTS, layer_widths


class Role(StrEnum):
    """What a quantizer's input is, which decides how its range is found."""

    PIXELS = "pixels"
    ACTIVATION = "activation"
    POST_NORM = "post_norm"
    RESIDUAL = "residual"
    EXPONENTIAL = "exponential"
    FACTOR = "factor"
    PROBABILITY = "probability"


@dataclass
class Placement:
    """Where the quantizers are.

    Attributes:
        roles: node name -> role of the quantizer on its result.
        bits: node name -> width.
        ties: node name -> node whose parameters it takes over.
        sums: of two products that have no quantizers of their own.
    """

    roles: dict[str, Role] = field(default_factory=dict)
    bits: dict[str, int] = field(default_factory=dict)
    ties: dict[str, str] = field(default_factory=dict)
    sums: dict[str, Rotation] = field(default_factory=dict)


EXPONENTIAL_BITS = 8
FACTOR_BITS = 14
FUNCTION_BITS = 12

_READS_RESIDUAL = {
    OpKind.ADD,
    OpKind.CONCAT,
    OpKind.LAYER_NORM,
    OpKind.MEAN,
    OpKind.GELU,
    OpKind.MULTIPLY,
    OpKind.POINTWISE,
    OpKind.RMS_NORM,
}
_READS_SCORES = {OpKind.EXP, OpKind.SOFTMAX, OpKind.OFFSET}
_MUST_QUANTIZE = {
    OpKind.ADD,
    OpKind.CONCAT,
    OpKind.LAYER_NORM,
    OpKind.MEAN,
    OpKind.GELU,
    OpKind.EXP,
    OpKind.SOFTMAX,
    OpKind.NORMALIZED_MATMUL,
    OpKind.CONSTANT,
    OpKind.INPUT,
    OpKind.MULTIPLY,
    OpKind.POINTWISE,
    OpKind.RMS_NORM,
}


def place_quantizers(graph: Graph, recipe: Recipe) -> Placement:
    """Decide all quantizers; inserts `requantize` nodes where readers want two widths.

    Args:
        graph: after `quantization.graph.rewrites`.
        recipe: the widths.

    Returns:
        The placement.
    """
    placement = Placement({graph.input.name: Role.PIXELS}, {graph.input.name: 8})
    placement.sums = rotations(graph)
    products = {name for total in placement.sums for name in graph.nodes[total].inputs}
    widths = layer_widths(graph, recipe)
    _place_results(graph, placement, recipe)
    for node in graph:
        for index in range(0 if node.name in placement.sums else len(node.inputs)):
            bits = _required_bits(graph, node, index, recipe, widths)
            if bits is not None:
                _require(graph, placement, node, index, bits, recipe)
    for node in graph:
        if node.op in _MUST_QUANTIZE and node.name not in {*placement.roles, *products}:
            _place(graph, placement, node, recipe.residual_bits)
    _tie(graph, placement)
    _merge_results(graph, placement)
    return placement


def _place_results(graph: Graph, placement: Placement, recipe: Recipe) -> None:
    """Results come first: a narrower reader of the same value requantizes it."""
    bits = recipe.output_bits or recipe.residual_bits
    for name in graph.outputs.values():
        node = graph.nodes[name]
        source = graph.nodes[origin(graph, name)]
        if node.op is OpKind.REQUANTIZE:
            _place(graph, placement, node, bits)
            source = graph.nodes[origin(graph, node.inputs[0])]
            if bits < recipe.residual_bits or source.op in ACCUMULATOR_OPS:
                continue
        _place(graph, placement, source, bits)


def _merge_results(graph: Graph, placement: Placement) -> None:
    """Take a result's own node away where what it reads has its width."""
    for name in list(graph.outputs.values()):
        node = graph.nodes.get(name)
        if node is None or node.op is not OpKind.REQUANTIZE:
            continue
        if _quantized_bits(graph, placement, node.inputs[0]) == placement.bits[name]:
            graph.bypass(node)
            del placement.roles[name], placement.bits[name]


def _required_bits(
    graph: Graph, node: Node, index: int, recipe: Recipe, widths: Mapping[str, LayerBits]
) -> int | None:
    """Width that a reader wants of one input; None where it takes what comes."""
    if node.op in PRODUCTS:
        return widths[node.name].activation_bits
    if node.op is OpKind.GELU and not recipe.nonlinear.reads_residual_codes:
        return recipe.activation_bits
    if node.op is OpKind.POINTWISE:
        if ends_of(node) is not None:
            is_shared = sharing(graph, node.inputs[index]) is not None
            return recipe.residual_bits if is_shared else None
        is_steep = node.attrs["function"] in STEEP
        return recipe.residual_bits if is_steep else min(FUNCTION_BITS, recipe.residual_bits)
    if node.op is OpKind.MULTIPLY and _is_factor(graph, node, index):
        return min(FACTOR_BITS, recipe.residual_bits)
    if node.op in _READS_RESIDUAL:
        return recipe.residual_bits
    if node.op in _READS_SCORES:
        source = graph.nodes[origin(graph, node.inputs[0])]
        if source.op is OpKind.OFFSET:
            return None
        if not recipe.nonlinear.reads_residual_codes:
            return recipe.activation_bits
        return None if source.op is OpKind.MATMUL else recipe.residual_bits
    return None


def _is_factor(graph: Graph, node: Node, index: int) -> bool:
    """Whether an operand of a product is a constant that nothing else reads."""
    source = graph.nodes[origin(graph, node.inputs[index])]
    return source.op is OpKind.CONSTANT and _only_factor(graph, source)


def _only_factor(graph: Graph, node: Node) -> bool:
    """Whether a constant goes into products of activations alone, through layout."""
    return all(
        reader.op is OpKind.MULTIPLY or (reader.op in LAYOUT_OPS and _only_factor(graph, reader))
        for reader in graph.consumers(node.name)
    )


def _quantized_bits(graph: Graph, placement: Placement, name: str) -> int | None:
    """Width at which a value is already quantized, through layout; None if it is not."""
    node = graph.nodes[name]
    while node.name not in placement.bits:
        if node.op not in LAYOUT_OPS and node.op is not OpKind.SCALE:
            return None
        node = graph.operand(node)
    return placement.bits[node.name]


def _require(
    graph: Graph, placement: Placement, reader: Node, index: int, bits: int, recipe: Recipe
) -> None:
    name = reader.inputs[index]
    present = _quantized_bits(graph, placement, name)
    if present is None:
        spot = graph.nodes[climb(graph, name)]
        if spot.op in LAYOUT_OPS and graph.nodes[origin(graph, name)].op in _MUST_QUANTIZE:
            spot = graph.nodes[origin(graph, name)]
        others = [r for r in readers(graph, spot) if r.op in _READS_RESIDUAL]
        wide = spot.op is OpKind.CONCAT or (others and reader not in others)
        bits_here = recipe.residual_bits if wide else bits
        _place(graph, placement, spot, bits_here)
        present = bits_here
    fixed = placement.roles.get(name) in (Role.PIXELS, Role.EXPONENTIAL)
    if present <= bits or fixed:
        return
    source = graph.nodes[name]
    narrow = f"{name}.to{bits}"
    if narrow not in graph.nodes:
        node = Node(narrow, OpKind.REQUANTIZE, (name,), source.shape, source.batch_axis)
        node.module = source.module
        graph.insert_after(name, node)
        _place(graph, placement, node, bits)
    graph.replace_input(reader, name, narrow)


def _place(graph: Graph, placement: Placement, node: Node, bits: int) -> None:
    if node.name in placement.roles:
        return
    if node.op is OpKind.EXP:
        role, bits = Role.EXPONENTIAL, EXPONENTIAL_BITS
    elif node.op is OpKind.SOFTMAX:
        role = Role.PROBABILITY
    elif node.op is OpKind.CONSTANT and bits == FACTOR_BITS:
        role = Role.FACTOR
    elif bits > 8:
        role = Role.RESIDUAL
    elif node.op in (OpKind.LAYER_NORM, OpKind.RMS_NORM):
        role = Role.POST_NORM
    else:
        role = Role.ACTIVATION
    placement.roles[node.name] = role
    placement.bits[node.name] = bits


def _tie(graph: Graph, placement: Placement) -> None:
    """Let branches share the parameters of the sum (or concatenation) that they go into.

    A branch that goes into one addition at residual width gains nothing from a scale of its own,
    and an addition whose branch has the output's scale multiplies only the other operand. The
    inputs of a concatenation must agree, as it moves codes only: one that has other readers is
    requantized for it.
    """
    for node in graph:
        if node.name in placement.sums:
            one, two = placement.sums[node.name]
            placement.ties[two.name] = one.name
            continue
        wide = node.op is OpKind.ADD and placement.roles[node.name] is Role.RESIDUAL
        if not wide and node.op is not OpKind.CONCAT:
            continue
        for index, name in enumerate(node.inputs):
            source = graph.nodes[name]
            while source.name not in placement.roles:
                source = graph.operand(source)
            if node.op is OpKind.CONCAT:
                if len(graph.consumers(source.name)) != 1:
                    source = _part(graph, placement, node, index)
                placement.ties[source.name] = node.name
            elif source.op in ACCUMULATOR_OPS and len(graph.consumers(source.name)) == 1:
                placement.ties[source.name] = node.name


def _part(graph: Graph, placement: Placement, concat: Node, index: int) -> Node:
    """Requantize one input of a concatenation that has other readers, for its scale alone."""
    source = graph.operand(concat, index)
    name = f"{concat.name}.part{index}"
    part = Node(name, OpKind.REQUANTIZE, (source.name,), source.shape, source.batch_axis)
    part.module = concat.module
    graph.insert_after(source.name, part)
    _place(graph, placement, part, placement.bits[concat.name])
    names = list(concat.inputs)
    names[index] = name
    concat.inputs = tuple(names)
    return part
