"""One training by several processes, as `torchrun` starts them: each trains on its share of every batch, and all hold
the same weights.

A batch is the same for any number of processes, and so is what becomes of it: every process reads its share of the
windows, the shares are exchanged, every process augments the whole batch with the same random numbers and computes
the network on its share. Gradients are added up, batch norm takes its statistics over all shares (Ioffe and Szegedy
2015; synchronised). What differs from one process is rounding, and dropout, which draws other numbers on each
process.
"""

import contextlib
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce

from engine.run_folder import RunError

PATIENCE = timedelta(hours=12)  # the others wait so long while the first process builds the cache


class World:
    """The processes of a training. `rank` of this one, `size` how many there are, `device` that this one computes
    on.
    """

    def __init__(self, rank=0, size=1, device="cpu"):
        self.rank, self.size, self.device = rank, size, device

    @property
    def is_first(self):
        """Only the first process writes files and prints."""
        return self.rank == 0

    def part(self, n):
        """This process's share of n rows, n a multiple of `size`: a slice."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def gather(self, x):
        """Shares (b, ...) of all processes, one after another -> (b * size, ...)."""
        if self.size == 1:
            return x
        whole = x.new_empty((len(x) * self.size, *x.shape[1:]))
        dist.all_gather_into_tensor(whole, x.contiguous())
        return whole

    def gather_objects(self, value):
        """[value of process 0, value of process 1, ...], any small Python object."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum(self, x):
        """The sum of a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def add_gradients(self, parameters):
        """Sum each parameter's gradient over all processes, in one exchange."""
        gradients = [p.grad for p in parameters if p.grad is not None] if self.size > 1 else []
        if gradients:
            flat = self.sum(torch.cat([g.reshape(-1) for g in gradients]))
            for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients])):
                gradient.copy_(total.view_as(gradient))

    def first(self, value=None):
        """The first process's value on every process; the others wait for it."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    @contextlib.contextmanager
    def one_after_the_first(self):
        """The first process does what is in the block, then the others do: so a cache is built once and found by the
        others.
        """
        if not self.is_first:
            self.first()
        yield
        if self.is_first:
            self.first()


@contextlib.contextmanager
def joined_world(cuda):
    """The World of this process: alone, or one of those that torchrun started (which sets RANK, WORLD_SIZE,
    LOCAL_RANK and where to meet). With `cuda` each process has the GPU of its local number and they talk by NCCL,
    else by Gloo.
    """
    if "WORLD_SIZE" not in os.environ:
        yield World(device="cuda" if cuda else "cpu")
        return
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if cuda:
        if local >= torch.cuda.device_count():
            raise RunError(
                f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    quiet = (
        contextlib.nullcontext() if rank == 0 else contextlib.redirect_stdout(open(os.devnull, "w", encoding="utf-8"))
    )
    try:
        with quiet:
            yield World(rank, size, f"cuda:{local}" if cuda else "cpu")
    finally:
        if sys.exc_info()[0] is None:  # after an error the others may be gone
            dist.barrier()
        dist.destroy_process_group()


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics are those of the whole batch over all processes, on any device (PyTorch's own
    needs a GPU). x (b, C, H, W) -> same. In evaluation it is plain batch norm."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        n = x.numel() // x.shape[1] * dist.get_world_size()
        x32 = x.float()
        mean = all_reduce(x32.sum((0, 2, 3))) / n  # (C,)
        centred = x32 - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / n  # (C,)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / max(n - 1, 1), self.momentum)
            self.num_batches_tracked += 1
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synchronised(model, world):
    """The model, its batch norms replaced by synchronised ones with the same weights where several processes train
    it.
    """
    if world.size == 1:
        return model
    if world.device != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d  # the same weights, names and buffers
    return model
