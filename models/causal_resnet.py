"""A causal residual network: frame i sees the samples before (i + 1) * stride only. Normalisation mixes channels,
never time.

Inside, a signal is an image of height one, (B, C, 1, T), in channels-last memory, as in models/resnet.py.
"""

import torch.nn.functional as F
from torch import nn

from models.dropout import Dropout
from models.resnet import blank, to_image, valid_places


class CausalConv(nn.Conv2d):
    """Convolution padded on the left: with a stride s, output i ends at input i * s + s - 1, the last of its own s
    samples.

    x (B, n_in, 1, T) with T a multiple of the stride -> (B, n_out, 1, T / stride).
    """

    def __init__(self, n_in, n_out, kernel, stride=1, dilation=1):
        super().__init__(n_in, n_out, (1, kernel), (1, stride), dilation=(1, dilation))
        self.left = (kernel - 1) * dilation + 1 - stride
        if self.left < 0:
            raise ValueError(f"a kernel of {kernel} samples skips samples at stride {stride}")

    def forward(self, x):
        return super().forward(F.pad(x, (self.left, 0)))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of every sample: x (B, C, 1, T) -> same. Time is never mixed."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # no copy: memory is channels-last


class CausalBlock(nn.Module):
    """Pre-norm residual block of two causal convolutions; x (B, n_in, 1, T) -> (B, n_out, 1, T / stride)."""

    def __init__(self, n_in, n_out, kernel, stride, dilation, dropout):
        super().__init__()
        self.norm1 = ChannelNorm(n_in)
        self.conv1 = CausalConv(n_in, n_out, kernel, stride)
        self.norm2 = ChannelNorm(n_out)
        self.conv2 = CausalConv(n_out, n_out, kernel, 1, dilation)
        self.dropout = Dropout(dropout)
        self.pool = nn.AvgPool2d((1, stride)) if stride > 1 else nn.Identity()
        self.project = CausalConv(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x):
        y = self.conv1(F.gelu(self.norm1(x), approximate="tanh"))
        y = self.conv2(self.dropout(F.gelu(self.norm2(y), approximate="tanh")))
        return y + self.project(self.pool(x))


class CausalResNet(nn.Module):
    """Stem and stages as in XResNet1d, but causal: `depths[i]` blocks of `widths[i]` channels a stage; the stem and
    every stage but the first halve the rate; block j of a stage looks back at every 2^j-th frame.

    x (B, n_leads, L) mV -> (B, widths[-1], ceil(L / stride)).
    """

    def __init__(self, stem=32, widths=(48, 96, 160), depths=(1, 2, 3), kernel=5, dropout=0.1, n_leads=12):
        super().__init__()
        if len(widths) != len(depths):
            raise ValueError(f"widths and depths differ in number: {list(widths)}, {list(depths)}")
        self.stem = CausalConv(n_leads, stem, kernel, 2)
        blocks, n_in = [], stem
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            for i in range(depth):
                blocks.append(CausalBlock(n_in, width, kernel, 2 if stage > 0 and i == 0 else 1, 2**i, dropout))
                n_in = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = ChannelNorm(n_in)
        self.out_channels = n_in
        self.stride = 2 ** len(widths)

    def forward(self, x, lengths=None):
        x = to_image(F.pad(x, (0, -x.shape[-1] % self.stride)))  # (B, 12, 1, L)
        x = blank(x, valid_places(lengths, x.shape[-1]))  # the past never sees padding: once is enough
        return self.norm(self.blocks(self.stem(x))).squeeze(2)  # (B, D, T')
