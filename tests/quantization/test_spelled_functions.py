"""Functions and norms, of torch or written by hand: same function, or a refusal."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

from tests.quantization.test_spellings import CONSTANT, Head, counted, end
from tests.quantization.test_tracing import assert_same_function
from tests.quantization.vits import SHAPE, Toy, normalized, pixels, toy
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.rewrites import fold_channel_scales, fold_channel_shifts
from vitq.quantization.graph.tracing import trace
from vitq.quantization.run.fake_quantize import GraphModule

SLOPES = torch.linspace(-0.5, 1, 16)
FUNCTIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], dict[str, int]]] = {
    "softsign": (F.softsign, {"pointwise": 1, "multiply": 0}),
    "hardtanh": (F.hardtanh, {"pointwise": 1}),
    "hardtanh_of_two": (lambda x: F.hardtanh(x, -2, 0.5), {"pointwise": 1}),
    "clip": (lambda x: x.maximum(torch.tensor(-0.3)).clamp_max(0.5), {"pointwise": 2}),
    "minimum": (lambda x: torch.minimum(torch.tensor(0.2), x), {"pointwise": 1}),
    "selu": (F.selu, {"pointwise": 1, "scale": 1}),
    "celu": (lambda x: F.celu(x, 0.6), {"pointwise": 1, "scale": 2}),
    "celu_of_1": (F.celu, {"pointwise": 1, "scale": 0}),
    "prelu": (lambda x: F.prelu(x, SLOPES[:1]), {"pointwise": 1, "multiply": 0}),
    "prelu_of_0": (lambda x: F.prelu(x, torch.zeros(1)), {"pointwise": 1}),
    "prelu_of_channels": (lambda x: F.prelu(x, SLOPES), {"pointwise": 2, "multiply": 1}),
    "rrelu": (F.rrelu, {"pointwise": 1}),
    "log_sigmoid": (F.logsigmoid, {"pointwise": 1}),
    "softplus": (lambda x: F.softplus(x, 2.0, 30), {"pointwise": 1, "scale": 2}),
    "reciprocal": (lambda x: (x.abs() + 1).reciprocal(), {"pointwise": 2, "multiply": 0}),
    "quotient": (lambda x: x / (x.abs() + 1.5), {"pointwise": 2, "multiply": 1}),
    "quotient_of_1": (lambda x: 1 / (x.abs() + 1), {"pointwise": 2, "multiply": 0}),
    "glu": (lambda x: F.glu(x, 1), {"pointwise": 1, "multiply": 1}),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    function, wanted = FUNCTIONS[name]
    graph = assert_same_function(toy(head=lambda self, x: end(self, function(x))), tolerance=2e-5)
    found = counted(graph)
    assert {op: found[op] for op in wanted} == wanted


EPS = 1e-3
Norm = Callable[[Toy, torch.Tensor], torch.Tensor]


def centred(x: torch.Tensor) -> torch.Tensor:
    """Without its mean."""
    return x - x.mean(-1, keepdim=True)


def moment(x: torch.Tensor) -> torch.Tensor:
    """Mean of squares, and eps."""
    return x.pow(2).mean(-1, keepdim=True) + EPS


def by_pair(
    both: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    x: torch.Tensor,
    eps: float | None = None,
    correction: int = 0,
) -> torch.Tensor:
    """LayerNorm by an operator that returns the spread and the mean."""
    spread, mean = both(x, dim=(-1,), correction=correction, keepdim=True)
    return (x - mean) / (spread if eps is None else torch.sqrt(spread + eps))


BY_HAND: dict[str, tuple[Norm, str]] = {
    "sqrt": (lambda _, x: centred(x) / torch.sqrt(moment(centred(x))), "layer_norm"),
    "var": (
        lambda _, x: centred(x) / (x.var(-1, keepdim=True, unbiased=False) + EPS).sqrt(),
        "layer_norm",
    ),
    "unbiased": (
        lambda _, x: centred(x) * torch.rsqrt(x.var(-1, keepdim=True) + EPS), "layer_norm",
    ),
    "var_mean": (lambda _, x: by_pair(torch.var_mean, x, EPS), "layer_norm"),
    "var_mean_unbiased": (
        lambda _, x: by_pair(torch.var_mean, x, EPS, correction=1), "layer_norm",
    ),
    "std_mean": (lambda _, x: by_pair(torch.std_mean, x), "layer_norm"),
    "std": (lambda _, x: centred(x) / x.std(-1, keepdim=True, correction=0), "layer_norm"),
    "reciprocal": (lambda _, x: centred(x) * (1 / moment(centred(x)).sqrt()), "layer_norm"),
    "pow": (lambda _, x: centred(x) * moment(centred(x)) ** -0.5, "layer_norm"),
    "rms": (lambda _, x: x * torch.rsqrt(moment(x)), "rms_norm"),
    "rms_of_products": (
        lambda _, x: x / ((x * x).mean(-1, keepdim=True).add(EPS)).sqrt(), "rms_norm",
    ),
    "rms_of_casts": (
        lambda _, x: x.float() * (x.float().square().mean(-1, True) + torch.tensor(EPS)).rsqrt()
        .to(x.dtype), "rms_norm",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_norms_by_hand(name: str) -> None:
    """One operator each, whose weights take the scale, and the shift where there is one, behind."""
    norm, op = BY_HAND[name]

    def head(self: Toy, x: torch.Tensor) -> torch.Tensor:
        weighted = self.norm.weight * norm(self, x)
        return end(self, weighted + self.norm.bias if op == "layer_norm" else weighted)

    graph = assert_same_function(toy(head=head), tolerance=2e-5)
    x = normalized(pixels(2))
    wanted = GraphModule(graph)(x)
    fold_channel_scales(graph)
    fold_channel_shifts(graph)
    found = counted(graph)
    assert found == {"input": 1, "conv2d": 1, "reshape": 1, "permute": 1, "add": 1, "mean": 1,
                     "linear": 2, "layer_norm": 1} | {op: 1 + (op == "layer_norm")}  # fmt: skip
    torch.testing.assert_close(GraphModule(graph)(x), wanted, rtol=1e-5, atol=1e-5)


def test_an_addend_that_is_no_vector_stays() -> None:
    """Positions, and a vector behind a layer that something else reads."""
    for head in (
        lambda self, x: end(self, self.fc(x) + CONSTANT),
        lambda self, x: end(self, (y := self.fc(x)) + self.norm.bias + y),
    ):
        graph = trace(toy(head=head), SHAPE)
        before = counted(graph)
        fold_channel_shifts(graph)
        assert counted(graph) == before


REFUSED: dict[str, Head] = {
    "a norm by the root of another tensor": lambda self, x: end(
        self, self.fc(x) * moment(x).rsqrt()
    ),
    "var in this form": lambda self, x: end(self, x + x.var(-1, keepdim=True)),
    "var_mean": lambda self, x: end(self, x - torch.var_mean(x)[1]),
    "std in this form.*write sqrt": lambda self, x: end(
        self, centred(x) / (x.std(-1, keepdim=True) + EPS)
    ),
    "prelu with a slope computed": lambda self, x: end(self, F.prelu(x, x[0, 0, :1])),
    "rrelu in training mode": lambda self, x: end(self, F.rrelu(x, training=True)),
    "softplus with beta -1 and": lambda self, x: end(self, F.softplus(x, -1)),
    "elu of scale -2": lambda self, x: end(self, torch.ops.aten.elu(x, 1.0, -2.0)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(message: str) -> None:
    with pytest.raises(VitqError, match=f"not supported: .*({message})"):
        trace(toy(head=REFUSED[message]), SHAPE)
