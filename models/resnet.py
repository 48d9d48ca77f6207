"""Residual networks over time: the plain one of Ribeiro et al. (2020) and a squeeze-excitation xresnet.

Both take (B, 12, L) millivolts and give (B, D, T') features. Inside, a signal is an image of height one,
(B, C, 1, T), in channels-last memory: that is the layout in which CPUs convolve fastest, and PyTorch knows it for
images only.

`lengths` says how many samples of each window are signal rather than zero padding. Norms and biases make other values
than zero of padding, and the next convolution would mix these into the last samples of the signal. Hence padded places
are set to zero again before every convolution, and a padded window gives the features of the same window without
padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.dropout import Dropout


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Convolution over time, (B, in_channels, 1, T) -> (B, out_channels, 1, ceil(T / stride)).

    An odd kernel keeps places aligned. No bias: the norm after it has one.
    """
    return nn.Conv2d(in_channels, out_channels, (1, kernel), (1, stride), (0, kernel // 2), bias=False)


def valid_samples(lengths: Tensor | None, n_samples: int) -> Tensor | None:
    """Which samples are signal: lengths (B,) or None (all of them) -> (B, 1, 1, n_samples) bool or None."""
    if lengths is None:
        return None
    samples = torch.arange(n_samples, device=lengths.device)
    return (samples < lengths[:, None])[:, None, None]  # (B, 1, 1, T)


def zero_padding(x: Tensor, valid: Tensor | None) -> Tensor:
    """Zero what is padding; x (B, C, 1, T), valid (B, 1, 1, T) or None -> same as x."""
    return x if valid is None else x * valid.to(x.dtype)


def strided(valid: Tensor | None, stride: int) -> Tensor | None:
    """`valid` behind a layer of this stride: (B, 1, 1, T) or None -> (B, 1, 1, ceil(T / stride)) or None."""
    return None if valid is None else valid[..., ::stride]


def pool_max(pool: nn.Module, x: Tensor, valid: Tensor | None, stride: int) -> Tensor:
    """Maximum over what is signal in each stretch of `stride` samples, 0 where nothing is.

    Args:
        pool: nn.MaxPool2d of this stride.
        x: (B, C, 1, T).
        valid: (B, 1, 1, T) bool or None.

    Returns:
        (B, C, 1, ceil(T / stride)).
    """
    if valid is None:
        return pool(x)
    return pool(x.masked_fill(~valid, float("-inf"))).masked_fill(~strided(valid, stride), 0)


def pool_mean(pool: nn.Module, x: Tensor, valid: Tensor | None, stride: int) -> Tensor:
    """Mean over what is signal in each stretch of `stride` samples, 0 where nothing is; x is zero where it is padding.
    Arguments, apart from pool, an nn.AvgPool2d, and shapes as of `pool_max`.
    """
    if valid is None:
        return pool(x)
    return pool(x) / pool(valid.to(x.dtype)).clamp(min=1 / stride)


def to_image(x: Tensor) -> Tensor:
    """(B, C, T) -> (B, C, 1, T) in channels-last memory."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class ResidualBlock(nn.Module):
    """Pre-activation block: carries the raw sum beside its activation, as in Ribeiro et al. (2020), figure 4."""

    FOLDABLE = (("conv1", "norm1"),)  # convolutions that a norm follows directly, see models/folding.py

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, dropout: float):
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, kernel)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, kernel, stride)
        self.pool = nn.MaxPool2d((1, stride), ceil_mode=True) if stride > 1 else nn.Identity()
        self.project = conv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = Dropout(dropout)
        self.stride = stride

    def forward(self, total: Tensor, active: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """One block.

        Args:
            total: (B, in_channels, 1, T), the sum before norm and activation.
            active: (B, in_channels, 1, T), the sum behind them.
            valid: (B, 1, 1, T) bool, False where the window is padded, or None.

        Returns:
            total and active of the block, both (B, out_channels, 1, ceil(T / stride)).
        """
        active = self.dropout(self.relu(self.norm1(self.conv1(zero_padding(active, valid)))))
        skip = self.project(pool_max(self.pool, total, valid, self.stride))
        total = self.conv2(zero_padding(active, valid)) + skip
        active = self.dropout(self.relu(self.norm2(total)))
        return total, active


class ResNet1d(nn.Module):
    """The residual network of Ribeiro et al. (2020, doi 10.1038/s41467-020-15432-4), the predecessor's encoder.

    `filters[i]` channels at `lengths[i]` samples; the first pair belongs to the stem, each further pair to a block.
    Any input length works: `lengths` only fixes the strides.
    """

    def __init__(
        self,
        filters: Sequence[int] = (64, 128, 196, 256, 320),
        lengths: Sequence[int] = (4096, 1024, 256, 64, 16),
        kernel: int = 17,
        dropout: float = 0.5,
        n_leads: int = 12,
    ):
        super().__init__()
        if len(filters) != len(lengths):
            raise ValueError(f"filters and lengths differ in number: {list(filters)}, {list(lengths)}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        if any(before % after for before, after in zip(lengths, lengths[1:])):
            raise ValueError(f"each of lengths must divide the one before: {list(lengths)}")
        self.stem = nn.Sequential(conv(n_leads, filters[0], kernel), nn.BatchNorm2d(filters[0]), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList()
        for i in range(1, len(filters)):
            stride = lengths[i - 1] // lengths[i]
            self.blocks.append(ResidualBlock(filters[i - 1], filters[i], kernel, stride, dropout))
        self.out_channels = filters[-1]
        self.stride = lengths[0] // lengths[-1]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, n_leads, L) mV, lengths (B,) or None -> (B, filters[-1], ceil(L / stride))."""
        valid = valid_samples(lengths, x.shape[-1])
        # The input's padding is zero already, so the stem needs no mask.
        total = active = self.stem(to_image(x))  # (B, filters[0], 1, L)
        for block in self.blocks:
            total, active = block(total, active, valid)
            valid = strided(valid, block.stride)
        return active.squeeze(2)  # (B, D, T')


class SqueezeExcitation(nn.Module):
    """Weighs channels by what the whole window shows (Hu et al. 2018): a convolution sees some samples only."""

    def __init__(self, n_channels: int, reduction: int = 8):
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(n_channels, n_channels // reduction),
            nn.ReLU(inplace=True),
            nn.Linear(n_channels // reduction, n_channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """x (B, C, 1, T), valid (B, 1, 1, T) bool or None -> same as x."""
        if valid is None:
            mean = x.mean((2, 3))  # (B, C)
        else:
            n_valid = valid.sum((2, 3)).clamp(min=1)  # (B, 1)
            mean = zero_padding(x, valid).sum((2, 3)) / n_valid  # (B, C)
        return x * self.gate(mean)[:, :, None, None]


class XResBlock(nn.Module):
    """Two convolutions, squeeze-excitation, and a skip that averages before it projects (He et al. 2019, ResNet-D): a
    projection of stride 2 alone would never see every second sample.
    """

    FOLDABLE = (("conv1", "norm1"), ("conv2", "norm2"))  # see models/folding.py

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, dropout: float):
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, kernel, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.dropout = Dropout(dropout)
        self.conv2 = conv(out_channels, out_channels, kernel)
        self.norm2 = nn.BatchNorm2d(out_channels)
        nn.init.zeros_(self.norm2.weight)  # every block starts as its skip: deep nets train from the first step
        self.excite = SqueezeExcitation(out_channels)
        # ceil_mode: as many frames as the convolutions give where the stride does not divide the length.
        self.pool = nn.AvgPool2d((1, stride), ceil_mode=True) if stride > 1 else nn.Identity()
        self.project = nn.Identity()
        if in_channels != out_channels:
            self.project = nn.Sequential(conv(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))
        self.relu = nn.ReLU(inplace=True)
        self.stride = stride

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """x (B, in_channels, 1, T), valid (B, 1, 1, T) bool or None -> (B, out_channels, 1, ceil(T / stride))."""
        valid_out = strided(valid, self.stride)
        x = zero_padding(x, valid)
        y = self.dropout(self.relu(self.norm1(self.conv1(x))))
        y = self.norm2(self.conv2(zero_padding(y, valid_out)))
        return self.relu(self.excite(y, valid_out) + self.project(pool_mean(self.pool, x, valid, self.stride)))


class XResNet1d(nn.Module):
    """xresnet over time: a stem of three small convolutions, then `depths[i]` blocks of `widths[i]` channels a stage.

    Three small convolutions see as far as one wide one with fewer weights and two more activations between (He et al.
    2019, ResNet-C). The stem and every stage but the first halve the rate, the first divides it by `first_stride`.
    """

    def __init__(
        self,
        stem: int = 32,
        widths: Sequence[int] = (64, 96, 128, 192),
        depths: Sequence[int] = (1, 1, 1, 1),
        kernel: int = 5,
        first_stride: int = 1,
        dropout: float = 0.1,
        n_leads: int = 12,
    ):
        super().__init__()
        if len(widths) != len(depths):
            raise ValueError(f"widths and depths differ in number: {list(widths)}, {list(depths)}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        self.stem = nn.ModuleList()
        # The very first layer halves the rate: what follows costs half.
        for n_in, n_out, stride in [(n_leads, stem, 2), (stem, stem, 1), (stem, widths[0], 1)]:
            self.stem.append(
                nn.Sequential(conv(n_in, n_out, kernel, stride), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))
            )
        self.blocks = nn.ModuleList()
        n_in = widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths)):
            stride = first_stride if stage == 0 else 2
            for _ in range(depth):
                self.blocks.append(XResBlock(n_in, width, kernel, stride, dropout))
                n_in = width
                stride = 1  # the first block of a stage alone changes the rate
        self.out_channels = widths[-1]
        self.stride = first_stride * 2 ** len(widths)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x (B, n_leads, L) mV, lengths (B,) or None -> (B, widths[-1], ceil(L / stride))."""
        valid = valid_samples(lengths, x.shape[-1])
        x = to_image(x)
        for layer in self.stem:
            x = layer(zero_padding(x, valid))  # (B, stem, 1, L / 2), ..., (B, widths[0], 1, L / 2)
            valid = strided(valid, layer[0].stride[1])
        for block in self.blocks:
            x = block(x, valid)
            valid = strided(valid, block.stride)
        return x.squeeze(2)  # (B, D, T')
