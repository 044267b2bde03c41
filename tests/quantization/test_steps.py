"""Values far finer than what goes into them or reads them: one token, cancelled, always 0."""

import numpy as np
import pytest
import torch

from tests.quantization.test_fronts import assert_integers_are_the_references
from tests.quantization.vits import SHAPE, Toy, quantize, toy
from vitq.numerics.qparams import QuantParams
from vitq.quantization.graph.graph import Graph, Node, OpKind
from vitq.quantization.graph.tracing import trace
from vitq.quantization.plan.placement import Placement, Role
from vitq.quantization.ranges.layers import input_scale
from vitq.quantization.ranges.steps import FINEST, settle_steps


def selected(self: Toy, x: torch.Tensor) -> torch.Tensor:
    """Read one token, which is next to 0 among others that are not; its branch is, too."""
    tiny = 1e-6 * self.fc.weight[:1, None].expand(x.shape[0], 1, 16)
    x = torch.cat([tiny, x], 1)
    token = (x + 1e-6 * self.fc(self.norm(x)))[:, :1]
    return self.last(self.norm(token + 1e-5 * self.fc(token)).mean(1) + x[:, 1])


def cancelled(self: Toy, x: torch.Tensor) -> torch.Tensor:
    """Add what takes all but a millionth away."""
    rest = x + torch.neg(x) * (1 - 1e-6)
    return self.last((x + rest).mean(1))


def always_zero(self: Toy, x: torch.Tensor) -> torch.Tensor:
    """Add a sum of branches that are always 0, as tables of positions are before training."""
    branch = torch.nn.functional.linear(x, torch.zeros(16, 16), torch.zeros(16))
    return self.last((1e-3 * x + (branch + branch * 0.5)).mean(1))


def zero_addend(self: Toy, x: torch.Tensor) -> torch.Tensor:
    """Add 0, as an untrained BatchNorm does that no layer takes up; a layer reads the sum."""
    mean, var = torch.zeros(16), torch.ones(16)
    normed = torch.nn.functional.batch_norm(self.norm(x).transpose(1, 2), mean, var)
    return self.last(self.fc(normed.transpose(1, 2)).mean(1))


def below_eps(self: Toy, x: torch.Tensor) -> torch.Tensor:
    """Normalize what is next to nothing beside the normalization's eps."""
    return self.last(self.norm(1e-10 * self.fc(x)).mean(1) + x[:, 0])


HEADS = {
    "below_eps": below_eps,
    "selected": selected,
    "cancelled": cancelled,
    "always_zero": always_zero,
    "zero_addend": zero_addend,
}


def finest(graph: Graph) -> float:
    """Return the largest number of a sum's steps in one step of an operand."""
    sums = [node for node in graph if node.op is OpKind.ADD]
    ratios = [input_scale(graph, n, i) / float(n.out.scale) for n in sums for i in (0, 1) if n.out]
    return max(ratios)


def placed(graph: Graph) -> Placement:
    """Where the quantizers of a quantized graph are."""
    return Placement({node.name: Role.RESIDUAL for node in graph if node.out is not None})


@pytest.mark.parametrize("method", ["repq", "best"])
@pytest.mark.parametrize("head", HEADS)
def test_steps_hold_what_an_addition_can_express(head: str, method: str) -> None:
    assert finest(quantize(trace(toy(head=HEADS[head]), SHAPE), method=method)) <= FINEST * 1.0001


@pytest.mark.parametrize("head", HEADS)
def test_integers_are_the_references(head: str) -> None:
    assert_integers_are_the_references(toy(head=HEADS[head]))


def test_no_step_of_an_ordinary_model_is_raised(digits_graph: Graph) -> None:
    before = {node.name: node.out for node in digits_graph}
    settle_steps(digits_graph, placed(digits_graph), {})
    assert all(node.out is before[node.name] for node in digits_graph)


def test_what_shares_a_sums_parameters_shares_the_raised_ones() -> None:
    nodes = [
        Node("x", OpKind.INPUT, (), (1, 4), 0),
        Node("branch", OpKind.LINEAR, ("x",), (1, 4), 0),
        Node("sum", OpKind.ADD, ("x", "branch"), (1, 4), 0),
        Node("next", OpKind.ADD, ("sum", "x"), (1, 4), 0),
    ]
    graph = Graph({node.name: node for node in nodes}, {}, {}, {"logits": "next"})
    fine = QuantParams.per_tensor(1e-9, 0, -32768, 32767)
    graph.nodes["x"].out = QuantParams.per_tensor(1.0, 0, -32768, 32767)
    graph.nodes["branch"].out = graph.nodes["sum"].out = fine
    graph.nodes["next"].out = QuantParams.per_tensor(0.5, 0, -32768, 32767)
    kept = graph.nodes["next"].out
    settle_steps(graph, placed(graph), {})
    raised = graph.nodes["sum"].out
    assert raised is graph.nodes["branch"].out and raised is not None
    assert (raised.scale == np.float32(1 / FINEST)) and (raised.qmin, raised.qmax) == (
        -32768,
        32767,
    )
    assert graph.nodes["next"].out is kept
