"""Known causes of a refusal, each with its known remedy: one table, the only place for them.

A cause is looked for in the whole file (`Facts`). Those of the table's first part explain a file
alone; of the others several may hold at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vitq.compiler.foreign.facts import DEQUANTIZE, QUANTIZE, Facts, label, op_of

DYNAMIC = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
CONTROL = ("If", "Loop", "Scan")
FUSED = tuple(
    f"com.microsoft.{name}"
    for name in "Attention BiasGelu FastGelu FusedMatMul Gelu MultiHeadAttention QuickGelu "
    "SkipLayerNormalization LayerNormalization".split()
)
PRODUCTS = ("MatMul", "Gemm", "Conv")
ENDS = (
    *("Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "TopK"),
    *("Log", "Exp", "Tanh", "HardSigmoid", "Softplus", "Softsign"),
)
HALF = ("FLOAT16", "BFLOAT16")
BYTES = ("INT8", "UINT8")
STATIC = (
    "onnxruntime.quantization.quantize_static(..., quant_format=QuantFormat.QDQ, "
    "op_types_to_quantize=None)"
)
EIGHT_BITS = "activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8"


class Cause(NamedTuple):
    """Why files of one kind are refused.

    Attributes:
        find: the nodes (their labels) that show it; none where it does not hold.
        says: what is wrong.
        remedy: what to do.
        alone: whether it explains everything else.
    """

    find: Callable[[Facts], list[str]]
    says: str
    remedy: str
    alone: bool = False


def _ops(*names: str) -> Callable[[Facts], list[str]]:
    return lambda facts: [label(node) for node in facts.all_of(*names)]


def _nothing(facts: Facts) -> list[str]:
    words = ("Quantize", "QLinear", "Integer", "QGemm", "QAttention")
    if any(word in op for op in facts.ops for word in words):
        return []
    return [""]


def _qoperator(facts: Facts) -> list[str]:
    names = [op for op in facts.ops if op.rpartition(".")[2].startswith(("QLinear", "QGemm"))]
    return _ops(*names)(facts) if names else []


def _contrib(facts: Facts) -> list[str]:
    return _ops(f"com.microsoft.{QUANTIZE}", f"com.microsoft.{DEQUANTIZE}")(facts)


def _typed(*types: str) -> Callable[[Facts], list[str]]:
    """Tensors of some element types."""

    def find(facts: Facts) -> list[str]:
        import onnx

        numbers = {getattr(onnx.TensorProto, t) for t in types if hasattr(onnx.TensorProto, t)}
        tensors = [name for name, t in facts.constants.items() if t.data_type in numbers]
        values = (*facts.graph.input, *facts.graph.value_info, *facts.graph.output)
        return tensors + [v.name for v in values if v.type.tensor_type.elem_type in numbers]

    return find


def _wide_products(facts: Facts) -> list[str]:
    """Products that read 16-bit codes."""
    wide = _typed("INT16", "UINT16")(facts)
    steps = [n for n in facts.all_of(DEQUANTIZE) if len(n.input) > 2 and n.input[2] in wide]
    found = [node for step in steps for node in facts.behind(step) if node.op_type in PRODUCTS]
    return list(dict.fromkeys(label(node) for node in found))


def _uneven_weights(facts: Facts) -> list[str]:
    """Weights of a product whose codes, less their zero point, do not fit int8."""
    found = []
    for node in facts.all_of(DEQUANTIZE):
        codes = facts.array(node.input[0])
        zero = facts.array(node.input[2]) if len(node.input) > 2 else None
        if codes is None or zero is None or codes.size < 2 or codes.dtype.itemsize > 1:
            continue
        reads = any(reader.op_type in PRODUCTS for reader in facts.behind(node))
        if reads and zero.size == 1 and zero.any():
            centred = codes.astype(np.int64) - int(zero.reshape(()))
            found += [label(node)] if centred.min() < -128 or centred.max() > 127 else []
    return found


def _pieces_of_gelu(facts: Facts) -> list[str]:
    """Each erf of a GELU whose steps have quantizers between them."""
    return [
        label(node)
        for node in facts.all_of("Erf")
        if any(r.op_type == QUANTIZE for r in facts.behind(node)) or _quantized_input(facts, node)
    ]


def _quantized_input(facts: Facts, node: Any) -> bool:
    source = facts.made.get(node.input[0]) if node.input else None
    return source is not None and source.op_type == DEQUANTIZE


def _pieces_of_norm(facts: Facts) -> list[str]:
    if facts.opset >= 17 or facts.ops["LayerNormalization"]:
        return []
    roots = [
        node for node in facts.all_of("Sqrt") if any(r.op_type == "Div" for r in facts.behind(node))
    ]
    return [label(node) for node in roots] if facts.ops["ReduceMean"] else []


def _end(facts: Facts) -> list[str]:
    """Find a last operator whose results are no logits."""
    names = [output.name for output in facts.graph.output]
    last = [facts.before(name) for name in names]
    return [label(node) for node in last if node is not None and op_of(node) in ENDS]


def _unquantized(facts: Facts) -> list[str]:
    """Find sums and normalizations that nothing quantizes, in a file that has quantizers."""
    if not facts.ops[QUANTIZE]:
        return []
    sums = [n for n in facts.all_of("Add") if not any(i in facts.constants for i in n.input)]
    nodes = sums + facts.all_of("LayerNormalization", "Gelu", "Softmax")
    return [label(node) for node in nodes if facts.behind(node) and not facts.is_quantized(node)]


def _unquantized_input(facts: Facts) -> list[str]:
    """Find what reads the pictures where that is no quantizer, in a file that has some."""
    if not facts.ops[QUANTIZE] or not facts.graph.input:
        return []
    readers = facts.readers.get(facts.graph.input[0].name, [])
    return [label(node) for node in readers if node.op_type in PRODUCTS]


CAUSES = (
    Cause(
        _nothing,
        "nothing in it is quantized (it has no QuantizeLinear)",
        f"quantize it: vitq quantize --model FILE.onnx --calib PICTURES; or with {STATIC}",
        alone=True,
    ),
    Cause(
        _ops(*DYNAMIC, "com.microsoft.DynamicQuantizeMatMul", "com.microsoft.MatMulNBits"),
        "a dynamic quantization: the file holds no ranges of its activations",
        f"calibrate: {STATIC} instead of quantize_dynamic",
        alone=True,
    ),
    Cause(
        _qoperator,
        "QOperator format",
        "quantize again with quant_format=QuantFormat.QDQ",
        alone=True,
    ),
    Cause(
        _contrib,
        "quantizers of onnxruntime's own domain (com.microsoft)",
        "export with opset 21, whose quantizers have 16 bits too, and quantize with "
        "extra_options={'UseQDQContribOps': False}",
        alone=True,
    ),
    Cause(
        _ops(*CONTROL),
        "control flow (a sub-graph)",
        "export in eval mode with fixed sizes: torch.onnx.export(model.eval(), ..., dynamo=True)",
        alone=True,
    ),
    Cause(
        _ops(*FUSED),
        "operators that onnxruntime's optimizer made",
        "quantize the file as it was exported: quant_pre_process(..., skip_optimization=True)",
    ),
    Cause(
        _typed(*HALF),
        "16-bit floats",
        "export from model.float(), then quantize",
        alone=True,
    ),
    Cause(
        _typed("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT4E2M1"),
        "codes that are floats of 8 or 4 bits",
        f"quantize to integers: {EIGHT_BITS}",
        alone=True,
    ),
    Cause(
        _typed("INT4", "UINT4", "INT2", "UINT2"),
        "codes of 4 or 2 bits",
        f"quantize with {EIGHT_BITS}, or the PyTorch model with vitq quantize --recipe w4a8",
        alone=True,
    ),
    Cause(
        _ops("Attention", "RMSNormalization", "RotaryEmbedding"),
        "an operator of opset 23",
        "export with opset_version=20",
    ),
    Cause(_ops("Dropout"), "Dropout", "export in eval mode: model.eval()"),
    Cause(
        _pieces_of_gelu,
        "GELU in pieces, with quantizers between them",
        "export with opset 20 or later, whose Gelu is one operator, then quantize",
    ),
    Cause(
        _pieces_of_norm,
        "LayerNorm in pieces",
        "export with opset 20 or later, whose LayerNormalization is one operator, then quantize",
    ),
    Cause(
        _end,
        "it ends in an operator behind the logits",
        "leave that out: the library gives the logits, whose order is the same",
    ),
    Cause(
        _wide_products,
        "matrix products that read 16-bit codes",
        f"quantize with {EIGHT_BITS}",
    ),
    Cause(
        _uneven_weights,
        "weights that are not symmetric",
        "quantize with weight_type=QuantType.QInt8, extra_options={'WeightSymmetric': True}",
    ),
    Cause(
        _unquantized_input,
        "the pictures have no quantizer",
        f"quantize all operators: {STATIC}",
    ),
    Cause(
        _unquantized,
        "operators without a quantizer behind them (it has some at matrix products only)",
        f"quantize all operators: {STATIC}, or the PyTorch model with vitq quantize",
    ),
)
"""In the order in which they are said."""


class Found(NamedTuple):
    """A cause that holds for a file.

    Attributes:
        cause: of the table.
        nodes: the labels that show it.
    """

    cause: Cause
    nodes: list[str]


def causes_of(facts: Facts) -> list[Found]:
    """Return the known causes that hold for a file; only the first where that explains all."""
    found = [Found(cause, nodes) for cause in CAUSES if (nodes := cause.find(facts))]
    alone = [one for one in found if one.cause.alone]
    return alone[:1] or found
