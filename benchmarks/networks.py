"""Training and inference of the predecessor's network and of ours: python -m benchmarks.networks"""

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.reference import PlainResNet, PlainTransformer, load_window
from benchmarks.timing import apart, compare, report
from data.records import find_records, read_header
from engine.allocator import keep_freed_memory
from engine.augment import DEFAULT_AUGMENT, augment
from engine.forecasting import error_unit, huber
from engine.inference import in_threads, load_predictor
from engine.distributed import ProcessGroup
from engine.loop import Trainer, make_optimizer, make_schedule
from engine.options import cpu_has_bf16
from models import build_encoder, build_model
from models.next_sample import NextSampleModel
from run_12ECG_classifier import DEFAULT_MODEL

B, L = 32, 4096
PREDECESSOR = {"encoder": "resnet"}  # its sizes are the encoder's defaults


class Step:
    """One training step of ours on random windows, called without arguments."""

    def __init__(self, model, loss_fn, bf16):
        optimizer = make_optimizer(model, 1e-3, 0.01)
        quiet = ProcessGroup(rank=1)  # only the main process shows a progress bar
        self.trainer = Trainer(model, optimizer, make_schedule(optimizer, 1000), loss_fn, group=quiet, bf16=bf16)

    def __call__(self):
        self.trainer.train_one_epoch(self, 1)

    batch_size = 1
    index = ()

    def __len__(self):
        return 1

    def epoch(self, number):
        return [self]


def our_classifier(config, n, length, bf16):
    """Step of train.py: augmentation, forward, backward, AdamW, averaged weights."""
    generator = torch.Generator()
    x, y, ones, lengths = (
        torch.randn(n, 12, length),
        (torch.rand(n, 24) < 0.1).float(),
        torch.ones(n, 24),
        torch.full((n,), length),
    )
    settings = DEFAULT_AUGMENT if config.get("encoder") != "resnet" else dict.fromkeys(DEFAULT_AUGMENT, 0)

    def loss_fn(model, batch):
        a, b, mask, valid = augment(x, y, ones, lengths, settings, generator)
        logits = model(a, valid, torch.zeros(n, 23)).float()
        return (F.binary_cross_entropy_with_logits(logits, b, reduction="none") * mask).mean()

    return Step(build_model(config), loss_fn, bf16)


def plain_step(paths):
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


def plain_answers():
    """The predecessor's network on 64 recordings."""
    model, x = PlainResNet().eval(), torch.randn(64, 12, L)

    def answer():
        with torch.inference_mode():
            model(x)

    return answer


def plain_pretraining_step():
    """The predecessor's step of pre-training on 10 s at 100 Hz, 4 samples a token."""
    model, x = PlainTransformer(), torch.randn(B, 12, 1000)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step():
        optimizer.zero_grad()
        F.mse_loss(model(x), torch.zeros(B, 250, 48)).backward()
        optimizer.step()

    return step


def training(paths):
    name = "plain, eager float32"
    with apart(plain_step, paths) as plain:
        yield compare(
            "train the predecessor's network, float32",
            our_classifier(PREDECESSOR, B, L, False),
            plain,
            n=B,
            reference_name=name,
            goal="1.7x",
            limit="33.7/s",
            repetitions=5,
        )
        if cpu_has_bf16():
            yield compare(
                "train the predecessor's network, bf16",
                our_classifier(PREDECESSOR, B, L, True),
                plain,
                n=B,
                reference_name=name,
                goal="2.8x",
                limit="62/s",
                repetitions=5,
            )
        ours = our_classifier({"encoder": "xresnet"}, 64, 250, cpu_has_bf16())
        yield compare(
            "train the default network",
            lambda: [ours() for _ in range(10)],
            plain,
            n=640,
            n_reference=B,
            reference_name=f"predecessor's, {name}",
            goal="25x",
            repetitions=5,
        )


def inference():
    """64 recordings through the predecessor's network: as PyTorch splits each operation, and a half on each core as
    `predict` works.
    """
    x, ours = torch.randn(64, 12, L), build_model(PREDECESSOR).eval()
    parts = x.split(16)

    def run(bf16):
        def answer(part):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return ours(part)

        return lambda: list(in_threads(answer, parts, torch.get_num_threads()))

    args = {"n": 64, "reference_name": "plain, eager float32", "repetitions": 5}
    with apart(plain_answers) as plain:
        yield compare(
            "predecessor's network, 64 recordings, float32", run(False), plain, goal="85/s", limit="100/s", **args
        )
        if cpu_has_bf16():
            yield compare(
                "predecessor's network, 64 recordings, bf16", run(True), plain, goal="150/s", limit="185/s", **args
            )


def pretraining():
    """One step on 10 s at 100 Hz: the predecessor's transformer takes 4 samples a token, ours 8, both with about 2.0
    million weights.
    """
    x, lengths, scale = torch.randn(B, 12, 1000), torch.full((B,), 1000), torch.ones(12)

    def loss_fn(model, batch):
        prediction, future, valid = model(x, lengths)
        error, n = huber(prediction, future, valid, error_unit(x, lengths, scale))
        return (error / n.clamp(min=1)).mean()

    encoder = build_encoder({"encoder": "transformer", "width": 200})
    ours = Step(NextSampleModel(encoder, [2, 5, 10, 15, 20, 30, 40, 50, 75, 100], [1.0] * 12), loss_fn, cpu_has_bf16())
    sizes = [sum(p.numel() for p in model.parameters()) / 1e6 for model in (ours.trainer.model, PlainTransformer())]
    with apart(plain_pretraining_step) as plain:
        yield compare(
            f"pre-training step, {sizes[0]:.2f} M weights",
            ours,
            plain,
            n=B,
            reference_name=f"predecessor's transformer, {sizes[1]:.2f} M",
            goal="5x",
            repetitions=5,
        )


def one_recording():
    predictor = load_predictor(DEFAULT_MODEL)
    signal, covariates = (
        np.random.default_rng(0).integers(-500, 500, (12, 1000)).astype(np.int16),
        np.zeros((1, 23), np.float32),
    )
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


def measure(folder):
    """Training and inference of the networks."""
    keep_freed_memory()  # as the training scripts do
    torch.manual_seed(0)
    headers = [(record.path, read_header(record.path)) for record in find_records(folder)]
    paths = [path for path, header in headers if header.sample_freq == 500 and header.n_samples == 5000][:B]
    yield from training(paths)
    yield from inference()
    yield from pretraining()
    yield from one_recording()


if __name__ == "__main__":
    report(measure)
