"""PSAQ-ViT V2 (arXiv:2209.05687): pictures on which the quantized model fails, made in a game.

The float model P is the teacher, the quantized model Q the student. In turns, the student is
fitted to the pictures, and the pictures are changed to

    L_G = L_PSE + a L_TV - b D(P(I), Q(I)),   D = mean |P(I) - Q(I)|

so that they keep the patch similarities and the smoothness of pictures (priors that need no
labels) and go where the student differs most. Gradients pass the quantizers straight through.

Deviations: there the student is trained on the pictures by gradient descent (no training code was
published); here nothing is trained, and the student is calibrated again, which is what will be
done with the pictures in the end. D is divided by the standard deviation of the teacher's logits,
so that b means the same for every model; of several results it is the mean of theirs.
"""

import copy
import functools

import numpy as np
import torch

from vitq.numerics.arrays import UInt8Array
from vitq.quantization.datafree.descent import Loss, Normalization, descend_in_batches
from vitq.quantization.datafree.losses import variation_loss
from vitq.quantization.datafree.psaq import gaussian_noise, variation_targets
from vitq.quantization.datafree.request import Request, Track
from vitq.quantization.datafree.teacher import Teacher
from vitq.quantization.graph.graph import Graph, Node
from vitq.quantization.graph.outputs import OutputLayout
from vitq.quantization.plan.methods import Method
from vitq.quantization.plan.recipe import Recipe
from vitq.quantization.ranges.calibrate import quantize_graph
from vitq.quantization.run.fake_quantize import GraphModule, simulate_node

CYCLES = 4
STEPS = 100
"""Over all cycles; each costs twice one of psaq's."""
DISCREPANCY_WEIGHT = 1.0


def psaq2_pictures(
    request: Request, graph: Graph, recipe: Recipe, method: Method, track: Track
) -> UInt8Array:
    """Make calibration pictures for one recipe and method.

    Args:
        request: how many, seed, steps, normalization, device.
        graph: float, as traced; not edited.
        recipe: of the student.
        method: how the student is calibrated.
        track: wraps the steps with a progress bar.

    Returns:
        (N, C, H, W) uint8.
    """
    teacher = Teacher(graph, request.device)
    normalization = Normalization.of(request)
    random = np.random.RandomState(request.seed + 1)
    targets = variation_targets(request, random)
    steps = -(-(request.steps or STEPS) // CYCLES)
    x = gaussian_noise(request, graph)
    for cycle in range(CYCLES):
        student = _student(request, graph, recipe, method, normalization.pixels(x))
        loss_of = functools.partial(
            _loss_of, teacher, student, normalization, targets, graph.layout
        )
        title = f"psaq2, cycle {cycle + 1} of {CYCLES}"
        x = descend_in_batches(x, loss_of, request, random, track, title, steps)
    return normalization.pixels(x)


def _loss_of(
    teacher: Teacher,
    student: GraphModule,
    normalization: Normalization,
    targets: torch.Tensor,
    layout: OutputLayout,
    part: slice,
) -> Loss:
    """L_G of some of the pictures, summed."""

    def loss(x: torch.Tensor) -> torch.Tensor:
        wanted, entropy = teacher(x)
        said = student.differentiable(x * normalization.std + normalization.mean)
        pairs = zip(*(layout.split(rows).values() for rows in (wanted, said)), strict=True)
        apart = DISCREPANCY_WEIGHT * torch.stack([discrepancy(*pair) for pair in pairs]).mean(0)
        return (variation_loss(x, targets[part]) - entropy - apart).sum()

    return loss


def discrepancy(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the logits over the spread of the teacher's.

    Args:
        teacher: (B, classes), or another result.
        student: likewise.

    Returns:
        (B,).
    """
    spread = teacher.detach().flatten(1).std(dim=1).clamp_min(1e-6)
    return (teacher - student).flatten(1).abs().mean(dim=1) / spread


def straight_through(node: Node, x: torch.Tensor) -> torch.Tensor:
    """`simulate_node` whose gradient is that of the identity."""
    return x + (simulate_node(node, x) - x).detach()


def _student(
    request: Request, graph: Graph, recipe: Recipe, method: Method, pixels: UInt8Array
) -> GraphModule:
    """Return the quantized model, calibrated on the pictures of this cycle."""
    quantized = copy.deepcopy(graph)
    data = torch.from_numpy(pixels)
    quantize_graph(quantized, data, recipe, method, request.mean, request.std)
    return GraphModule(quantized, simulate=True, quantizer=straight_through).to(request.device)
