"""Functions of each element."""

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.spellings.registry import arguments, spelling


@spelling("gelu")
def gelu(w: Walk, node: FxNode) -> Operand:
    """GELU, in either form."""
    attrs = {"approximate": node.kwargs.get("approximate", "none")}
    return w.build.rowwise(OpKind.GELU, w.x(node.args[0]), attrs)


@spelling(
    "abs", "exp", "hardsigmoid", "hardswish", "mish", "relu", "relu6", "sigmoid", "silu",
    "softsign", "tanh",
)  # fmt: skip
def plain(w: Walk, node: FxNode) -> Operand:
    """Return a function without parameters."""
    name = name_of(node)
    return w.build.pointwise(w.x(node.args[0]), name.rstrip("_"))


@spelling("elu", "leaky_relu")
def with_slope(w: Walk, node: FxNode) -> Operand:
    """ELU's alpha or leaky ReLU's slope; scaled ELU is refused."""
    name = name_of(node).rstrip("_")
    _, parameter, *rest = arguments(node, x=None, parameter=1.0 if name == "elu" else 0.01)
    if any(value != 1 for value in rest):
        raise Refusal(f"{name} in this form")
    return w.build.pointwise(w.x(node.args[0]), name, float(parameter))


@spelling("softplus")
def softplus(w: Walk, node: FxNode) -> Operand:
    """Softplus with its usual slope; PyTorch's threshold 20 changes nothing in float32."""
    _, beta, _ = arguments(node, x=None, beta=1, threshold=20)
    if beta != 1:
        raise Refusal(f"softplus with beta {beta}")
    return w.build.pointwise(w.x(node.args[0]), "softplus")


@spelling("hardtanh")
def hardtanh(w: Walk, node: FxNode) -> Operand:
    """Return ReLU6, which it is between 0 and 6."""
    _, low, high = arguments(node, x=None, low=-1, high=1)
    if (low, high) != (0, 6):
        raise Refusal(f"hardtanh from {low} to {high}")
    return w.build.pointwise(w.x(node.args[0]), "relu6")


@spelling("glu")
def glu(w: Walk, node: FxNode) -> Operand:
    """Multiply one half by the sigmoid of the other."""
    x, axis = w.x(node.args[0]), arguments(node, x=None, dim=-1)[1]
    half = x.shape[axis] // 2
    gate = w.build.pointwise(w.build.slice(x, axis, half, 2 * half), "sigmoid")
    return w.build.multiply(w.build.slice(x, axis, 0, half), gate)
