"""Batch norm folded into the convolution before it: the same answers to rounding, with fewer operations. For
inference only.
"""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_norms(model):
    """Make batch norms part of their convolutions, as far as these follow each other directly, and put the model into
    evaluation mode. It is changed in place, and returned.
    """
    for module in list(model.modules()):
        pairs = getattr(module, "NORMS", ())  # of a block
        if (
            isinstance(module, nn.Sequential)
            and len(module) > 1
            and isinstance(module[0], nn.Conv2d)
            and isinstance(module[1], nn.BatchNorm2d)
        ):
            pairs = (("0", "1"),)
        for before, name in pairs:
            conv, norm = getattr(module, before), getattr(module, name)
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            setattr(module, name, nn.Identity())
    return model.eval()
