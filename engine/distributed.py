"""Several processes, as `torchrun` starts them, share a folder to classify or train one model: then each trains on its
rows of every batch, and all hold the same weights.

A batch is the same for any number of processes, and so is what becomes of it: every process reads its rows, the rows
are gathered, every process augments the whole batch with the same random numbers and computes the network on its own
rows. Gradients are summed, batch norm takes its statistics over the whole batch (Ioffe and Szegedy 2015;
synchronised). What differs from one process is rounding, and dropout, which draws other numbers on each process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from engine.run_folder import RunError

TIMEOUT = timedelta(hours=12)  # the others wait so long while the main process builds the cache
TOLD_BY_TORCHRUN = {"WORLD_SIZE", "RANK", "LOCAL_RANK"}
_NOTHING = object()


class ProcessGroup:
    """The processes that work together: `rank` of this one, `world_size` how many there are, `device` that it uses."""

    def __init__(self, rank: int = 0, world_size: int = 1, device: str = "cpu"):
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.counted = 0  # see `count`

    @property
    def is_main(self) -> bool:
        """Only the main process writes files and prints."""
        return self.rank == 0

    def local_rows(self, n: int) -> slice:
        """The rows of n that are this process's, n a multiple of `world_size`."""
        return slice(self.rank * n // self.world_size, (self.rank + 1) * n // self.world_size)

    def all_gather(self, x: Tensor) -> Tensor:
        """Rows (b, ...) of all processes, one after another -> (b * world_size, ...)."""
        if self.world_size == 1:
            return x
        whole = x.new_empty((len(x) * self.world_size, *x.shape[1:]))
        if whole.numel():  # there may be columns of nothing, which need no exchange
            dist.all_gather_into_tensor(whole, x.contiguous())
        return whole

    def all_gather_object(self, value: Any) -> list:
        """[value of process 0, value of process 1, ...], any small Python object."""
        if self.world_size == 1:
            return [value]
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def gather_in_turns(self, values: list) -> list:
        """Of lists of what every process made of its batches, batch number i being that of process i % world_size: all
        entries in the order of the batches, on the main process; on the others nothing.
        """
        if self.world_size == 1:
            return values
        parts = [None] * self.world_size if self.is_main else None
        dist.gather_object(values, parts)
        if not self.is_main:
            return []
        turns = itertools.zip_longest(*parts, fillvalue=_NOTHING)
        return [value for turn in turns for value in turn if value is not _NOTHING]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            dist.barrier()

    def count(self, n: int) -> int:
        """Add n to a number that all processes share, without waiting for any of them -> what it is now."""
        if self.world_size > 1:
            self.counted = dist.distributed_c10d._get_default_store().add("count", n)
        else:
            self.counted += n
        return self.counted

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(x)
        return x

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum each parameter's gradient over all processes, in one exchange."""
        if self.world_size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        flat = self.all_reduce(torch.cat([g.reshape(-1) for g in gradients]))
        for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(total.view_as(gradient))

    def broadcast(self, value: Any = None) -> Any:
        """The main process's value on every process; the others wait for it."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The main process does what is in the block, then the others do: so a cache is built once and found by them.
        Where it raises an error, the others end with status 1, and it alone says why.
        """
        if not self.is_main:
            if not self.broadcast():
                raise SystemExit(1)
            yield
            return
        try:
            yield
        except Exception:
            self.broadcast(False)
            raise
        self.broadcast(True)


@contextlib.contextmanager
def process_group(cuda: bool) -> Iterator[ProcessGroup]:
    """The ProcessGroup of this process: alone, or one of those that torchrun started (which sets RANK, WORLD_SIZE,
    LOCAL_RANK and where to meet). With `cuda` each process has the GPU of its local rank and they talk by NCCL, else
    by Gloo. Raises RunError if there are fewer GPUs than processes.
    """
    if not TOLD_BY_TORCHRUN <= os.environ.keys():
        yield ProcessGroup(device="cuda" if cuda else "cpu")
        return
    rank = int(os.environ["RANK"])
    local_rank = int(os.environ["LOCAL_RANK"])
    if cuda:
        if local_rank >= torch.cuda.device_count():
            raise RunError(
                f"process {local_rank} of this machine has no GPU of its own: there are {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(local_rank)
    device = f"cuda:{local_rank}" if cuda else "cpu"
    # Without the device NCCL would guess it from the rank, wrongly where machines have different numbers of GPUs.
    dist.init_process_group(
        "nccl" if cuda else "gloo", timeout=TIMEOUT, device_id=torch.device(device) if cuda else None
    )
    try:
        with contextlib.nullcontext() if rank == 0 else _silence():
            yield ProcessGroup(rank, int(os.environ["WORLD_SIZE"]), device)
    finally:
        failed = sys.exc_info()[0] is not None  # then the others may be gone
        if not failed:
            dist.barrier()
        if not failed or not cuda:  # NCCL would wait for the others here, and torchrun for this process's end
            dist.destroy_process_group()


def _silence() -> contextlib.AbstractContextManager:
    """Standard output goes nowhere: the main process speaks for all."""
    return contextlib.redirect_stdout(open(os.devnull, "w", encoding="utf-8"))


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics are those of the whole batch over all processes, on any device (PyTorch's own
    needs a GPU). x (b, C, H, W) -> same. In evaluation it is plain batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
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


def synchronise_batch_norm(model: nn.Module, group: ProcessGroup) -> nn.Module:
    """The model, its batch norms replaced by synchronised ones with the same weights where several processes train."""
    if group.world_size == 1:
        return model
    if group.device != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, _sync_batch_norm(child))
    return model


def _sync_batch_norm(norm: nn.BatchNorm2d) -> SyncBatchNorm2d:
    """A SyncBatchNorm2d with the weights and statistics of a plain one."""
    new = SyncBatchNorm2d(norm.num_features, norm.eps, norm.momentum)
    new.load_state_dict(norm.state_dict())
    return new
