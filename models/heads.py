"""What turns an encoder's features into answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def encode(encoder: nn.Module, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Features of windows, and how many frames of each are no padding.

    Args:
        encoder: has `stride`, samples a frame.
        x: (B, n_leads, L).
        lengths: (B,) samples before the zero padding, or None (no padding).

    Returns:
        (B, D, T'), and (B,) frames before the padding or None (no padding).
    """
    # Where every window is full, zeroing padding would only cost time in every layer. A GPU is not asked: it would
    # have to stop for the answer; and a compiled or exported network does the same whatever the numbers are.
    can_ask = lengths is not None and lengths.device.type == "cpu" and not torch.compiler.is_compiling()
    if can_ask and (lengths >= x.shape[-1]).all():
        lengths = None
    features = encoder(x, lengths)  # (B, D, T')
    if lengths is None:
        return features, None
    return features, (lengths + encoder.stride - 1) // encoder.stride  # rounded up


def pool_over_time(features: Tensor, frame_lengths: Tensor | None = None) -> Tensor:
    """Mean and maximum over the valid frames: features (B, D, T'), frame_lengths (B,) or None -> (B, 2 D).

    The mean tells what goes on throughout a window (a rhythm), the maximum what happens once in it (one ectopic beat),
    which a mean over seconds would thin out.
    """
    if frame_lengths is None:
        return torch.cat([features.mean(2), features.amax(2)], 1)
    frames = torch.arange(features.shape[2], device=features.device)
    padding = (frames >= frame_lengths[:, None]).unsqueeze(1)  # (B, 1, T')
    mean = features.masked_fill(padding, 0).sum(2) / frame_lengths[:, None]
    maximum = features.masked_fill(padding, float("-inf")).amax(2)
    return torch.cat([mean, maximum], 1)


class ClassificationHead(nn.Module):
    """Pools over time, joins what is known of the recording, and gives one logit per class.

    `thresholds` (n_classes,) are the probabilities above which a class is called. No gradient reaches them, but they
    belong to the weights that they were chosen for: as a buffer they are saved, loaded and moved with these.
    """

    def __init__(self, n_features: int, n_classes: int, dropout: float = 0.3, n_covariates: int = 0):
        super().__init__()
        self.n_covariates = n_covariates
        self.dropout = nn.Dropout(dropout)  # PyTorch's own: what it drops here is too little for speed to matter
        self.linear = nn.Linear(2 * n_features + n_covariates, n_classes)
        self.register_buffer("thresholds", torch.full((n_classes,), 0.5))

    @torch.no_grad()
    def start_at(self, frequency: Tensor) -> None:
        """Begin with the classes' frequencies (n_classes,) as answer to everything: the first steps need not learn
        them.
        """
        self.linear.bias.copy_(torch.logit(frequency.clamp(1e-3, 1 - 1e-3)))

    def forward(
        self, features: Tensor, frame_lengths: Tensor | None = None, covariates: Tensor | None = None
    ) -> Tensor:
        """Logits of a batch of windows.

        Args:
            features: (B, n_features, T') from the encoder.
            frame_lengths: (B,) int >= 1, frames before the padding, or None (no padding).
            covariates: (B, n_covariates), or None (nothing known, the same as zeros).

        Returns:
            (B, n_classes).
        """
        pooled = self.dropout(pool_over_time(features, frame_lengths))  # (B, 2 D)
        if self.n_covariates:
            if covariates is None:
                covariates = pooled.new_zeros(len(pooled), self.n_covariates)
            # Joined after the dropout, which would make numbers that are known look unknown.
            pooled = torch.cat([pooled, covariates.to(pooled.dtype)], 1)
        return self.linear(pooled)
