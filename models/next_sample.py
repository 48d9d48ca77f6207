"""Prediction of unseen samples: from what a causal encoder has seen until now, all leads at several distances ahead."""

import torch
from torch import nn


def samples_ahead(x, lengths, k_steps_ahead, stride):
    """What is to be predicted at every frame, and from where.

    Frame i of a causal encoder has seen the samples before (i + 1) * stride. x (B, 12, L), lengths (B,) or None,
    k_steps_ahead K distances in samples after the last seen one ->
    last (B, 12, 1, T'), the last seen samples; future (B, 12, K, T'); valid (B, 1, K, T') bool, False where the future
    is beyond the window or padding.
    """
    n_samples = x.shape[-1]
    last = torch.arange(stride - 1, n_samples + stride - 1, stride, device=x.device)  # (T',)
    future = last + torch.as_tensor(k_steps_ahead, device=x.device)[:, None]  # (K, T')
    end = torch.full((len(x),), n_samples, device=x.device) if lengths is None else lengths
    valid = (future < end[:, None, None])[:, None]  # (B, 1, K, T')
    return x[..., last.clamp(max=n_samples - 1)].unsqueeze(2), x[..., future.clamp(max=n_samples - 1)], valid


class NextSampleHead(nn.Module):
    """States -> samples ahead. It predicts the change since the last seen sample, in each lead's typical spread: the
    state need not carry the present, and an untrained head says "nothing changes".

    features (B, n_features, T'), last (B, n_leads, 1, T') mV -> (B, n_leads, K, T') mV. `scale` (n_leads,) mV is a
    buffer.
    """

    def __init__(self, n_features, k_steps_ahead, scale):
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

    def forward(self, features, last):
        change = self.out(nn.functional.gelu(self.hidden(features.transpose(1, 2))))  # (B, T', 12 K)
        change = change.float().transpose(1, 2).unflatten(1, self.shape)  # (B, 12, K, T')
        return last + change * self.scale[:, None, None]


class NextSampleModel(nn.Module):
    """A causal encoder and a NextSampleHead: x (B, 12, L) mV, lengths (B,) or None -> prediction and target, both
    (B, 12, K, T') mV, and valid (B, 1, K, T') bool."""

    def __init__(self, encoder, k_steps_ahead, scale):
        super().__init__()
        self.encoder = encoder
        self.head = NextSampleHead(encoder.out_channels, k_steps_ahead, scale)
        self.k_steps_ahead = list(k_steps_ahead)

    def forward(self, x, lengths=None):
        last, future, valid = samples_ahead(x, lengths, self.k_steps_ahead, self.encoder.stride)
        return self.head(self.encoder(x, lengths), last), future, valid
