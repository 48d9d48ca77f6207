"""The predecessor's networks and ways, written once more and plainly: what ours is measured against."""

import math

import numpy as np
import scipy.io
import scipy.signal
import torch
from torch import nn


def load_recording(path):
    """(12, n) float64 mV as the predecessor reads it: header lines split at blanks, samples by scipy.io.loadmat."""
    with open(f"{path}.hea") as file:
        lines = file.read().splitlines()
    n_leads, sample_freq = int(lines[0].split()[1]), float(lines[0].split()[2])
    gains = np.array([float(line.split()[2].split("/")[0]) for line in lines[1 : 1 + n_leads]])
    zeros = np.array([float(line.split()[4]) for line in lines[1 : 1 + n_leads]])
    samples = scipy.io.loadmat(f"{path}.mat")["val"]
    return (samples - zeros[:, None]) / gains[:, None], sample_freq


def load_window(path, sample_freq=400, seq_length=4096):
    """(12, L) float32: read, resampled and zero-padded or cut, for every epoch again."""
    x, stored = load_recording(path)
    common = math.gcd(int(stored), sample_freq)
    x = scipy.signal.resample_poly(x, sample_freq // common, int(stored) // common, axis=1)[:, :seq_length]
    return np.pad(x, ((0, 0), (0, seq_length - x.shape[1]))).astype(np.float32)


class PlainBlock(nn.Module):
    """Residual block of Ribeiro et al. (2020) on (B, C, T)."""

    def __init__(self, n_in, n_out, stride, kernel=17, dropout=0.5):
        super().__init__()
        self.conv1 = nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2, bias=False)
        self.conv2 = nn.Conv1d(n_out, n_out, kernel, stride, padding=kernel // 2, bias=False)
        self.skip = nn.Sequential(nn.MaxPool1d(stride), nn.Conv1d(n_in, n_out, 1, bias=False))
        self.norm1, self.norm2 = nn.BatchNorm1d(n_out), nn.BatchNorm1d(n_out)
        self.relu, self.dropout = nn.ReLU(), nn.Dropout(dropout)

    def forward(self, total, active):
        active = self.dropout(self.relu(self.norm1(self.conv1(active))))
        total = self.conv2(active) + self.skip(total)
        return total, self.dropout(self.relu(self.norm2(total)))


class PlainResNet(nn.Module):
    """The predecessor's classifier: eager float32 one-dimensional convolutions, 7.0 million weights."""

    def __init__(self, n_classes=24, filters=(64, 128, 196, 256, 320), lengths=(4096, 1024, 256, 64, 16)):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(12, filters[0], 17, padding=8, bias=False), nn.BatchNorm1d(filters[0]), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            PlainBlock(filters[i], filters[i + 1], lengths[i] // lengths[i + 1]) for i in range(len(filters) - 1)
        )
        self.linear = nn.Linear(filters[-1] * lengths[-1], n_classes)

    def forward(self, x):
        total = active = self.stem(x)
        for block in self.blocks:
            total, active = block(total, active)
        return self.linear(active.flatten(1))


class PlainTransformer(nn.Module):
    """The predecessor's pre-training network: 4 samples of all leads a token, width 256, 3 layers, 4 heads, with an
    additive mask that the predecessor fills with zeros.
    """

    def __init__(self, width=256, depth=3, n_heads=4, inner=768, patch=4, dropout=0.2):
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(12 * patch, width)
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, n_heads, inner, dropout, batch_first=True), depth
        )
        self.head = nn.Linear(width, 12 * patch)

    def forward(self, x):
        tokens = x.unflatten(2, (-1, self.patch)).permute(0, 2, 1, 3).flatten(2)  # (B, T / 4, 48)
        return self.head(self.layers(self.embed(tokens), mask=torch.zeros(tokens.shape[1], tokens.shape[1])))
