"""What turns an encoder's features into answers."""

import torch
from torch import nn


def pool_over_time(features, frame_lengths=None):
    """Mean and maximum over the valid frames: features (B, D, T'), frame_lengths (B,) or None -> (B, 2 D)."""
    if frame_lengths is None:
        return torch.cat([features.mean(2), features.amax(2)], 1)
    frames = torch.arange(features.shape[2], device=features.device)
    padding = (frames >= frame_lengths[:, None]).unsqueeze(1)  # (B, 1, T')
    mean = features.masked_fill(padding, 0).sum(2) / frame_lengths[:, None]
    return torch.cat([mean, features.masked_fill(padding, float("-inf")).amax(2)], 1)


class ClassificationHead(nn.Module):
    """Pools over time, joins age and sex, and gives one logit per class.

    features (B, n_features, T'), frame_lengths (B,) int >= 1 or None (no padding), covariates (B, n_covariates)
    or None -> logits (B, n_classes). `thresholds` (n_classes,) are the probabilities above which a class is called;
    they are a buffer, so they are saved and loaded with the weights.
    """

    def __init__(self, n_features, n_classes, dropout=0.3, n_covariates=0):
        super().__init__()
        self.n_covariates = n_covariates
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * n_features + n_covariates, n_classes)
        self.register_buffer("thresholds", torch.full((n_classes,), 0.5))

    @torch.no_grad()
    def start_at(self, frequency):
        """Begin with the classes' frequencies (n_classes,) as answer to everything: the first steps need not learn
        them.
        """
        self.linear.bias.copy_(torch.logit(frequency.clamp(1e-3, 1 - 1e-3)))

    def forward(self, features, frame_lengths=None, covariates=None):
        pooled = self.dropout(pool_over_time(features, frame_lengths))  # (B, 2 D)
        if self.n_covariates:
            if covariates is None:  # all zero: nothing known
                covariates = pooled.new_zeros(len(pooled), self.n_covariates)
            pooled = torch.cat([pooled, covariates.to(pooled.dtype)], 1)
        return self.linear(pooled)
