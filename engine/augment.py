"""Changes to training windows that another recorder or another day would also make. By batch, on any device."""
import torch

DEFAULT_AUGMENT = {"gain": 0.2, "lead_dropout": 0.1, "mixup": 0.0}


def uniform(shape, low, high, x, generator):
    """Uniform numbers of `shape`, drawn from `generator`, with x's device and dtype."""
    return torch.rand(shape, generator=generator, device=x.device, dtype=x.dtype) * (high - low) + low


def random_gain(x, spread, generator):
    """Scale each window as a whole and each lead a little; x (B, 12, L) -> same."""
    window = uniform((len(x), 1, 1), 1 - spread, 1 + spread, x, generator)
    lead = uniform((*x.shape[:2], 1), 1 - spread / 4, 1 + spread / 4, x, generator)
    return x * window * lead


def drop_leads(x, probability, generator):
    """Silence each lead with this probability; x (B, 12, L) -> same."""
    keep = uniform((*x.shape[:2], 1), 0, 1, x, generator) >= probability
    return x * keep


def augment(x, y, mask, n_valid, config, generator):
    """Augment one training batch.

    x (B, 12, L) mV, y (B, C) targets, mask (B, C) loss weights, n_valid (B,) samples before the padding;
    config a dict with the keys of DEFAULT_AUGMENT -> the same four, same shapes and dtypes.
    """
    x = random_gain(x, config["gain"], generator)
    x = drop_leads(x, config["lead_dropout"], generator)
    return x, y, mask, n_valid
