"""Changes to training windows that another recorder, another electrode or another day would also make.

By batch and on any device; all randomness comes from the given generator. No flips and no shifts of the isoelectric
level as a whole: they would change the diagnosis (axis, ST segment).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import torch
from torch import Generator, Tensor

from data.covariates import LEAD_SUBSETS
from data.leads import LEADS

DEFAULT_AUGMENT = {
    "gain": 0.25,  # up to this relative change of amplitude
    "lead_dropout": 0.1,  # share of silent leads, in every second window
    "band": 0.5,  # share of windows seen through another recorder's filters
    "wander": 0.3,  # share of windows with a wandering baseline
    "noise": 0.3,  # share of windows with white noise
    "mixup": 0.3,  # shape of the mixing weights, see `mix`; 0 mixes nothing
}
LEADS_KEPT = torch.tensor([[name in subset for name in LEADS] for subset in (LEADS, *LEAD_SUBSETS)])  # (1 + S, 12)


def uniform(shape: tuple[int, ...], low: float, high: float, x: Tensor, generator: Generator) -> Tensor:
    """Uniform numbers.

    Args:
        shape: of the result.
        low, high: limits of the numbers.
        x: the result has its device and dtype.
        generator: what draws, on x's device.
    """
    return torch.rand(shape, generator=generator, device=x.device, dtype=x.dtype) * (high - low) + low


def pick_windows(probability: float, x: Tensor, generator: Generator) -> Tensor:
    """(B, 1, 1) bool for x (B, 12, L), each true with this probability."""
    return uniform((len(x), 1, 1), 0, 1, x, generator) < probability


def change_gain(x: Tensor, spread: float, generator: Generator) -> Tensor:
    """Scale each window as a whole by up to exp(+-spread), and each lead by a fifth of that; x (B, 12, L) -> same."""
    window = torch.exp(uniform((len(x), 1, 1), -spread, spread, x, generator))
    lead = uniform((*x.shape[:2], 1), 1 - spread / 5, 1 + spread / 5, x, generator)
    return x * window * lead


def change_band(x: Tensor, probability: float, generator: Generator) -> Tensor:
    """Recorders differ in bandwidth. Pass some windows through a random high-pass (second order, 0.05 to 0.7 % of the
    sampling rate) and low-pass (fourth order, 12 to 50 %), both without phase; at 100 Hz these percentages are Hz.
    x (B, 12, L) -> same.
    """
    frequency = torch.fft.rfftfreq(x.shape[2], 0.01, device=x.device)  # (F,) percent of the sampling rate
    high_pass = uniform((len(x), 1, 1), 0.05, 0.7, x, generator)
    low_pass = uniform((len(x), 1, 1), 12, 50, x, generator)
    response = frequency**2 / (frequency**2 + high_pass**2) / (1 + (frequency / low_pass) ** 4)  # (B, 1, F)
    response = torch.where(pick_windows(probability, x, generator), response, torch.ones_like(response))
    return torch.fft.irfft(torch.fft.rfft(x) * response, n=x.shape[2])


def add_wander(
    x: Tensor, probability: float, generator: Generator, n_waves: int = 3, amplitude: float = 0.08
) -> Tensor:
    """Add slow sines to some windows, as breathing does.

    Args:
        x: (B, 12, L) mV.
        probability: share of the windows that change.
        generator: what draws, on x's device.
        n_waves: sines in a window, each of 0.05 to 0.5 % of the sampling rate.
        amplitude: mV, standard deviation of a sine's height in each lead.

    Returns:
        same shape as x.
    """
    time = torch.arange(x.shape[2], device=x.device, dtype=x.dtype) / 100
    picked = pick_windows(probability, x, generator)
    for _ in range(n_waves):
        rate = uniform((len(x), 1, 1), 0.05, 0.5, x, generator)
        start = uniform((len(x), 1, 1), 0, 1, x, generator)
        height = torch.randn((*x.shape[:2], 1), generator=generator, device=x.device, dtype=x.dtype) * amplitude
        x = x + picked * height * torch.sin(2 * math.pi * (rate * time + start))  # (B, 12, L)
    return x


def add_noise(x: Tensor, probability: float, generator: Generator, amplitude: float = 0.04) -> Tensor:
    """Add white noise to some windows.

    Args:
        x: (B, 12, L) mV.
        probability: share of the windows that change.
        generator: what draws, on x's device.
        amplitude: mV, the largest standard deviation of a lead's noise.

    Returns:
        same shape as x.
    """
    largest = uniform((*x.shape[:2], 1), 0, amplitude, x, generator)
    strength = largest * pick_windows(probability, x, generator)  # (B, 12, 1)
    return x + strength * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def drop_leads(x: Tensor, probability: float, generator: Generator) -> Tensor:
    """Silence leads with this probability, as loose electrodes do, in every second window, but never all of them;
    x (B, n_leads, L) -> same.
    """
    dropped = uniform((*x.shape[:2], 1), 0, 1, x, generator) < probability
    dropped &= ~dropped.all(1, keepdim=True)
    return x * ~(dropped & pick_windows(0.5, x, generator))


@cache
def on_device(constant: Tensor, device: torch.device) -> Tensor:
    """A constant of a module on a device, copied there once: a copy makes the processor wait for a GPU."""
    return constant.to(device)


def keep_lead_subset(
    x: Tensor, covariates: Tensor, subset_covariates: Tensor, probability: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Leave some windows no more leads than a small recorder has: those of one of LEAD_SUBSETS, each as likely. The
    other leads become exactly zero, as `preprocess` leaves them, and the covariates those that the driver would compute
    from the leads that are left. To be called last, for noise on a missing lead would give it away.

    Args:
        x: (B, 12, L) mV.
        covariates: (B, N) of all leads.
        subset_covariates: (B, S, N) of each subset.
        probability: share of the windows.
        generator: of x's device.

    Returns:
        x (B, 12, L) and covariates (B, N).
    """
    drawn = uniform((len(x),), 0, 1, x, generator) < probability
    subset = torch.randint(len(LEAD_SUBSETS), (len(x),), generator=generator, device=x.device)
    choice = (subset + 1) * drawn  # (B,) 0: all leads
    every = torch.cat([covariates[:, None], subset_covariates], 1)  # (B, 1 + S, N)
    rows = torch.arange(len(x), device=x.device)
    return x * on_device(LEADS_KEPT, x.device)[choice][:, :, None], every[rows, choice]


def mix(
    x: Tensor, y: Tensor, mask: Tensor, lengths: Tensor, alpha: float, generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """mixup (Zhang et al. 2018): add to each window a share w of another one, signal and targets alike.

    w = u^(1/alpha) / 2 with u uniform: the density w^(alpha - 1) of a Beta(alpha, alpha) near zero, cut at a half. A
    label counts as far as both windows know it.

    Args:
        x: (B, 12, L) mV.
        y: (B, C) targets.
        mask: (B, C) loss weights.
        lengths: (B,) samples before the zero padding.
        alpha: shape of the mixing weights.
        generator: what draws, on x's device.

    Returns:
        x, y, mask, lengths of the same shapes.
    """
    other = torch.randperm(len(x), generator=generator, device=x.device)
    share = uniform((len(x), 1), 0, 1, x, generator) ** (1 / alpha) / 2  # (B, 1)
    x = torch.lerp(x, x[other], share[:, :, None])
    return x, torch.lerp(y, y[other], share), torch.minimum(mask, mask[other]), torch.maximum(lengths, lengths[other])


def augment(
    x: Tensor, y: Tensor, mask: Tensor, lengths: Tensor, config: Mapping[str, float], generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Augment one training batch; nothing is changed in place.

    Args:
        x: (B, 12, L) mV.
        y: (B, C) targets.
        mask: (B, C) loss weights.
        lengths: (B,) samples before the zero padding.
        config: with (at least) the keys of DEFAULT_AUGMENT; 0 switches one off.
        generator: what draws, on x's device.

    Returns:
        x, y, mask, lengths of the same shapes and dtypes, padding still zero.
    """
    if config["mixup"]:
        x, y, mask, lengths = mix(x, y, mask, lengths, config["mixup"], generator)
    if config["gain"]:
        x = change_gain(x, config["gain"], generator)
    if config["band"]:
        x = change_band(x, config["band"], generator)
    if config["wander"]:
        x = add_wander(x, config["wander"], generator)
    if config["noise"]:
        x = add_noise(x, config["noise"], generator)
    if config["lead_dropout"]:
        x = drop_leads(x, config["lead_dropout"], generator)
    padding = torch.arange(x.shape[2], device=x.device) >= lengths[:, None]  # (B, L)
    return x.masked_fill(padding[:, None], 0), y, mask, lengths
