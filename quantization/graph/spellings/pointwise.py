"""Functions of each element."""

from vitq.quantization.graph.builder import Operand, Refusal
from vitq.quantization.graph.graph import OpKind
from vitq.quantization.graph.operands import FxNode, Walk, name_of
from vitq.quantization.graph.spellings.composed import compose
from vitq.quantization.graph.spellings.registry import arguments, spelling


@spelling("gelu")
def gelu(w: Walk, node: FxNode) -> Operand:
    """GELU, in either form."""
    attrs = {"approximate": node.kwargs.get("approximate", "none")}
    return w.build.rowwise(OpKind.GELU, w.x(node.args[0]), attrs)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
SURE = 15
"""Where softplus is x to 3e-7."""


@spelling(
    "abs", "exp", "hardsigmoid", "hardswish", "log_sigmoid", "mish", "relu", "relu6", "sigmoid",
    "silu", "softsign", "tanh",
)  # fmt: skip
def plain(w: Walk, node: FxNode) -> Operand | None:
    """Return a function without parameters."""
    name = name_of(node)
    if name == "tanh" and compose(w, node):
        return None
    return w.build.pointwise(w.x(node.args[0]), name.rstrip("_"))


@spelling("erf")
def erf(w: Walk, node: FxNode) -> None:
    """Remember the function that it is a part of."""
    if not compose(w, node):
        raise Refusal("erf outside of GELU")


@spelling("leaky_relu", "rrelu")
def leaky_relu(w: Walk, node: FxNode) -> Operand:
    """Leaky ReLU's slope; of a random one, which is in the middle in eval mode."""
    if name_of(node).startswith("rrelu"):
        _, low, high, training = arguments(node, x=None, low=1 / 8, high=1 / 3, training=False)[:4]
        if training:
            raise Refusal("rrelu in training mode")
        slope = (low + high) / 2
    else:
        slope = arguments(node, x=None, slope=0.01)[1]
    return _sloped(w, w.x(node.args[0]), float(slope))


def _sloped(w: Walk, x: Operand, slope: float) -> Operand:
    """Keep x where it is positive, else slope x."""
    return w.build.pointwise(x, "leaky_relu", slope) if slope else w.build.clamp(x, 0, None)


@spelling("prelu")
def prelu(w: Walk, node: FxNode) -> Operand:
    """One slope: leaky ReLU. One for each channel (axis 1): max(x, 0) + slope min(x, 0)."""
    x, slopes = w.x(node.args[0]), w.tensor(node.args[1])
    if slopes is None:
        raise Refusal("prelu with a slope computed at run time")
    if slopes.numel() == 1:
        return _sloped(w, x, float(slopes))
    wide = slopes.detach().float().reshape(-1, *(1,) * (x.rank - 2))
    factor = w.build.constant(wide.numpy(), "slopes")
    below = w.build.multiply(w.build.clamp(x, None, 0), factor)
    return w.build.add(w.build.clamp(x, 0, None), below)


@spelling("elu", "selu", "celu")
def elu(w: Walk, node: FxNode) -> Operand:
    """ELU of x * factor, times a scale, of which SELU and CELU are forms."""
    name, x = name_of(node).rstrip("_"), w.x(node.args[0])
    alpha, scale, factor = SELU_ALPHA, SELU_SCALE, 1.0
    if name == "elu":
        _, alpha, scale, factor = arguments(node, x=None, alpha=1.0, scale=1.0, factor=1.0)
    elif name == "celu":
        scale = arguments(node, x=None, alpha=1.0)[1]
        alpha, factor = 1.0, 1.0 / scale
    if scale <= 0 or factor <= 0:
        raise Refusal(f"{name} of scale {scale:g} and factor {factor:g}")
    found = w.build.pointwise(_by(w, x, factor), "elu", float(alpha))
    return _by(w, found, scale)


def _by(w: Walk, x: Operand, factor: float) -> Operand:
    return x if factor == 1 else w.build.times(x, factor)


@spelling("softplus")
def softplus(w: Walk, node: FxNode) -> Operand:
    """Softplus of beta x, by beta; a threshold of `SURE` or more changes nothing in float32."""
    _, beta, threshold = arguments(node, x=None, beta=1, threshold=20)
    if beta <= 0 or threshold < SURE:
        raise Refusal(f"softplus with beta {beta} and threshold {threshold}")
    return _by(w, w.build.pointwise(_by(w, w.x(node.args[0]), beta), "softplus"), 1 / beta)


@spelling("log_sigmoid_forward")
def log_sigmoid(w: Walk, node: FxNode) -> None:
    """Return the first of two results; the other is kept for gradients."""
    w.pending[node] = ("result", w.build.pointwise(w.x(node.args[0]), "log_sigmoid"))


@spelling("glu")
def glu(w: Walk, node: FxNode) -> Operand:
    """Multiply one half by the sigmoid of the other."""
    x, axis = w.x(node.args[0]), arguments(node, x=None, dim=-1)[1]
    half = x.shape[axis] // 2
    gate = w.build.pointwise(w.build.slice(x, axis, half, 2 * half), "sigmoid")
    return w.build.multiply(w.build.slice(x, axis, 0, half), gate)
