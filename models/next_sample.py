"""Prediction of unseen samples: from what a causal encoder has seen until now, all leads at several distances ahead."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def last_seen(n_samples: int, stride: int, device: torch.device) -> Tensor:
    """(T',) index of the last sample that each frame of a causal encoder has seen: frame i sees the samples before
    (i + 1) * stride. The last one lies beyond the window where the stride does not divide it.
    """
    return torch.arange(stride - 1, n_samples + stride - 1, stride, device=device)


def samples_ahead(
    x: Tensor, lengths: Tensor | None, k_steps_ahead: Sequence[int] | Tensor, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What is to be predicted at every frame, and from where.

    Args:
        x: (B, 12, L).
        lengths: (B,) samples before the zero padding, or None (no padding).
        k_steps_ahead: K distances in samples after the last seen one.
        stride: samples a frame.

    Returns:
        last (B, 12, 1, T'), the last seen samples; future (B, 12, K, T'); valid (B, 1, K, T') bool, False where the
        future is beyond the window or padding.
    """
    n_samples = x.shape[-1]
    last = last_seen(n_samples, stride, x.device)  # (T',)
    future = last + torch.as_tensor(k_steps_ahead, device=x.device)[:, None]  # (K, T')
    end = torch.full((len(x),), n_samples, device=x.device) if lengths is None else lengths
    valid = (future < end[:, None, None])[:, None]  # (B, 1, K, T')
    # Indices beyond the window are clamped to fetch something; `valid` leaves it out of every loss.
    return x[..., last.clamp(max=n_samples - 1)].unsqueeze(2), x[..., future.clamp(max=n_samples - 1)], valid


class NextSampleHead(nn.Module):
    """States -> samples ahead. It predicts the change since the last seen sample, in each lead's typical spread: the
    state need not carry the present, and an untrained head says "nothing changes".

    `scale` (n_leads,) mV is a buffer: the weights mean nothing without it.
    """

    def __init__(self, n_features: int, k_steps_ahead: Sequence[int], scale: Sequence[float]):
        super().__init__()
        if not k_steps_ahead or min(k_steps_ahead) < 1:
            raise ValueError(
                f"k_steps_ahead {list(k_steps_ahead)}: samples ahead must be 1 or more, the state has seen the others"
            )
        self.shape = (len(scale), len(k_steps_ahead))
        self.hidden = nn.Linear(n_features, 2 * n_features)
        self.out = nn.Linear(2 * n_features, len(scale) * len(k_steps_ahead))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, features: Tensor, last: Tensor) -> Tensor:
        """features (B, n_features, T'), last (B, n_leads, 1, T') mV -> (B, n_leads, K, T') mV."""
        change = self.out(nn.functional.gelu(self.hidden(features.transpose(1, 2))))  # (B, T', 12 K)
        change = change.float().transpose(1, 2).unflatten(1, self.shape)  # (B, 12, K, T')
        return last + change * self.scale[:, None, None]


class NextSampleModel(nn.Module):
    """A causal encoder and a NextSampleHead."""

    def __init__(self, encoder: nn.Module, k_steps_ahead: Sequence[int], scale: Sequence[float]):
        super().__init__()
        self.encoder = encoder
        self.head = NextSampleHead(encoder.out_channels, k_steps_ahead, scale)
        # On the model's device from the start, not copied there in every step; not one of the weights.
        self.register_buffer("k_steps_ahead", torch.tensor(list(k_steps_ahead)), persistent=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, 12, L) mV, lengths (B,) or None -> prediction and target, both (B, 12, K, T') mV, and valid
        (B, 1, K, T') bool.
        """
        last, future, valid = samples_ahead(x, lengths, self.k_steps_ahead, self.encoder.stride)
        return self.head(self.encoder(x, lengths), last), future, valid
