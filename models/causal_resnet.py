"""A causal residual network: frame i sees the samples before (i + 1) * stride only. Normalisation mixes channels,
never time.

Inside, a signal is an image of height one, (B, C, 1, T), in channels-last memory, as in models/resnet.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.dropout import Dropout
from models.resnet import to_image, valid_samples, zero_padding


class CausalConv(nn.Conv2d):
    """Convolution padded on the left: with a stride s, output i ends at input i * s + s - 1, the last of its own s
    samples.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, dilation: int = 1):
        super().__init__(in_channels, out_channels, (1, kernel), (1, stride), dilation=(1, dilation))
        # Without padding, output i ends at input i * stride + (kernel - 1) * dilation: that much too late.
        self.left = (kernel - 1) * dilation - (stride - 1)
        if self.left < 0:
            raise ValueError(f"a kernel of {kernel} samples skips samples at stride {stride}")

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in_channels, 1, T) with T a multiple of the stride -> (B, out_channels, 1, T / stride)."""
        return super().forward(F.pad(x, (self.left, 0)))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of every sample: x (B, C, 1, T) -> same. Time is never mixed."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # no copy: memory is channels-last


class CausalBlock(nn.Module):
    """Pre-norm residual block of two causal convolutions. The skip averages before it projects: a projection of stride
    2 alone would never see every second sample.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, dilation: int, dropout: float):
        super().__init__()
        self.norm1 = ChannelNorm(in_channels)
        self.conv1 = CausalConv(in_channels, out_channels, kernel, stride)
        self.norm2 = ChannelNorm(out_channels)
        self.conv2 = CausalConv(out_channels, out_channels, kernel, 1, dilation)
        self.dropout = Dropout(dropout)
        self.pool = nn.AvgPool2d((1, stride)) if stride > 1 else nn.Identity()
        self.project = CausalConv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x (B, in_channels, 1, T) -> (B, out_channels, 1, T / stride)."""
        y = self.conv1(F.gelu(self.norm1(x), approximate="tanh"))
        y = self.conv2(self.dropout(F.gelu(self.norm2(y), approximate="tanh")))
        return y + self.project(self.pool(x))


class CausalResNet(nn.Module):
    """Stem and stages as in XResNet1d, but causal: `depths[i]` blocks of `widths[i]` channels a stage; the stem and
    every stage but the first halve the rate; block j of a stage looks back at every 2^j-th frame.
    """

    def __init__(
        self,
        stem: int = 32,
        widths: Sequence[int] = (48, 96, 160),
        depths: Sequence[int] = (1, 2, 3),
        kernel: int = 5,
        dropout: float = 0.1,
        n_leads: int = 12,
    ):
        super().__init__()
        if len(widths) != len(depths):
            raise ValueError(f"widths and depths differ in number: {list(widths)}, {list(depths)}")
        self.stem = CausalConv(n_leads, stem, kernel, 2)
        blocks = []
        n_in = stem
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            stride = 1 if stage == 0 else 2
            for j in range(depth):
                blocks.append(CausalBlock(n_in, width, kernel, stride, 2**j, dropout))
                n_in = width
                stride = 1  # the first block of a stage alone changes the rate
        self.blocks = nn.Sequential(*blocks)
        self.norm = ChannelNorm(n_in)
        self.out_channels = n_in
        self.stride = 2 ** len(widths)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, n_leads, L) mV, lengths (B,) or None -> (B, widths[-1], ceil(L / stride))."""
        x = to_image(F.pad(x, (0, -x.shape[-1] % self.stride)))  # (B, 12, 1, L), L a multiple of the stride
        x = zero_padding(x, valid_samples(lengths, x.shape[-1]))  # the past never sees padding: once is enough
        return self.norm(self.blocks(self.stem(x))).squeeze(2)  # (B, D, T')
