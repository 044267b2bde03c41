r"""How much each value of the network matters for its predictions, from the calibration pictures.

The loss of a small error e on a value x is, to second order and with the Hessian replaced by the
diagonal of the Fisher information (BRECQ, arXiv:2102.05426, Eq. 10; PTQ4ViT, arXiv:2111.12293,
Eq. 6 and 7),

    E[L(x + e) - L(x)] ~= 1/2 sum_i E[(dL/dx_i)**2] e_i**2.

No labels are needed: the loss is the cross entropy against labels drawn from the float model's own
predictions, which is what the Fisher information is defined with (the papers use the true labels,
or the distance between the float and the quantized prediction). Results that rank no classes have
a loss of their own (`quantization.ranges.losses`).

In a ViT that reads its class token this is anything but even: in DeiT-Tiny's last blocks nine
tenths of the importance are on one token of 197.

Deviations: every picture counts alike (a picture that the model is sure of has gradients near 0),
and the importance is averaged over pictures, so that it is a property of a position and a channel
and not of a picture: with few pictures it would be noise.
"""

import torch

from vitq.quantization.graph.graph import Graph, OpKind
from vitq.quantization.ranges.losses import drawn_loss, results_of
from vitq.quantization.run.fake_quantize import compute_node

BATCH = 2
DRAWS = 2
"""Labels drawn for each picture."""
EVEN_SHARE = 0.5
"""Share of the weight that is spread evenly over all values: what matters little on the calibration
pictures may matter on others."""
Importance = dict[str, torch.Tensor]


def measure_importance(graph: Graph, names: set[str], pixels: torch.Tensor) -> Importance:
    """Mean squared gradients of the predictions, in float.

    Args:
        graph: float.
        names: nodes whose results are watched.
        pixels: (N, C, H, W) uint8.

    Returns:
        Node name -> float32 of the node's shape at batch 1, mean 1, at least `EVEN_SHARE`.
    """
    generator = torch.Generator().manual_seed(0)
    sums: Importance = {}
    for batch in torch.split(pixels, BATCH):
        for name, gradient in _squared_gradients(graph, names, batch, generator).items():
            sums[name] = sums.get(name, 0) + gradient
    found = {}
    for name, total in sums.items():
        mean = float(total.mean())
        even = torch.ones_like(total)
        found[name] = EVEN_SHARE * even + (1 - EVEN_SHARE) * total / mean if mean > 0 else even
    return found


@torch.enable_grad()
def _squared_gradients(
    graph: Graph, names: set[str], pixels: torch.Tensor, generator: torch.Generator
) -> Importance:
    """Return sums over the batch of squared gradients, each picture's scaled to mean 1."""
    values: dict[str, torch.Tensor] = {}
    watched: dict[str, torch.Tensor] = {}
    for node in graph:
        if node.op is OpKind.INPUT:
            value = (pixels.to(torch.float32) / 255).requires_grad_()
        else:
            params = {r: torch.from_numpy(graph.real(node, r)) for r in node.params}
            inputs = [values[name] for name in node.inputs]
            value = compute_node(node, inputs, params, pixels.shape[0])
        if node.name in names and value.requires_grad:
            watched[node.name] = value
        values[node.name] = value
    results = results_of(graph, values)
    sums: Importance = {}
    for draw in range(DRAWS):
        loss = drawn_loss(results, generator)
        gradients = torch.autograd.grad(
            loss, list(watched.values()), retain_graph=draw < DRAWS - 1, allow_unused=True
        )
        for name, gradient in zip(watched, gradients, strict=True):
            if gradient is not None:
                node = graph.nodes[name]
                squares = _by_picture(gradient.square(), node.shape, node.batch_axis)
                sums[name] = sums.get(name, 0) + _even(squares).sum(0)
    return sums


def _by_picture(x: torch.Tensor, shape: tuple[int, ...], batch_axis: int | None) -> torch.Tensor:
    """(pictures, *shape) from a node's value at any batch size."""
    assert batch_axis is not None
    count = x.shape[batch_axis] // shape[batch_axis]
    split = x.unflatten(batch_axis, (count, shape[batch_axis]))
    return split.movedim(batch_axis, 0)


def _even(squares: torch.Tensor) -> torch.Tensor:
    """Scale each picture's values to mean 1."""
    flat = squares.reshape(squares.shape[0], -1)
    return squares / flat.mean(1).clamp_min(1e-30).reshape(-1, *[1] * (squares.ndim - 1))


def spread(importance: torch.Tensor, value: torch.Tensor, batch_axis: int) -> torch.Tensor:
    """Return the importance of every element of a node's value.

    Args:
        importance: of the node, at batch 1.
        value: the node's result at any batch size.
        batch_axis: the node's.

    Returns:
        The shape of `value` (expanded, not copied, where the axis has one element for a picture).
    """
    count = value.shape[batch_axis] // importance.shape[batch_axis]
    repeats = [1] * value.ndim
    repeats[batch_axis] = count
    return importance.repeat(repeats)
