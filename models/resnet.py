"""Residual networks over time: the plain one of Ribeiro et al. (2020) and a squeeze-excitation xresnet.

Both take (B, 12, L) millivolts and give (B, D, T') features. Inside, a signal is an image of height one,
(B, C, 1, T), in channels-last memory: that is the layout in which CPUs convolve fastest.

`lengths` says how many samples of each window are signal rather than zero padding. Padded places are set to zero
again before every convolution, so a padded window gives the features of the same window without padding.
"""

import torch
from torch import nn

from models.dropout import Dropout


def conv(n_in, n_out, kernel, stride=1, bias=False):
    """Convolution over time, (B, n_in, 1, T) -> (B, n_out, 1, ceil(T / stride)); an odd kernel keeps places aligned."""
    return nn.Conv2d(n_in, n_out, (1, kernel), (1, stride), (0, kernel // 2), bias=bias)


def valid_places(lengths, n_samples):
    """Which places hold signal: lengths (B,) or None -> (B, 1, 1, n_samples) bool or None."""
    if lengths is None:
        return None
    places = torch.arange(n_samples, device=lengths.device)
    return (places < lengths[:, None])[:, None, None]  # (B, 1, 1, T)


def blank(x, valid):
    """Zero what is padding; x (B, C, 1, T), valid (B, 1, 1, T) or None."""
    return x if valid is None else x * valid.to(x.dtype)


def to_image(x):
    """(B, C, T) -> (B, C, 1, T) in channels-last memory."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class ResidualBlock(nn.Module):
    """Pre-activation block: carries the raw sum beside its activation, as in Ribeiro et al. (2020), figure 4.

    total (B, n_in, 1, T), active (B, n_in, 1, T) -> both (B, n_out, 1, T / stride).
    """

    NORMS = (("conv1", "norm1"),)  # convolutions that a norm follows directly, see models/folding.py

    def __init__(self, n_in, n_out, kernel, stride, dropout):
        super().__init__()
        self.conv1 = conv(n_in, n_out, kernel)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = conv(n_out, n_out, kernel, stride)
        self.pool = nn.MaxPool2d((1, stride), ceil_mode=True) if stride > 1 else nn.Identity()
        self.project = conv(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.norm2 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = Dropout(dropout)
        self.stride = stride

    def forward(self, total, active, valid):
        active = self.dropout(self.relu(self.norm1(self.conv1(blank(active, valid)))))
        skip = self.project(self.pool(blank(total, valid)))
        total = self.conv2(blank(active, valid)) + skip  # (B, n_out, 1, T / stride)
        active = self.dropout(self.relu(self.norm2(total)))
        return total, active


class ResNet1d(nn.Module):
    """The residual network of Ribeiro et al. (2020, doi 10.1038/s41467-020-15432-4), the predecessor's encoder.

    `filters[i]` channels at `lengths[i]` samples; the first pair belongs to the stem, each further pair to a block.
    Any input length works: `lengths` only fixes the strides. x (B, n_leads, L) -> (B, filters[-1], ceil(L / stride)).
    """

    def __init__(
        self, filters=(64, 128, 196, 256, 320), lengths=(4096, 1024, 256, 64, 16), kernel=17, dropout=0.5, n_leads=12
    ):
        super().__init__()
        if len(filters) != len(lengths):
            raise ValueError(f"filters and lengths differ in number: {list(filters)}, {list(lengths)}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        if any(before % after for before, after in zip(lengths, lengths[1:])):
            raise ValueError(f"each of lengths must divide the one before: {list(lengths)}")
        self.stem = nn.Sequential(conv(n_leads, filters[0], kernel), nn.BatchNorm2d(filters[0]), nn.ReLU(inplace=True))
        strides = [before // after for before, after in zip(lengths, lengths[1:])]
        self.blocks = nn.ModuleList(
            ResidualBlock(n_in, n_out, kernel, stride, dropout)
            for n_in, n_out, stride in zip(filters, filters[1:], strides)
        )
        self.out_channels = filters[-1]
        self.stride = lengths[0] // lengths[-1]

    def forward(self, x, lengths=None):
        valid = valid_places(lengths, x.shape[-1])
        total = active = self.stem(to_image(x))  # (B, filters[0], 1, L)
        for block in self.blocks:
            total, active = block(total, active, valid)
            valid = None if valid is None else valid[..., :: block.stride]
        return active.squeeze(2)  # (B, D, T')


class SqueezeExcitation(nn.Module):
    """Weighs channels by what the whole window shows (Hu et al. 2018); x (B, C, 1, T) -> same."""

    def __init__(self, n_channels, reduction=8):
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(n_channels, n_channels // reduction),
            nn.ReLU(inplace=True),
            nn.Linear(n_channels // reduction, n_channels),
            nn.Sigmoid(),
        )

    def forward(self, x, valid):
        if valid is None:
            mean = x.mean((2, 3))  # (B, C)
        else:
            mean = blank(x, valid).sum((2, 3)) / valid.sum((2, 3)).clamp(min=1)
        return x * self.gate(mean)[:, :, None, None]


class XResBlock(nn.Module):
    """Two convolutions, squeeze-excitation, and a skip that averages before it projects (He et al. 2019, ResNet-D).

    x (B, n_in, 1, T) -> (B, n_out, 1, ceil(T / stride)).
    """

    NORMS = (("conv1", "norm1"), ("conv2", "norm2"))  # see models/folding.py

    def __init__(self, n_in, n_out, kernel, stride, dropout):
        super().__init__()
        self.conv1 = conv(n_in, n_out, kernel, stride)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.dropout = Dropout(dropout)
        self.conv2 = conv(n_out, n_out, kernel)
        self.norm2 = nn.BatchNorm2d(n_out)
        nn.init.zeros_(self.norm2.weight)  # every block starts as its skip: deep nets train from the first step
        self.excite = SqueezeExcitation(n_out)
        self.pool = nn.AvgPool2d((1, stride), ceil_mode=True) if stride > 1 else nn.Identity()
        self.project = nn.Sequential(conv(n_in, n_out, 1), nn.BatchNorm2d(n_out)) if n_in != n_out else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.stride = stride

    def forward(self, x, valid):
        valid_out = None if valid is None else valid[..., :: self.stride]
        x = blank(x, valid)
        y = self.dropout(self.relu(self.norm1(self.conv1(x))))
        y = self.norm2(self.conv2(blank(y, valid_out)))
        return self.relu(self.excite(y, valid_out) + self.project(self.pool(x)))


class XResNet1d(nn.Module):
    """xresnet over time: a stem of three small convolutions, then `depths[i]` blocks of `widths[i]` channels a stage.

    The stem and every stage but the first halve the rate, the first divides it by `first_stride`.
    x (B, n_leads, L) -> (B, widths[-1], ceil(L / stride)).
    """

    def __init__(
        self, stem=32, widths=(64, 96, 128, 192), depths=(1, 1, 1, 1), kernel=5, first_stride=1, dropout=0.1, n_leads=12
    ):
        super().__init__()
        if len(widths) != len(depths):
            raise ValueError(f"widths and depths differ in number: {list(widths)}, {list(depths)}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        layers = [(n_leads, stem, 2), (stem, stem, 1), (stem, widths[0], 1)]
        self.stem = nn.ModuleList(
            nn.Sequential(conv(n_in, n_out, kernel, stride), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))
            for n_in, n_out, stride in layers
        )
        blocks, n_in = [], widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            for i in range(depth):
                stride = 1 if i > 0 else first_stride if stage == 0 else 2
                blocks.append(XResBlock(n_in, width, kernel, stride, dropout))
                n_in = width
        self.blocks = nn.ModuleList(blocks)
        self.out_channels = widths[-1]
        self.stride = first_stride * 2 ** len(widths)

    def forward(self, x, lengths=None):
        valid = valid_places(lengths, x.shape[-1])
        x = to_image(x)
        for i, layer in enumerate(self.stem):
            x = layer(blank(x, valid))
            if i == 0 and valid is not None:
                valid = valid[..., ::2]
        for block in self.blocks:
            x = block(x, valid)
            valid = None if valid is None else valid[..., :: block.stride]
        return x.squeeze(2)  # (B, D, T')
