"""A transformer over short patches of all leads, causal by default: frame i sees the samples before (i + 1) * patch
only.
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIGNAL_SCALE = 0.2  # mV: brings the samples of most leads to about one


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): turn each pair of channels by an angle that grows with time, so that attention
    depends on distances only.

    Args:
        x: (B, H, T', E), queries or keys.
        cos, sin: (T', E / 2), of the angles.

    Returns:
        same shape as x.
    """
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Attention(nn.Module):
    """Multi-head attention with rotary positions."""

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, causal: bool, attn_mask: Tensor | None) -> Tensor:
        """Every frame looks at others.

        Args:
            x: (B, T', D).
            cos, sin: (T', E / 2), see `rotate`.
            causal: whether frames see earlier ones only.
            attn_mask: (B, 1, 1, T') bool, the frames that may be looked at; None in a causal encoder, whose frames
                before the padding never see it anyway.

        Returns:
            (B, T', D).
        """
        q, k, v = self.qkv(x).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T', E)
        q = rotate(q, cos, sin)
        k = rotate(k, cos, sin)
        # CPUs go backwards through attention faster in float32; elsewhere it is as precise as the caller wants it.
        # Autocast switched on here would mean float16 on a GPU where the caller has none.
        with torch.autocast("cpu", enabled=False) if x.device.type == "cpu" else contextlib.nullcontext():
            y = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=attn_mask, is_causal=causal)
        return self.out(y.transpose(1, 2).flatten(2))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): while training, a share `p` of the windows skips a branch. One random
    number a window, where dropout would need one a value.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T', D) -> same."""
        if not self.training or not self.p:
            return x
        return x * (torch.rand(len(x), 1, 1, device=x.device) >= self.p) / (1 - self.p)


class TransformerBlock(nn.Module):
    """Pre-norm block, which trains from the first step even in deep stacks."""

    def __init__(self, width: int, n_heads: int, dropout: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, n_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.dropout = DropPath(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, causal: bool, attn_mask: Tensor | None) -> Tensor:
        """x (B, T', D) -> same; the other arguments are those of `Attention`."""
        x = x + self.dropout(self.attention(self.norm1(x), cos, sin, causal, attn_mask))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    """Patches of `patch` samples of all leads, embedded, and `depth` blocks of attention over them.

    `dropout` is the share of windows that skip a branch while training. With `bidirectional`, frames see the whole
    window; weights fit both ways.
    """

    def __init__(
        self,
        patch: int = 8,
        width: int = 160,
        depth: int = 4,
        n_heads: int = 5,
        dropout: float = 0.1,
        bidirectional: bool = False,
        n_leads: int = 12,
    ):
        super().__init__()
        if width % n_heads or width // n_heads % 2:
            raise ValueError(f"width {width} does not split into {n_heads} heads of an even size")
        self.embed = nn.Linear(n_leads * patch, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, n_heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.bidirectional = bidirectional
        self.n_angles = width // n_heads // 2  # one for each pair of a head's channels
        self.out_channels = width
        self.stride = patch

    def positions(self, n_frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin, each (n_frames, E / 2), of angles that grow with time at rates from 1 to 1/1000 per frame."""
        rates = 1000.0 ** -(torch.arange(self.n_angles, device=device) / self.n_angles)
        angles = torch.arange(n_frames, device=device)[:, None] * rates
        return angles.cos(), angles.sin()

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, n_leads, L) mV, lengths (B,) or None -> (B, width, ceil(L / patch)); a last patch that is not full is
        filled with zeros.
        """
        attn_mask = None
        if lengths is not None:  # a patch may hold the end of the signal and padding
            x = x * (torch.arange(x.shape[-1], device=x.device) < lengths[:, None, None])
        x = F.pad(x, (0, -x.shape[-1] % self.stride)).unflatten(2, (-1, self.stride))  # (B, 12, T', patch)
        if lengths is not None and self.bidirectional:
            first = torch.arange(x.shape[2], device=x.device) * self.stride  # first sample of each frame
            attn_mask = (first < lengths[:, None])[:, None, None]  # (B, 1, 1, T')
        x = self.embed(x.transpose(1, 2).flatten(2) / SIGNAL_SCALE)  # (B, T', D)
        cos, sin = self.positions(x.shape[1], x.device)
        for block in self.blocks:
            x = block(x, cos, sin, not self.bidirectional, attn_mask)
        return self.norm(x).transpose(1, 2)  # (B, D, T')
