"""Batch norm folded into the convolution before it: the same answers to rounding, with fewer operations. For
inference only.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_norms(model: nn.Module) -> nn.Module:
    """Make batch norms part of their convolutions, as far as these follow each other directly, and put the model into
    evaluation mode. It is changed in place, and returned.
    """
    for module in list(model.modules()):
        for conv_name, norm_name in foldable_pairs(module):
            conv = getattr(module, conv_name)
            norm = getattr(module, norm_name)
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            setattr(module, norm_name, nn.Identity())
    # As activations lie in memory (models/resnet.py): else every call brings the weights into that order.
    return model.eval().to(memory_format=torch.channels_last)


def foldable_pairs(module: nn.Module) -> tuple[tuple[str, str], ...]:
    """Names of a convolution and of the norm that follows it directly: what a block lists as FOLDABLE, or the first
    two layers of a Sequential.
    """
    if isinstance(module, nn.Sequential) and len(module) > 1:
        if isinstance(module[0], nn.Conv2d) and isinstance(module[1], nn.BatchNorm2d):
            return (("0", "1"),)
    return getattr(module, "FOLDABLE", ())
