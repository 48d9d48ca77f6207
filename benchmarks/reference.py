"""The predecessor's networks and ways, written once more and plainly: what ours is measured against."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.io
import scipy.signal
import torch
from torch import Tensor, nn


def load_recording(path: str) -> tuple[np.ndarray, float]:
    """(12, n) float64 mV and Hz as the predecessor reads them: header lines split at blanks, samples by
    scipy.io.loadmat.
    """
    with open(f"{path}.hea") as file:
        lines = [line.split() for line in file]
    _, n_leads, sample_freq, *_ = lines[0]
    leads = lines[1 : 1 + int(n_leads)]
    gains = np.array([float(lead[2].split("/")[0]) for lead in leads])
    zeros = np.array([float(lead[4]) for lead in leads])
    samples = scipy.io.loadmat(f"{path}.mat")["val"]
    return (samples - zeros[:, None]) / gains[:, None], float(sample_freq)


def load_window(path: str, sample_freq: int = 400, seq_length: int = 4096) -> np.ndarray:
    """Read, resampled and zero-padded or cut, for every epoch again.

    Args:
        path: of the recording, without extension.
        sample_freq: Hz.
        seq_length: samples in the window.

    Returns:
        (12, seq_length) float32 mV.
    """
    x, stored = load_recording(path)
    common = math.gcd(int(stored), sample_freq)
    x = scipy.signal.resample_poly(x, sample_freq // common, int(stored) // common, axis=1)[:, :seq_length]
    return np.pad(x, ((0, 0), (0, seq_length - x.shape[1]))).astype(np.float32)


class PlainBlock(nn.Module):
    """Residual block of Ribeiro et al. (2020) on (B, C, T)."""

    def __init__(self, n_in: int, n_out: int, stride: int, kernel: int = 17, dropout: float = 0.5):
        super().__init__()
        self.conv1 = nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2, bias=False)
        self.conv2 = nn.Conv1d(n_out, n_out, kernel, stride, padding=kernel // 2, bias=False)
        self.skip = nn.Sequential(nn.MaxPool1d(stride), nn.Conv1d(n_in, n_out, 1, bias=False))
        self.norm1 = nn.BatchNorm1d(n_out)
        self.norm2 = nn.BatchNorm1d(n_out)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, total: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """The sum and its activation, both (B, n_in, T) -> both (B, n_out, T / stride)."""
        active = self.dropout(self.relu(self.norm1(self.conv1(active))))
        total = self.conv2(active) + self.skip(total)
        return total, self.dropout(self.relu(self.norm2(total)))


class PlainResNet(nn.Module):
    """The predecessor's classifier: eager float32 one-dimensional convolutions, 7.0 million weights."""

    def __init__(
        self,
        n_classes: int = 24,
        filters: Sequence[int] = (64, 128, 196, 256, 320),
        lengths: Sequence[int] = (4096, 1024, 256, 64, 16),
    ):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(12, filters[0], 17, padding=8, bias=False), nn.BatchNorm1d(filters[0]), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            PlainBlock(filters[i], filters[i + 1], lengths[i] // lengths[i + 1]) for i in range(len(filters) - 1)
        )
        self.linear = nn.Linear(filters[-1] * lengths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 12, 4096) mV -> logits (B, n_classes)."""
        total = active = self.stem(x)
        for block in self.blocks:
            total, active = block(total, active)
        return self.linear(active.flatten(1))


class PlainTransformer(nn.Module):
    """The predecessor's pre-training network: 4 samples of all leads a token, width 256, 3 layers, 4 heads, with an
    additive mask that the predecessor fills with zeros.
    """

    def __init__(
        self,
        width: int = 256,
        depth: int = 3,
        n_heads: int = 4,
        inner: int = 768,
        patch: int = 4,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(12 * patch, width)
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, n_heads, inner, dropout, batch_first=True), depth
        )
        self.head = nn.Linear(width, 12 * patch)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 12, T) mV -> (B, T / 4, 48), the next patch after each."""
        tokens = x.unflatten(2, (-1, self.patch)).permute(0, 2, 1, 3).flatten(2)  # (B, T / 4, 48)
        mask = torch.zeros(tokens.shape[1], tokens.shape[1])
        return self.head(self.layers(self.embed(tokens), mask=mask))
