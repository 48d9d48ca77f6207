"""Optimizer, schedule and one epoch of training: written once, for every script that trains."""

import copy
import math
import time
from dataclasses import dataclass

import torch
from tqdm import tqdm

from engine.distributed import ProcessGroup
from engine.run_folder import RunError


class NanLossError(RuntimeError):
    """The loss, or its gradient, is no longer a number; `rows` are the recordings of the batch."""

    def __init__(self, rows):
        super().__init__("the loss or its gradient is NaN or infinite")
        self.rows = rows


def make_optimizer(model, lr, weight_decay, encoder_lr_factor=1.0):
    """AdamW; norms, biases and other vectors are not decayed; the encoder learns at `encoder_lr_factor` times the
    rate.
    """
    groups = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            factor = encoder_lr_factor if name.startswith("encoder.") else 1.0
            groups.setdefault((factor, weight_decay if p.ndim > 1 else 0.0), []).append(p)
    return torch.optim.AdamW(
        [{"params": group, "lr": lr * factor, "weight_decay": decay} for (factor, decay), group in groups.items()],
        lr=lr,
        fused=True,
    )


def make_schedule(optimizer, n_steps, warmup=0.1):
    """Learning rate: linear warm-up over a share of all steps, then half a cosine down to zero. Called once a step."""
    n_warmup = max(1, int(warmup * n_steps))

    def factor(step):
        if step < n_warmup:
            return (step + 1) / n_warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class EMA:
    """Moving average of a model's weights (and of its batch-norm statistics); `model` is the averaged copy."""

    def __init__(self, model, decay):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.n_updates = decay, 0

    @torch.no_grad()
    def update(self, model):
        self.n_updates += 1
        decay = min(
            self.decay, self.n_updates / (self.n_updates + 10)
        )  # the first steps do not drag the random start along
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values()))
        means, new = zip(*(pair for pair in pairs if pair[0].dtype.is_floating_point))
        torch._foreach_lerp_(means, new, 1 - decay)  # all at once: on a GPU one launch instead of one for each
        for mean, count in pairs:
            if not mean.dtype.is_floating_point:
                mean.copy_(count)


def checked_sum(losses):
    """Sum of (loss tensor (), rows) pairs as a float; NanLossError with the rows of the first that is no number."""
    values = [loss.item() for loss, _ in losses]
    for value, (_, rows) in zip(values, losses):
        if not math.isfinite(value):
            raise NanLossError(rows)
    return sum(values)


@dataclass
class Trainer:
    """What a training step needs. `loss_fn(model, batch) -> scalar` is this process's share of the batch's loss: the
    shares add up.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: object
    ema: EMA
    loss_fn: object
    device: str
    bf16: bool = False
    group: ProcessGroup = ProcessGroup()
    compiled: bool = False
    clip_norm: float = 1.0

    def __post_init__(self):
        # The compiled form shares its weights with the model, which is what is saved.
        self.forward = torch.compile(self.model) if self.compiled else self.model

    def epochs(self, batches, first, last, seed, generator, names):
        """Train epochs first ... last; after each yield (epoch, {"epoch", "lr", "train_loss"}, {"seconds",
        "records_per_second"}), the columns of history.csv that every training has. Dropout and augmentation
        (`generator`) are seeded by epoch, so a resumed run draws what it would have drawn. `names` of the recordings
        tell where a loss became NaN.
        """
        n_records = len(batches) * batches.batch_size
        for epoch in range(first, last + 1):
            torch.manual_seed(
                seed * 100_003 + epoch + 10_007 * self.group.rank
            )  # dropout; `generator` is the same for all processes
            generator.manual_seed(seed * 100_003 + epoch)
            start = time.perf_counter()
            with tqdm(
                total=n_records, desc=f"Epoch {epoch}/{last}", unit="rec", leave=False, disable=not self.group.is_main
            ) as bar:
                try:
                    train_loss = self.train_one_epoch(batches.epoch(epoch), bar)
                except NanLossError as error:
                    raise RunError(
                        f"epoch {epoch}: {error}; the best epoch so far is kept. The batch held "
                        f"{', '.join(names[i] for i in error.rows)}"
                    ) from error
            seconds = time.perf_counter() - start
            yield (
                epoch,
                {"epoch": epoch, "lr": self.schedule.get_last_lr()[-1], "train_loss": train_loss},
                {"seconds": round(seconds, 2), "records_per_second": round(n_records / seconds, 1)},
            )

    def train_one_epoch(self, batches, bar=None):
        """Mean loss of an epoch over `batches`. Raises NanLossError; on a CPU before a bad gradient reaches the
        weights.
        """
        self.model.train()
        for part in self.model.children():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()  # frozen: no dropout, and batch norm keeps its statistics
        total, n, unchecked = 0.0, 0, []
        for batch in batches:
            with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bf16):
                loss = self.loss_fn(self.forward, batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.group.all_reduce_gradients(self.model.parameters())
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            unchecked.append(
                (self.group.all_reduce(loss.detach().clone()) + 0 * norm, batch.index)
            )  # NaN where either is no number
            if len(unchecked) >= self.check_every:
                total, unchecked = total + checked_sum(unchecked), []
            self.optimizer.step()
            self.schedule.step()
            self.ema.update(self.model)
            n += 1
            if bar is not None:
                bar.update(len(batch.index))
        return (total + checked_sum(unchecked)) / max(n, 1)

    @property
    def check_every(self):
        """Steps between looks at the loss. A look makes the processor wait for a GPU, so there it comes late: a bad
        step may then have changed the weights in memory, but the run ends before they are written.
        """
        return 1 if torch.device(self.device).type == "cpu" else 32

    def state(self):
        """Everything that changes while training, for a checkpoint."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "ema_updates": self.ema.n_updates,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state(self, state):
        """Go on where `state()` was taken."""
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        self.ema.n_updates = state["ema_updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
