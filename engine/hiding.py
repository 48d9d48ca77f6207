"""Hide leads and stretches of windows, so that a network which sees the rest can be asked for them.

Hidden samples are exactly zero, as missing leads are. What is hidden must not follow from what is left: the limb leads
III, aVR, aVL and aVF are combinations of I and II, so they are visible only where both are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from engine.augment import on_device, uniform

# How many of the windows show which leads: the share, then the chance of lead I, of lead II and of each chest lead.
PATTERNS = (
    (0.40, 1, 1, 1.0),
    (0.30, 1, 1, 0.5),
    (0.09, 1, 1, 0.0),
    (0.09, 1, 0, 0.0),
    (0.12, 0, 0, 0.7),
)
CHANCES = torch.tensor([[first, second, *[chest] * 6] for _, first, second, chest in PATTERNS])  # (patterns, 8)
STRETCH_SHARE = 0.6  # of the windows
STRETCH = (0.3, 1.2)  # s


@dataclass(frozen=True)
class Visible:
    """What is left of B windows."""

    x: Tensor  # (B, 12, L) mV, hidden samples and padding zero
    leads: Tensor  # (B, 8) bool, the independent leads that are visible, but for the stretch
    moments: Tensor  # (B, L) bool, False within the stretch and in the padding
    hidden: Tensor  # (B, 8, L) bool, samples that are hidden; padding is not


def hide(x: Tensor, lengths: Tensor, sample_freq: float, generator: Generator | None) -> Visible:
    """Hide leads of some windows, as PATTERNS say, and one stretch of all leads of some.

    Args:
        x: (B, 12, L) mV.
        lengths: (B,) samples before the zero padding.
        sample_freq: Hz.
        generator: what draws, on x's device.
    """
    leads = choose_leads(x, generator)  # (B, 8)
    stretch = choose_stretch(x, lengths, sample_freq, generator)  # (B, L)
    inside = torch.arange(x.shape[2], device=x.device) < lengths[:, None]  # (B, L)
    moments = inside & ~stretch
    both = leads[:, :1] & leads[:, 1:2]  # (B, 1)
    every = torch.cat([leads[:, :2], both.expand(-1, 4), leads[:, 2:]], 1)  # (B, 12)
    visible = leads[:, :, None] & moments[:, None]  # (B, 8, L)
    x = x.masked_fill(~(every[:, :, None] & moments[:, None]), 0)
    return Visible(x, leads, moments, inside[:, None] & ~visible)


def choose_leads(x: Tensor, generator: Generator | None) -> Tensor:
    """Which independent leads of windows x (B, 12, L) are visible: (B, 8) bool."""
    draw = uniform((len(x), 1), 0, 1, x, generator)
    pattern = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    limit = 0.0
    for share, *_ in PATTERNS[:-1]:
        limit += share
        pattern += draw[:, 0] >= limit
    return uniform((len(x), 8), 0, 1, x, generator) < on_device(CHANCES, x.device)[pattern]


def choose_stretch(x: Tensor, lengths: Tensor, sample_freq: float, generator: Generator | None) -> Tensor:
    """Which samples of windows x (B, 12, L) of `lengths` (B,) samples lie in a hidden stretch, which takes no more than
    half of a window: (B, L) bool.
    """
    shortest, longest = (seconds * sample_freq for seconds in STRETCH)
    draw = uniform((3, len(x)), 0, 1, x, generator)
    n = torch.minimum((shortest + draw[0] * (longest - shortest)).long(), lengths // 2)  # (B,)
    start = (draw[1] * (lengths - n + 1)).long()  # (B,)
    time = torch.arange(x.shape[2], device=x.device)
    within = (time >= start[:, None]) & (time < (start + n)[:, None])  # (B, L)
    return within & (draw[2] < STRETCH_SHARE)[:, None]
