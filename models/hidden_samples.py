"""Prediction of what a window does not show: its hidden samples, and numbers that describe the rest of the recording.

For encoders that look both ways: what they are to predict must be hidden from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.heads import encode, pool_over_time

WIDTH = 256  # channels of the decoder
DROPOUT = 0.1  # of the pooled features


class HiddenSamplesHead(nn.Module):
    """Features -> all samples of the leads, and a summary of the recording.

    The samples come frame by frame from a small decoder, in each lead's typical spread: `scale` (n_leads,) mV is a
    buffer, for the weights mean nothing without it. The summary is one linear layer on the pooled features, as in
    classification: what it asks for, the pooled features must show.
    """

    def __init__(self, n_features: int, stride: int, scale: Sequence[float], n_summary: int):
        super().__init__()
        self.shape = (len(scale), stride)
        self.decoder = nn.Sequential(
            nn.Conv1d(n_features, WIDTH, 3, padding=1), nn.GELU(), nn.Conv1d(WIDTH, len(scale) * stride, 1)
        )
        self.dropout = nn.Dropout(DROPOUT)
        self.summary = nn.Linear(2 * n_features, n_summary)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, features: Tensor, frame_lengths: Tensor | None, n_samples: int) -> tuple[Tensor, Tensor]:
        """Samples and summary of a batch of windows.

        Args:
            features: (B, n_features, T') from the encoder.
            frame_lengths: (B,) int >= 1, frames before the padding, or None (no padding).
            n_samples: of a window, L; frame i stands for the samples from i * stride on.

        Returns:
            (B, n_leads, L) mV and (B, n_summary).
        """
        summary = self.summary(self.dropout(pool_over_time(features, frame_lengths)))
        if frame_lengths is not None:  # the decoder's first layer looks at the frames beside each
            frames = torch.arange(features.shape[2], device=features.device)
            features = features.masked_fill((frames >= frame_lengths[:, None])[:, None], 0)
        samples = self.decoder(features).unflatten(1, self.shape)  # (B, n_leads, stride, T')
        samples = samples.transpose(2, 3).flatten(2)[..., :n_samples]  # (B, n_leads, L)
        return samples.float() * self.scale[:, None], summary.float()


class HiddenSamplesModel(nn.Module):
    """An encoder and a HiddenSamplesHead."""

    def __init__(self, encoder: nn.Module, scale: Sequence[float], n_summary: int):
        super().__init__()
        self.encoder = encoder
        self.head = HiddenSamplesHead(encoder.out_channels, encoder.stride, scale, n_summary)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, 12, L) mV, hidden samples zero, lengths (B,) or None -> samples (B, n_leads, L) mV, summary
        (B, n_summary).
        """
        features, frame_lengths = encode(self.encoder, x, lengths)
        return self.head(features, frame_lengths, x.shape[-1])
