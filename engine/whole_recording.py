"""A trained model as one module: whole recordings in, probabilities out. What export.py writes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.inference import Predictor
from engine.windows import Windows


class RecordingModel(nn.Module):
    """What `Predictor.predict` computes, for recordings of one length: windows are cut inside, probabilities averaged
    over windows and members. In operations that can be traced for any number and length of recordings.
    """

    def __init__(self, models: Sequence[nn.Module], windows: Sequence[Windows], clip: float):
        """Args:
        models: in evaluation mode.
        windows: how each reads recordings.
        clip: mV beyond which amplitudes are cut.
        """
        super().__init__()
        self.models = nn.ModuleList(models)
        self.windows = list(windows)
        self.clip = clip

    def forward(self, signal: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Probabilities of recordings.

        Args:
            signal: (N, n_leads, T) mV at the model's rate.
            covariates: (N, N_COVARIATES), or None where the models use none.

        Returns:
            (N, C).
        """
        signal = signal.clamp(-self.clip, self.clip)
        total = 0
        for shared in sorted(set(self.windows)):
            x, lengths = cut_windows(signal, shared)  # (N, W, n_leads, L), (N, W)
            n_windows = x.shape[1]
            rows = None
            if covariates is not None:
                rows = covariates.unsqueeze(1).expand(-1, n_windows, -1).flatten(0, 1)  # (N W, N_COVARIATES)
            for model, own in zip(self.models, self.windows):
                if own == shared:
                    logits = model(x.flatten(0, 1), lengths.flatten(), rows)  # (N W, C)
                    total = total + torch.sigmoid(logits).reshape(-1, n_windows, logits.shape[1]).mean(1)  # (N, C)
        return total / len(self.models)


def cut_windows(signal: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The windows of `engine.windows.window_batches`: signal (N, n_leads, T) -> (N, W, n_leads, seq_length),
    zero-padded where the recording is shorter, and the samples before the padding, (N, W) int64.

    torch.export takes every size that varies for two or more: there a single window is cut twice, which changes no
    mean.
    """
    seq_length, overlap = windows.seq_length, windows.overlap
    n_samples = signal.shape[2]
    covered = at_least(n_samples, seq_length)
    n_windows = (covered - overlap - 1) // (seq_length - overlap) + 1
    if torch.compiler.is_compiling():
        n_windows = at_least(n_windows, 2)
    last = covered - seq_length  # first sample of the last window
    starts = torch.arange(n_windows, device=signal.device) * last // at_least(n_windows - 1, 1)  # (W,)
    samples = torch.arange(seq_length, device=signal.device)  # (L,)
    index = starts[:, None] + samples  # (W, L)
    padding = signal.new_zeros(1, 1, seq_length).expand(signal.shape[0], signal.shape[1], -1)
    x = torch.cat([signal, padding], 2)[:, :, index].transpose(1, 2)  # (N, W, n_leads, L)
    lengths = (samples < n_samples).sum().expand(signal.shape[0], n_windows)
    return x, lengths


def at_least(size: int | Tensor, minimum: int) -> int | Tensor:
    """A size, or the minimum where that is larger: a number, or what stands for one and stays a variable, a tensor
    while tracing for ONNX and a symbol in torch.export.
    """
    return size.clamp(min=minimum) if isinstance(size, Tensor) else torch.sym_max(size, minimum)


def recording_model(predictor: Predictor) -> RecordingModel:
    """The RecordingModel of a Predictor, which shares its weights."""
    return RecordingModel(predictor.models, predictor.windows, predictor.signal_config.clip).eval()
