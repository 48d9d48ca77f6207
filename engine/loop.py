"""Optimizer, schedule, moving average and one epoch of training: written once, for every script that trains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from data.dataset import Batch, TrainBatches
from engine.allocator import keep_freed_memory
from engine.distributed import ProcessGroup
from engine.run_folder import RunError


class NanLossError(RuntimeError):
    """The loss, or its gradient, is not a number any more; `rows` are the recordings of the batch."""

    def __init__(self, rows: Iterable[int]):
        super().__init__("the loss or its gradient is NaN or infinite")
        self.rows = rows


def make_optimizer(
    model: nn.Module, lr: float, weight_decay: float, encoder_lr_factor: float = 1.0
) -> torch.optim.Optimizer:
    """AdamW; norms, biases and other vectors are not decayed; the encoder learns at `encoder_lr_factor` times the rate.

    Args:
        model: its parameters that require no gradient are left out.
        lr: peak learning rate of everything but the encoder.
        weight_decay: of matrices and convolutions.
        encoder_lr_factor: learning rate of `model.encoder` relative to `lr`.
    """
    groups = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            factor = encoder_lr_factor if name.startswith("encoder.") else 1.0
            decay = weight_decay if p.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(p)
    return torch.optim.AdamW(
        [{"params": params, "lr": lr * factor, "weight_decay": decay} for (factor, decay), params in groups.items()],
        lr=lr,
        fused=True,
    )


def make_schedule(
    optimizer: torch.optim.Optimizer, n_steps: int, warmup: float = 0.1
) -> torch.optim.lr_scheduler.LRScheduler:
    """Learning rate: linear warm-up over a share of all steps, then half a cosine down to zero. Called once a step."""
    n_warmup = max(1, int(warmup * n_steps))

    def factor(step):
        if step < n_warmup:
            return (step + 1) / n_warmup
        progress = (step - n_warmup) / max(1, n_steps - n_warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class MovingAverage(AveragedModel):
    """Exponential moving average of a model's weights and batch-norm statistics; `.module` is the averaged model.

    The decay rises from 1/11 to `decay`, so that the first steps do not drag the random start along.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self.n_averaged.fill_(1)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in the weights after a step. PyTorch's own would copy the number of steps to a GPU, and so wait for it
        in every step; here that number stays on the CPU.
        """
        means = [*self.module.parameters(), *self.module.buffers()]
        values = [*model.parameters(), *model.buffers()]
        averaged = [(mean, value) for mean, value in zip(means, values) if mean.is_floating_point()]
        n = int(self.n_averaged)
        weight = 1 - min(self.decay, n / (n + 10))
        torch._foreach_lerp_(*map(list, zip(*averaged)), weight)  # on a GPU one launch instead of hundreds
        for mean, value in zip(means, values):
            if not mean.is_floating_point():  # counters of batch norm
                mean.copy_(value)
        self.n_averaged += 1


def checked_sum(losses: list[tuple[Tensor, Iterable[int]]]) -> float:
    """Sum of (loss tensor (), rows) pairs; NanLossError with the rows of the first that is not a number."""
    values = [loss.item() for loss, _ in losses]
    for value, (_, rows) in zip(values, losses):
        if not math.isfinite(value):
            raise NanLossError(rows)
    return sum(values)


@dataclass
class Trainer:
    """What a training step needs; one for every script that trains.

    Args:
        model: the network, on the group's device.
        optimizer, schedule: from `make_optimizer` and `make_schedule`.
        loss_fn: (model, batch) -> scalar, this process's share of the batch's loss: the shares add up.
        ema_decay: of the moving average of the weights, `ema_model`.
        seed: dropout and augmentation are seeded by it and the epoch, so a resumed run draws what it would have drawn.
        generator: what `loss_fn` augments with, the same for all processes; or None.
        group: the processes that train together.
        names: of the recordings, to say where a loss became NaN.
        bf16: compute in bfloat16 where that is safe (autocast).
        compiled: torch.compile the network.
        clip_norm: largest norm of the gradient.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    loss_fn: Callable[[nn.Module, Batch], Tensor]
    ema_decay: float = 0.99
    seed: int = 1
    generator: torch.Generator | None = None
    group: ProcessGroup = field(default_factory=ProcessGroup)
    names: list[str] = field(default_factory=list)
    bf16: bool = False
    compiled: bool = False
    clip_norm: float = 1.0

    def __post_init__(self):
        keep_freed_memory()  # a step takes what the step before has freed
        self.device_type = torch.device(self.group.device).type
        self.ema = MovingAverage(self.model, self.ema_decay)
        # The compiled form shares its weights with the model, which is what is saved.
        self.forward = torch.compile(self.model) if self.compiled else self.model

    @property
    def ema_model(self) -> nn.Module:
        """The network with averaged weights: what is validated and saved."""
        return self.ema.module

    def train_one_epoch(self, batches: TrainBatches, epoch: int) -> dict[str, float]:
        """One pass over the training recordings.

        Args:
            batches: what `epoch(number)` of yields Batches.
            epoch: its number, from 1.

        Returns:
            epoch, lr, train_loss, seconds and records_per_second: columns of history.csv.

        Raises:
            RunError: the loss or a gradient is NaN or infinite; the message names the batch's recordings. On a CPU the
                weights are still those before it.
        """
        torch.manual_seed(self.seed * 100_003 + epoch + 10_007 * self.group.rank)  # dropout differs by process
        if self.generator is not None:
            self.generator.manual_seed(self.seed * 100_003 + epoch)
        self._set_modes()
        n_records = len(batches) * batches.batch_size
        start = time.perf_counter()
        try:
            with tqdm(
                total=n_records, desc=f"Epoch {epoch}", unit="rec", leave=False, disable=not self.group.is_main
            ) as bar:
                train_loss = self._train_batches(batches.epoch(epoch), bar)
        except NanLossError as error:
            held = ", ".join(self.names[i] for i in error.rows)
            raise RunError(
                f"epoch {epoch}: {error}; the best epoch so far is kept. Try a smaller --lr. The batch held {held}"
            ) from error
        seconds = time.perf_counter() - start
        return {
            "epoch": epoch,
            "lr": self.schedule.get_last_lr()[-1],
            "train_loss": train_loss,
            "seconds": round(seconds, 2),
            "records_per_second": round(n_records / seconds, 1),
        }

    def _set_modes(self):
        """Training mode, but evaluation mode for parts that are frozen: no dropout, and batch norm keeps its
        statistics.
        """
        self.model.train()
        for part in self.model.children():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()

    def _train_batches(self, batches: Iterable[Batch], bar: tqdm) -> float:
        """Mean loss. Raises NanLossError."""
        total = 0.0
        n_batches = 0
        unchecked = []
        for batch in batches:
            loss, norm = self._backward(batch)
            unchecked.append((self.group.all_reduce(loss) + 0 * norm, batch.index))  # NaN where either is
            if len(unchecked) >= self.check_every:
                total += checked_sum(unchecked)
                unchecked = []
            self.optimizer.step()
            self.schedule.step()
            self.ema.update_parameters(self.model)
            n_batches += 1
            bar.update(len(batch.index))
        return (total + checked_sum(unchecked)) / max(n_batches, 1)

    def _backward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Gradients of a batch, clipped -> this process's share of the loss (), norm of the gradient ()."""
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.bf16):
            loss = self.loss_fn(self.forward, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.group.all_reduce_gradients(self.model.parameters())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        return loss.detach().clone(), norm

    @property
    def check_every(self) -> int:
        """Steps between looks at the loss. A look makes the processor wait for a GPU, so there it comes late: a bad
        step may then have changed the weights in memory, but the run ends before they are written.
        """
        return 1 if self.device_type == "cpu" else 32

    def state(self) -> dict:
        """Everything that changes while training, for a checkpoint."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state(self, state: dict) -> None:
        """Go on where `state()` was taken. Raises KeyError, ValueError or RuntimeError if it is of another training."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(_ema_state(state))
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def _ema_state(state: dict) -> dict:
    """The moving average of a checkpoint; before AveragedModel its count lay beside the weights."""
    if "ema_updates" not in state:
        return state["ema"]
    weights = {f"module.{name}": value for name, value in state["ema"].items()}
    return {**weights, "n_averaged": torch.tensor(state["ema_updates"] + 1)}
