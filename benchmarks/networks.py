"""Training and inference of the predecessor's network and of ours: python -m benchmarks.networks"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.recordings import of_10_s_at_500_hz
from benchmarks.reference import PlainResNet, PlainTransformer, load_window
from benchmarks.timing import Row, apart, compare, report
from data.covariates import N_COVARIATES
from data.records import find_records
from engine.allocator import keep_freed_memory
from engine.augment import DEFAULT_AUGMENT, augment
from engine.bf16 import cpu_has_bf16
from engine.distributed import ProcessGroup
from engine.forecasting import error_unit, huber
from engine.inference import load_predictor
from engine.loop import Trainer, make_optimizer, make_schedule
from engine.windows import in_threads
from models import build_encoder, build_model
from models.next_sample import NextSampleModel
from run_12ECG_classifier import DEFAULT_MODEL

BATCH = 32  # of the predecessor
LENGTH = 4096  # samples of its windows
PREDECESSOR = {"encoder": "resnet"}  # its sizes are the encoder's defaults
K_STEPS_AHEAD = [2, 5, 10, 15, 20, 30, 40, 50, 75, 100]


class Step:
    """One training step of ours on random windows, called without arguments. It takes the place of the batches of an
    epoch, and of the only one of these: what is trained on, `loss_fn` makes.
    """

    batch_size = 1
    index = ()  # of the recordings in the batch

    def __init__(self, model: nn.Module, loss_fn: Callable[[nn.Module, Step], Tensor], bf16: bool):
        optimizer = make_optimizer(model, 1e-3, 0.01)
        quiet = ProcessGroup(rank=1)  # only the main process shows a progress bar
        self.trainer = Trainer(model, optimizer, make_schedule(optimizer, 1000), loss_fn, group=quiet, bf16=bf16)

    def __call__(self) -> None:
        self.trainer.train_one_epoch(self, 1)

    def __len__(self) -> int:
        return 1

    def epoch(self, number: int) -> list[Step]:
        """The batches of an epoch."""
        return [self]


def our_classifier(config: dict, n: int, length: int, bf16: bool) -> Step:
    """Step of train.py: augmentation, forward, backward, AdamW, averaged weights.

    Args:
        config: of the model.
        n: windows.
        length: samples in a window.
        bf16: compute in bfloat16.
    """
    generator = torch.Generator()
    x = torch.randn(n, 12, length)
    y = (torch.rand(n, 24) < 0.1).float()
    known = torch.ones(n, 24)
    lengths = torch.full((n,), length)
    covariates = torch.zeros(n, N_COVARIATES)
    settings = dict.fromkeys(DEFAULT_AUGMENT, 0) if config == PREDECESSOR else DEFAULT_AUGMENT

    def loss_fn(model, _):
        windows, targets, mask, ends = augment(x, y, known, lengths, settings, generator)
        logits = model(windows, ends, covariates).float()
        return (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * mask).mean()

    return Step(build_model(config), loss_fn, bf16)


def plain_step(paths: Sequence[str]) -> Callable[[], None]:
    """The predecessor's step: windows read and resampled again, eager float32, Adam."""
    model = PlainResNet()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    y = (torch.rand(len(paths), 24) < 0.1).float()

    def step():
        x = torch.from_numpy(np.stack([load_window(path) for path in paths]))
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(model(x), y).backward()
        optimizer.step()

    return step


def plain_answers() -> Callable[[], None]:
    """The predecessor's network on 64 recordings."""
    model = PlainResNet().eval()
    x = torch.randn(64, 12, LENGTH)

    def answer():
        with torch.inference_mode():
            model(x)

    return answer


def plain_pretraining_step() -> Callable[[], None]:
    """The predecessor's step of pre-training on 10 s at 100 Hz, 4 samples a token."""
    model = PlainTransformer()
    x = torch.randn(BATCH, 12, 1000)
    target = torch.zeros(BATCH, 250, 48)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step():
        optimizer.zero_grad()
        F.mse_loss(model(x), target).backward()
        optimizer.step()

    return step


def training(paths: Sequence[str]) -> Iterator[Row]:
    """Rows of training steps, the predecessor's network and the default one."""
    name = "plain, eager float32"
    goals = {"float32": ("1.7x", "33.7/s")}
    if cpu_has_bf16():
        goals["bf16"] = ("2.8x", "62/s")
    with apart(plain_step, paths) as plain:
        for precision, (goal, limit) in goals.items():
            yield compare(
                f"train the predecessor's network, {precision}",
                our_classifier(PREDECESSOR, BATCH, LENGTH, precision == "bf16"),
                plain,
                n=BATCH,
                reference_name=name,
                goal=goal,
                limit=limit,
            )
        ours = our_classifier({"encoder": "xresnet"}, 64, 250, cpu_has_bf16())
        yield compare(
            "train the default network",
            lambda: [ours() for _ in range(10)],
            plain,
            n=640,
            n_reference=BATCH,
            reference_name=f"predecessor's, {name}",
            goal="25x",
        )


def inference() -> Iterator[Row]:
    """64 recordings through the predecessor's network: as PyTorch splits each operation, and a half on each core as
    `predict` works.
    """
    x = torch.randn(64, 12, LENGTH)
    ours = build_model(PREDECESSOR).eval()
    parts = x.split(16)

    def run(bf16):
        def answer(part):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return ours(part)

        return lambda: list(in_threads(answer, parts, torch.get_num_threads()))

    goals = {"float32": ("85/s", "100/s")}
    if cpu_has_bf16():
        goals["bf16"] = ("150/s", "185/s")
    with apart(plain_answers) as plain:
        for precision, (goal, limit) in goals.items():
            yield compare(
                f"predecessor's network, 64 recordings, {precision}",
                run(precision == "bf16"),
                plain,
                n=64,
                reference_name="plain, eager float32",
                goal=goal,
                limit=limit,
            )


def pretraining() -> Iterator[Row]:
    """One step on 10 s at 100 Hz: the predecessor's transformer takes 4 samples a token, ours 8, both with about 2.0
    million weights.
    """
    x = torch.randn(BATCH, 12, 1000)
    lengths = torch.full((BATCH,), 1000)
    scale = torch.ones(12)

    def loss_fn(model, _):
        prediction, future, valid = model(x, lengths)
        error, n = huber(prediction, future, valid, error_unit(x, lengths, scale))
        return (error / n.clamp(min=1)).mean()

    model = NextSampleModel(build_encoder({"encoder": "transformer", "width": 200}), K_STEPS_AHEAD, scale.tolist())
    with apart(plain_pretraining_step) as plain:
        yield compare(
            f"pre-training step, {millions_of_weights(model)}",
            Step(model, loss_fn, cpu_has_bf16()),
            plain,
            n=BATCH,
            reference_name=f"predecessor's transformer, {millions_of_weights(PlainTransformer())}",
            goal="5x",
        )


def millions_of_weights(model: nn.Module) -> str:
    """Size of a network."""
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M weights"


def one_recording() -> Iterator[Row]:
    """Rows of the networks of the shipped ensemble alone on one recording of 10 s."""
    predictor = load_predictor(DEFAULT_MODEL / "ensemble")
    signal = np.random.default_rng(0).integers(-500, 500, (12, 1000)).astype(np.int16)
    covariates = np.zeros((1, N_COVARIATES), np.float32)
    yield compare(
        f"network of one recording, {len(predictor.models)} members",
        lambda: predictor.predict([signal], covariates),
        unit="s",
        repetitions=20,
    )
    predictor.models = predictor.models[:1]
    yield compare(
        "network of one recording, one member",
        lambda: predictor.predict([signal], covariates),
        unit="s",
        goal="0.015 s with reading",
        repetitions=20,
    )


def measure(folder: Path) -> Iterator[Row]:
    """Training and inference of the networks."""
    keep_freed_memory()  # as the training scripts do
    torch.manual_seed(0)
    paths = [record.path for record in of_10_s_at_500_hz(find_records(folder))[:BATCH]]
    yield from training(paths)
    yield from inference()
    yield from pretraining()
    yield from one_recording()


if __name__ == "__main__":
    report(measure)
