"""Small models whose attention has biases, masks, windows or other sources than one tensor."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.quantization.vits import Toy, lively

HEADS, TOKENS, CHANNELS = 2, 16, 16
WINDOW = 4
COUNT = TOKENS // WINDOW


class Attention(Toy):
    """A `Toy` whose body is attention; subclasses choose what is added to its scores."""

    hidden = -100.0

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.bias = nn.Parameter(torch.zeros(HEADS, TOKENS, TOKENS))
        self.small = nn.Parameter(torch.zeros(HEADS, WINDOW, WINDOW))
        lively(self, 3)
        with torch.no_grad():
            self.bias.copy_(
                torch.randn(self.bias.shape, generator=torch.Generator().manual_seed(1))
            )
            self.small.copy_(self.bias[:, :WINDOW, :WINDOW])
        keep = torch.rand(COUNT, WINDOW, WINDOW, generator=torch.Generator().manual_seed(2)) > 0.4
        keep |= torch.eye(WINDOW, dtype=torch.bool)
        hidden = torch.full(keep.shape, self.hidden)
        self.register_buffer("mask", torch.where(keep, torch.zeros(()), hidden))
        self.eval()

    def split(self, x: torch.Tensor) -> Any:
        """Queries, keys and values (B, H, N, D)."""
        size = x.shape[0], x.shape[1], 3, HEADS, CHANNELS // HEADS
        return self.qkv(x).reshape(size).permute(2, 0, 3, 1, 4).unbind(0)

    def merge(self, x: torch.Tensor) -> torch.Tensor:
        """(B, H, N, D) to (B, N, C)."""
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], CHANNELS)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attention of all tokens."""
        q, k, v = self.split(x)
        scores = q * 0.35 @ k.transpose(-2, -1) + self.bias
        return self.merge(scores.softmax(-1) @ v)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        """A residual branch."""
        return x + self.fc(self.attend(self.norm(x)))


class Causal(Attention):
    """-Inf above the diagonal, behind the factor."""

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attention of the tokens before."""
        q, k, v = self.split(x)
        hidden = torch.full((TOKENS, TOKENS), -torch.inf).triu(1)
        return self.merge(((q @ k.transpose(-2, -1)) * 0.35 + hidden).softmax(-1) @ v)


class Swin(Attention):
    """Windows of tokens, a bias for each head, a mask for each window, as timm spells them."""

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attention within windows."""
        batch = x.shape[0]
        q, k, v = self.split(x.reshape(batch * COUNT, WINDOW, CHANNELS))
        scores = (q * 0.35) @ k.transpose(-2, -1) + self.small
        scores = scores.view(-1, COUNT, HEADS, WINDOW, WINDOW)
        scores = scores + self.mask.unsqueeze(1).unsqueeze(0)
        scores = scores.view(-1, HEADS, WINDOW, WINDOW)
        return self.merge(scores.softmax(-1) @ v).reshape(batch, TOKENS, CHANNELS)


class Infinite(Swin):
    """Masks of -Inf."""

    hidden = -torch.inf


class Repeated(Attention):
    """A mask that is repeated for each picture, as timm's fused form spells it."""

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attention within windows."""
        batch = x.shape[0]
        q, k, v = self.split(x.reshape(batch * COUNT, WINDOW, CHANNELS))
        mask = (self.mask.unsqueeze(1) + self.small).unsqueeze(0)
        mask = mask.expand(batch, COUNT, HEADS, WINDOW, WINDOW)
        scores = q @ k.transpose(-2, -1) + mask.reshape(-1, HEADS, WINDOW, WINDOW)
        return self.merge(scores.softmax(-1) @ v).reshape(batch, TOKENS, CHANNELS)


class Pooled(Attention):
    """A learned query over all tokens, of which a mask hides some: SigLIP's pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, CHANNELS))
        self.query, self.key, self.value = (nn.Linear(CHANNELS, CHANNELS) for _ in range(3))
        lively(self, 5)
        self.eval()

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attention of one query."""

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.reshape(y.shape[0], -1, HEADS, CHANNELS // HEADS).transpose(1, 2)

        q = heads(self.query(self.probe.expand(x.shape[0], -1, -1)))
        k, v = heads(self.key(x)), heads(self.value(x))
        hidden = torch.where(torch.arange(TOKENS) < 13, 0.0, -torch.inf)
        return self.merge(((q @ k.transpose(-2, -1)) * 0.35 + hidden).softmax(-1) @ v)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the pooled token."""
        return self.last(self.norm(x)[:, 0])

    def body(self, x: torch.Tensor) -> torch.Tensor:
        """Pool."""
        return self.fc(self.attend(self.norm(x)))


class Positions(Attention):
    """Queries and keys read another tensor than values, as DETR's do."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, TOKENS, CHANNELS))
        self.query, self.key, self.value = (nn.Linear(CHANNELS, CHANNELS) for _ in range(3))
        lively(self, 6)
        self.eval()

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attention with positions in queries and keys."""

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.reshape(y.shape[0], -1, HEADS, CHANNELS // HEADS).transpose(1, 2)

        y = x + self.position
        q, k, v = heads(self.query(y)), heads(self.key(y)), heads(self.value(x))
        return self.merge(functional.scaled_dot_product_attention(q, k, v))


class Decomposed(Attention):
    """A bias made of the queries: SAM's decomposed relative positions."""

    def __init__(self) -> None:
        super().__init__()
        self.row, self.column = (nn.Parameter(torch.zeros(4, CHANNELS // HEADS)) for _ in range(2))
        lively(self, 7)
        self.eval()

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attention with two terms for the keys' rows and columns."""
        q, k, v = self.split(x)
        down = functional.linear(q, self.row).reshape(-1, HEADS, TOKENS, 4, 1)
        across = functional.linear(q, self.column).reshape(-1, HEADS, TOKENS, 1, 4)
        scores = (q * 0.35 @ k.transpose(-2, -1)).reshape(-1, HEADS, TOKENS, 4, 4)
        scores = (scores + down + across).reshape(-1, HEADS, TOKENS, TOKENS)
        return self.merge(scores.softmax(-1) @ v)


class Shifted(Swin):
    """Blocks of a picture that is rolled, padded, cut into windows, and merged afterwards."""

    side = 4

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attention within shifted windows of 2 x 2 tokens."""
        batch, side = x.shape[0], self.side
        x = torch.roll(x.reshape(batch, side, side, CHANNELS), (-1, -1), (1, 2))
        x = x.view(batch, 2, 2, 2, 2, CHANNELS).permute(0, 1, 3, 2, 4, 5)
        x = super().attend(x.reshape(batch, TOKENS, CHANNELS))
        x = x.view(batch, 2, 2, 2, 2, CHANNELS).permute(0, 1, 3, 2, 4, 5)
        x = torch.roll(x.reshape(batch, side, side, CHANNELS), (1, 1), (1, 2))
        return x.reshape(batch, TOKENS, CHANNELS)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        """A residual branch whose last layer writes tokens back."""
        return x + self.attend(self.norm(x))

    def merge(self, x: torch.Tensor) -> torch.Tensor:
        """Merge heads, then project within the window."""
        projected: torch.Tensor = self.fc(super().merge(x))
        return projected


class Padded(Attention):
    """Windows of 3 x 3 tokens, of which a picture has no whole number: zeros are attended to."""

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Pad, cut, attend, put together, crop."""
        batch = x.shape[0]
        x = functional.pad(x.reshape(batch, 4, 4, CHANNELS), (0, 0, 0, 2, 0, 2))
        x = x.view(batch, 2, 3, 2, 3, CHANNELS).permute(0, 1, 3, 2, 4, 5)
        q, k, v = self.split(x.reshape(batch * 4, 9, CHANNELS))
        x = self.merge((q * 0.35 @ k.transpose(-2, -1)).softmax(-1) @ v)
        x = x.view(batch, 2, 2, 3, 3, CHANNELS).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, 6, 6, CHANNELS)[:, :4, :4].reshape(batch, TOKENS, CHANNELS)


KINDS: dict[str, Callable[[], Attention]] = {
    "bias": Attention,
    "causal": Causal,
    "windows": Swin,
    "infinite": Infinite,
    "repeated": Repeated,
    "pooled": Pooled,
    "positions": Positions,
    "decomposed": Decomposed,
    "shifted": Shifted,
}
