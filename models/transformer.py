"""A transformer over short patches of all leads, causal by default: frame i sees the samples before (i + 1) * patch
only.
"""

import torch
import torch.nn.functional as F
from torch import nn

TYPICAL = 0.2  # mV: brings the samples of most leads to about one


def rotate(x, cos, sin):
    """Rotary positions (Su et al. 2021): turn each pair of channels by an angle that grows with time, so that attention
    depends on distances only. x (B, H, T', E), cos and sin (T', E / 2) -> same shape as x."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Attention(nn.Module):
    """Multi-head attention with rotary positions; x (B, T', D) -> same. `seen` (B, 1, 1, T') says which frames both
    directions may look at; it is None in a causal encoder, whose frames before the padding never see it anyway."""

    def __init__(self, width, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x, cos, sin, causal, seen):
        q, k, v = self.qkv(x).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, T', E)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        with torch.autocast(
            x.device.type, enabled=x.device.type != "cpu"
        ):  # CPUs go backwards through attention faster in float32
            y = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=seen, is_causal=causal)
        return self.out(y.transpose(1, 2).flatten(2))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): while training, a share of the windows skips a branch; x (B, T', D) ->
    same. One random number a window, where dropout would need one a value.
    """

    def __init__(self, share):
        super().__init__()
        self.share = share

    def forward(self, x):
        if not self.training or not self.share:
            return x
        return x * (torch.rand(len(x), 1, 1, device=x.device) >= self.share) / (1 - self.share)


class TransformerBlock(nn.Module):
    """Pre-norm block, which trains from the first step even in deep stacks. x (B, T', D) -> same."""

    def __init__(self, width, n_heads, dropout):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, n_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.dropout = DropPath(dropout)

    def forward(self, x, cos, sin, causal, seen):
        x = x + self.dropout(self.attention(self.norm1(x), cos, sin, causal, seen))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    """x (B, n_leads, L) mV -> (B, width, ceil(L / patch)); a last patch that is not full is filled with zeros.

    `patch` is in samples; `dropout` is the share of windows that skip a branch while training. With `bidirectional`,
    frames see the whole window; weights fit both ways.
    """

    def __init__(self, patch=8, width=160, depth=4, n_heads=5, dropout=0.1, bidirectional=False, n_leads=12):
        super().__init__()
        if width % n_heads or width // n_heads % 2:
            raise ValueError(f"width {width} does not split into {n_heads} heads of an even size")
        self.embed = nn.Linear(n_leads * patch, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, n_heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.bidirectional = bidirectional
        self.half = width // n_heads // 2
        self.out_channels = width
        self.stride = patch

    def positions(self, n_frames, device):
        """cos and sin, each (n_frames, E / 2), of angles that grow with time at rates from 1 to 1/1000 per frame."""
        rates = 1000.0 ** -(torch.arange(self.half, device=device) / self.half)
        angles = torch.arange(n_frames, device=device)[:, None] * rates
        return angles.cos(), angles.sin()

    def forward(self, x, lengths=None):
        seen = None
        if lengths is not None:
            x = x * (torch.arange(x.shape[-1], device=x.device) < lengths[:, None, None])
        x = F.pad(x, (0, -x.shape[-1] % self.stride)).unflatten(2, (-1, self.stride))  # (B, 12, T', patch)
        if lengths is not None and self.bidirectional:
            first = torch.arange(x.shape[2], device=x.device) * self.stride  # first sample of each frame
            seen = (first < lengths[:, None])[:, None, None]  # (B, 1, 1, T')
        x = self.embed(x.transpose(1, 2).flatten(2) / TYPICAL)  # (B, T', D)
        cos, sin = self.positions(x.shape[1], x.device)
        for block in self.blocks:
            x = block(x, cos, sin, not self.bidirectional, seen)
        return self.norm(x).transpose(1, 2)  # (B, D, T')
