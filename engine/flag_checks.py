"""Numbers that flags of the training scripts may have."""

import math
from argparse import Namespace

SHARES = (
    "lead_subsets",
    "teacher_share",
    "hide_covariates",
    "lead_dropout",
    "band",
    "wander",
    "noise",
    "ema_decay",
    "dropout",
    "head_dropout",
)
POSITIVE = ("epochs", "batch_size", "sample_freq", "lr", "n_total", "n_folds", "workers", "encoder_lr_factor")
NOT_NEGATIVE = ("gain", "mixup", "weight_decay", "auxiliary", "forest")
MIN_WINDOW = 32  # samples; the shortest that two frames of the default encoder cover


def check_numbers(args: Namespace) -> None:
    """Refuse, with a ValueError, a flag whose number cannot be meant."""
    for name in POSITIVE:
        if getattr(args, name, None) is not None and not 0 < getattr(args, name) < math.inf:  # nan neither
            raise ValueError(f"--{name} must be positive")
    for name in NOT_NEGATIVE:
        if not 0 <= getattr(args, name, 0) < math.inf:
            raise ValueError(f"--{name} {getattr(args, name)} is not a number from 0 on")
    for name in SHARES:
        value = getattr(args, name, None)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"--{name} {value} is not between 0 and 1")
    if args.batch_size < 2:
        raise ValueError("--batch_size 1: batch norm needs at least 2 windows in a batch, 16 or more work well")
    if args.seq_length < MIN_WINDOW:
        raise ValueError(f"--seq_length {args.seq_length}: a window needs at least {MIN_WINDOW} samples")
