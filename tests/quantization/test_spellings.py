"""PyTorch's spellings of one thing become the same few operators, which compute what it does."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name PyTorch's own documentation uses

from tests.quantization.test_tracing import assert_same_function
from tests.quantization.vits import SHAPE, Toy, toy
from vitq.numerics.errors import VitqError
from vitq.quantization.graph.graph import Graph
from vitq.quantization.graph.tracing import trace

Head = Callable[[Toy, torch.Tensor], torch.Tensor]


def counted(graph: Graph) -> Counter[str]:
    """How many nodes of each kind."""
    return Counter(str(node.op) for node in graph)


def end(self: Toy, x: torch.Tensor) -> torch.Tensor:
    """Logits of tokens (B, n, 16)."""
    return self.last(x.mean(1))


def grid(x: torch.Tensor) -> torch.Tensor:
    """Tokens (B, 16, 16) as (B, C, 4, 4)."""
    return x.transpose(1, 2).reshape(x.shape[0], 16, 4, 4)


def flat(x: torch.Tensor) -> torch.Tensor:
    """Back."""
    return x.flatten(2).transpose(1, 2)


def rms(x: torch.Tensor) -> torch.Tensor:
    """RMSNorm by hand."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-3)


def windows(x: torch.Tensor) -> torch.Tensor:
    """Windows of 2 x 2 of 4 x 4 tokens, shifted by one, and back."""
    x = torch.roll(x.view(-1, 4, 4, 16), (-1, -1), (1, 2))
    x = x.view(-1, 2, 2, 2, 2, 16).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 16)
    x = F.scaled_dot_product_attention(x, x, x)
    x = x.view(-1, 2, 2, 2, 2, 16).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 4, 16)
    return torch.roll(x, (1, 1), (1, 2)).flatten(1, 2)


def in_place(self: Toy, x: torch.Tensor) -> torch.Tensor:
    """Written over what is read later."""
    y = self.fc(x)
    y.add_(x).mul_(0.5)
    z = F.relu_(y)
    return end(self, y + z)


CONSTANT = torch.linspace(-1, 1, 256).reshape(16, 16)
MASK = torch.ones(16, 16).tril().bool()

FORMS: dict[str, tuple[Head, dict[str, int]]] = {
    "product": (lambda self, x: end(self, x * self.norm(x)), {"multiply": 1}),
    "product_of_a_column": (lambda self, x: end(self, x[..., :1] * x), {"multiply": 1}),
    "product_with_a_constant": (lambda self, x: end(self, CONSTANT * x), {"multiply": 1}),
    "negative_number": (lambda self, x: end(self, x * -2.0), {"multiply": 1}),
    "neg": (lambda self, x: end(self, -x), {"multiply": 1}),
    "sub": (lambda self, x: end(self, x - self.norm(x)), {"multiply": 1, "add": 2}),
    "number_minus": (lambda self, x: end(self, 1 - x), {"multiply": 1, "add": 2}),
    "minus_constant": (lambda self, x: end(self, x - CONSTANT), {"add": 2}),
    "number": (lambda self, x: end(self, x + 1.0), {"add": 2}),
    "alpha": (lambda self, x: end(self, torch.add(x, self.norm(x), alpha=0.5)), {"scale": 1}),
    "by_constant": (lambda self, x: end(self, x / (CONSTANT + 3)), {"multiply": 1}),
    "addcmul": (lambda self, x: end(self, torch.addcmul(self.fc.bias, x, self.norm.weight)), {}),
    "in_place": (in_place, {"pointwise": 1}),
    "slice_step": (lambda self, x: end(self, x[:, 1::3]), {"take": 1}),
    "roll": (lambda self, x: end(self, x.roll((3, -2), (1, 2)) + x), {"take": 2}),
    "roll_by_nothing": (lambda self, x: end(self, x.roll(16, 1)), {"take": 0}),
    "windows": (lambda self, x: end(self, windows(x)), {"take": 4}),
    "flip": (lambda self, x: end(self, x + x.flip(1)), {"take": 1}),
    "index": (lambda self, x: end(self, x[:, [3, 0, 0]]), {"take": 1}),
    "index_pairs": (
        lambda self, x: end(self, flat(grid(x)[:, :, torch.tensor([[0], [2]]), [1, 3]])),
        {"take": 1},
    ),
    "index_select": (lambda self, x: end(self, x.index_select(1, MASK[:, 0].long())), {"take": 1}),
    "repeat": (lambda self, x: end(self, x[:, :2].repeat(1, 3, 1)), {"take": 1}),
    "repeat_interleave": (lambda self, x: end(self, x.repeat_interleave(2, 1)), {"take": 1}),
    "pad": (lambda self, x: end(self, F.pad(x, (0, 0, 1, 2))), {"pad": 1}),
    "pad_nothing": (lambda self, x: end(self, F.pad(x, (0, 0, 0, 0))), {"pad": 0}),
    "pad_and_crop": (lambda self, x: end(self, F.pad(x, (0, 0, -1, 2))), {"pad": 1}),
    "reflect": (
        lambda self, x: end(self, flat(F.pad(grid(x), (1, 2, 0, 1), "reflect"))), {"take": 2},
    ),
    "stack": (lambda self, x: end(self, torch.stack([x, self.norm(x)], 1).flatten(1, 2)), {}),
    "cat_constant": (
        lambda self, x: end(self, torch.cat([CONSTANT.expand(x.shape[0], 16, 16), x], 1)), {},
    ),
    "zeros_for_each": (
        lambda self, x: end(self, torch.cat([torch.zeros(x.shape[0], 2, 16) + 0.5, x], 1)), {},
    ),
    "movedim": (
        lambda self, x: end(self, x.unflatten(2, (2, 8)).movedim(2, 0)[1] @ CONSTANT[:8]), {},
    ),
    "tensor_unfold": (lambda self, x: end(self, x.unfold(1, 4, 2).flatten(2)[..., :16]), {}),
    "pixel_unshuffle": (
        lambda self, x: end(self, flat(F.pixel_unshuffle(grid(x), 2))[..., :16]), {},
    ),
    "max": (lambda self, x: self.last(x.amax(1)), {"max": 1}),
    "max_result": (lambda self, x: self.last(x.max(dim=1)[0]), {"max": 1}),
    "max_of_windows": (lambda self, x: end(self, flat(F.max_pool2d(grid(x), 2))), {"max": 1}),
    "mean_of_windows": (lambda self, x: end(self, flat(F.avg_pool2d(grid(x), 2))), {"mean": 2}),
    "mean_keepdim": (lambda self, x: end(self, x - x.mean((1,), keepdim=True) * 0.5), {}),
    "mean_axes": (lambda self, x: self.last(grid(x).mean((2, 3))), {"mean": 1}),
    "mean_inner_axes": (lambda self, x: self.last(x.view(-1, 4, 4, 16).mean((1, 2))), {"mean": 1}),
    "adaptive": (lambda self, x: self.last(F.adaptive_avg_pool2d(grid(x), 1).flatten(1)), {}),
    "sum": (lambda self, x: self.last(x.sum(1)), {"mean": 1, "scale": 1}),
    "softmax_axis": (lambda self, x: end(self, x.softmax(1)), {"permute": 3}),
    "resize": (
        lambda self, x: end(self, flat(F.interpolate(grid(x), (6, 5), mode="bicubic"))),
        {"matmul": 2},
    ),
    "resize_nearest": (
        lambda self, x: end(self, flat(F.interpolate(grid(x), scale_factor=2.0))), {"take": 2},
    ),
    "einsum": (
        lambda self, x: end(self, torch.einsum("bhic,bhjc->bhij", x[:, None], x[:, None])[:, 0]),
        {"matmul": 1},
    ),
    "einsum_table": (
        lambda self, x: end(self, torch.einsum(
            "bhwc,hkc->bhwk", x.view(-1, 4, 4, 16), CONSTANT.view(4, 4, 16).repeat(1, 4, 1)
        ).flatten(1, 2)),
        {"matmul": 1},
    ),
    "einsum_permutes": (lambda self, x: end(self, torch.einsum("bnc->bcn", x)), {"matmul": 0}),
    "layer_norm_axes": (lambda self, x: end(self, F.layer_norm(x, (16, 16))), {"layer_norm": 2}),
    "layer_norm_alone": (lambda self, x: end(self, F.layer_norm(x, (16,))), {"layer_norm": 2}),
    "group_norm": (lambda self, x: end(self, flat(F.group_norm(grid(x), 1, self.fc.bias))), {}),
    "batch_norm": (
        lambda self, x: end(self, flat(F.batch_norm(grid(x), CONSTANT[1], CONSTANT[2] + 3))),
        {"multiply": 1},
    ),
    "rms_norm": (
        lambda self, x: end(self, F.rms_norm(x, (16,), self.norm.weight)), {"rms_norm": 1},
    ),
    "rms_norm_by_hand": (lambda self, x: end(self, rms(x) * self.norm.weight), {"rms_norm": 1}),
    "normalize": (lambda self, x: end(self, F.normalize(x, dim=-1)), {"rms_norm": 1}),
    "normalize_axis": (lambda self, x: end(self, F.normalize(x, dim=1)), {"rms_norm": 1}),
    "silu": (lambda self, x: end(self, F.silu(x)), {"pointwise": 1}),
    "silu_by_hand": (lambda self, x: end(self, x * torch.sigmoid(x)), {"pointwise": 1}),
    "quick_gelu": (lambda self, x: end(self, x * torch.sigmoid(1.702 * x)), {"pointwise": 1}),
    "relu6": (lambda self, x: end(self, F.relu6(x * 9) + x.clamp(0, 6)), {"pointwise": 2}),
    "elu": (lambda self, x: end(self, F.elu(x, 0.7) + F.leaky_relu(x, 0.2)), {"pointwise": 2}),
    "others": (
        lambda self, x: end(self, F.mish(x) + F.hardswish(x) + F.softplus(x).tanh()),
        {"pointwise": 4},
    ),
    "glu": (lambda self, x: end(self, F.glu(torch.cat([x, self.norm(x)], -1))), {"multiply": 1}),
    "causal": (
        lambda self, x: end(self, F.scaled_dot_product_attention(x, x, x, is_causal=True)),
        {"softmax": 1, "add": 2},
    ),
    "boolean_mask": (
        lambda self, x: end(self, F.scaled_dot_product_attention(x, x, x, MASK)), {"add": 2},
    ),
    "added_mask": (
        lambda self, x: end(self, F.scaled_dot_product_attention(x, x, x, CONSTANT)), {"add": 2},
    ),
    "infinite_mask": (
        lambda self, x: end(self, (x @ x.mT + torch.where(MASK, 0.0, -torch.inf)).softmax(-1) @ x),
        {"add": 2},
    ),
    "masked_fill": (
        lambda self, x: end(self, (x @ x.mT).masked_fill(~MASK, -torch.inf).softmax(-1) @ x),
        {"add": 2},
    ),
    "zero_fill": (lambda self, x: end(self, x.masked_fill(~MASK, 0)), {"multiply": 1}),
    "grouped_heads": (
        lambda self, x: end(self, F.scaled_dot_product_attention(
            x.view(-1, 16, 4, 4).transpose(1, 2), x.view(-1, 16, 4, 4)[:, :, :2].transpose(1, 2),
            x.view(-1, 16, 4, 4)[:, :, 1:3].transpose(1, 2), enable_gqa=True,
        ).transpose(1, 2).flatten(2)),
        {"take": 2},
    ),
    "mask_made_like_the_picture": (
        lambda self, x: end(self, (x @ x.mT + region(x)).softmax(-1) @ x), {"add": 2},
    ),
    "no_autocast": (lambda self, x: end(self, no_autocast(x)), {"multiply": 1}),
    "no_grad": (lambda self, x: end(self, no_grad(self, x)), {}),
}  # fmt: skip


def region(x: torch.Tensor) -> torch.Tensor:
    """A mask written part by part, as shifted windows have it."""
    mask = x.new_zeros(16)
    mask[:5] = 1
    apart = mask[:, None] - mask[None]
    return apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)


def no_autocast(x: torch.Tensor) -> torch.Tensor:
    """An angle's table that is made in float32 whatever the rest is, and dead code beside it."""
    with torch.autocast("cpu", enabled=False):
        _ = torch.sin(x) * 2
        table = torch.arange(16, dtype=torch.float32)[:, None].cos().expand(16, 16)
        y = x * table
    return y + x


def no_grad(self: Toy, x: torch.Tensor) -> torch.Tensor:
    """A part that has no gradients, made of what no picture decides and of what it does."""
    with torch.no_grad():
        table = torch.arange(16)[:, None] * self.fc.weight
        y = self.norm(x)
    return x + y * table


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    head, wanted = FORMS[form]
    found = counted(assert_same_function(toy(head=head), tolerance=2e-5))
    assert {op: found[op] for op in wanted} == wanted


class Reshaped(Toy):
    """Patches by reshape and a linear layer, as einops spells them."""

    def __init__(self, overlapping: bool) -> None:
        super().__init__()
        self.overlapping = overlapping
        self.embed = nn.Linear(3 * 64, 16)

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, 32, 32) to (B, 16, 16)."""
        if self.overlapping:
            return self.embed(F.unfold(x, 8, stride=6, padding=1).mT)
        x = x.reshape(-1, 3, 4, 8, 4, 8).permute(0, 2, 4, 3, 5, 1)
        return self.embed(x.reshape(-1, 16, 8 * 8 * 3))


@pytest.mark.parametrize("overlapping", [False, True])
def test_patches_by_hand(overlapping: bool) -> None:
    assert_same_function(Reshaped(overlapping).eval())


class Encoder(Toy):
    """PyTorch's own layers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 2, 32, activation=F.gelu, batch_first=kind != "first",
                                       norm_first=kind == "norm"), 2, enable_nested_tensor=False,
        )  # fmt: skip
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        if self.kind == "attention":
            return end(
                self, self.attention(x, x, x)[0] + self.attention(x, x, x, attn_mask=~MASK)[0]
            )
        if self.kind == "first":
            return self.last(self.layers(x.transpose(0, 1)).mean(0))
        return end(self, self.layers(x))


@pytest.mark.parametrize("kind", ["norm", "last", "first", "attention"])
@pytest.mark.parametrize("frozen", [False, True])
def test_layers_of_pytorch(kind: str, frozen: bool) -> None:
    model = Encoder(kind).eval().requires_grad_(not frozen)
    assert_same_function(model, tolerance=2e-5)


REFUSED: dict[str, Head] = {
    "sin .*let --output-features name the modules before it": lambda self, x: end(
        self, torch.sin(x)
    ),
    "index by a mask": lambda self, x: end(self, x[:, MASK[3]]),
    "along the pictures of a batch.*leave axis 0 alone": lambda self, x: end(self, x.flip(0)),
    "mean over all axes": lambda self, x: self.last(x[:, 0]) + x.mean(),
    "clamp to 1.0, 2.0, which leaves out 0": lambda self, x: end(self, x.clamp(1, 2)),
    "clamp to a tensor": lambda self, x: end(self, torch.maximum(x, CONSTANT)),
    "index that depends on the picture.*what is read must not": lambda self, x: end(
        self, x[:, x[0, :, 0].argsort()]
    ),
    "pad with -inf.*finite number": lambda self, x: end(
        self, F.pad(x, (0, 0, 1, 1), value=-torch.inf)
    ),
    "einsum bnc,bnd,bne->bcd": lambda self, x: end(self, torch.einsum("bnc,bnd,bne->bcd", x, x, x)),
    "max_pool1d with kernel": lambda self, x: end(self, F.max_pool1d(x.mT, 3, 1, 1).mT),
    "add_ on a part of a tensor .slice along axis 1": lambda self, x: end(self, odd(self.fc(x))),
    "rand": lambda self, x: end(self, x + torch.rand(16)),
    "div that rounds": lambda self, x: end(self, torch.div(x, x, rounding_mode="floor")),
    "pow with exponent 3": lambda self, x: end(self, x**3),
    "attention with scale 0": lambda self, x: end(
        self, F.scaled_dot_product_attention(x, x, x, scale=0.0)
    ),
    "roll over all axes": lambda self, x: end(self, x.roll(1)),
}


def two_views(x: torch.Tensor) -> torch.Tensor:
    """Write through one view, and read through others; a copy keeps what it was."""
    seen, kept = x[:, 1:3].transpose(1, 2), x.transpose(1, 2).reshape(x.shape[0], -1, 16)
    second = x[:, 8:]
    changed = second.add_(1.0)
    changed.mul_(3.0)
    x[:, 1:].add_(1.0)
    whole = x.flatten(1).unflatten(1, (16, 16)).unsqueeze(1).squeeze(1)
    whole.mul_(torch.arange(16.0))
    return x + seen.mean(2, keepdim=True).mT + kept + second.repeat(1, 2, 1)


def odd(x: torch.Tensor) -> torch.Tensor:
    """Write every second place."""
    x[:, 1::2].add_(1.0)
    return x


def part(x: torch.Tensor) -> torch.Tensor:
    """Write into a part, and read the whole."""
    x[:, 1:].add_(1.0)
    return x


def assigned(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Change parts of parts, in each way."""
    x[:, 1:, 4:] += y[:, 1:, 4:]
    x[:, 2] = y[:, 0]
    x[..., 3:5] = 0.5
    x.mT.narrow(1, 6, 3).mul_(2.0)
    x.view(x.shape[0], 16, 4, 4)[:, :, 1, 2] = y[..., 0]
    return x


def filled(y: torch.Tensor) -> torch.Tensor:
    """Write what the picture decides into what it does not."""
    whole = torch.zeros(y.shape[0], 16, 20)
    whole[:, :, 2:18] = y
    return whole[..., :18]


WRITTEN: dict[str, Head] = {
    "part": lambda self, x: end(self, part(self.fc(x))),
    "two_views": lambda self, x: end(self, two_views(self.fc(x))),
    "assigned": lambda self, x: end(self, assigned(self.fc(x), self.norm(x))),
    "filled": lambda self, x: end(self, filled(self.fc(x))[..., 2:]),
    "last_only": lambda self, x: end(self, self.fc(x)[:, 1:].add_(x[:, :15])),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_parts_that_are_written(name: str) -> None:
    assert_same_function(toy(head=WRITTEN[name]), tolerance=2e-5)


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(message: str) -> None:
    with pytest.raises(VitqError, match=f"not supported: .*({message})") as raised:
        trace(toy(head=REFUSED[message]), SHAPE)
    assert "\n" not in str(raised.value)


def test_an_unknown_form_ends_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitq.quantization.graph.spellings import registry

    def broken(walk: Any, node: Any) -> Any:
        return node.args[17]

    monkeypatch.setitem(registry._SPELLINGS, "gelu", broken)
    model = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.GELU(), nn.Flatten(), nn.Linear(128, 4))
    with pytest.raises(VitqError, match=r"gelu in this form \(x1, in 1\)"):
        trace(model, SHAPE)
