"""Pre-train an encoder on ECGs without labels: it predicts samples that it has not seen yet.

    python pretrain.py                                     ./Training_WFDB, or the shipped sample if that is not there
    python pretrain.py --input_folder DIR --folder RUN     your own recordings, into the folder RUN; diagnoses are never used
    python pretrain.py --encoder causal_resnet
    python pretrain.py --k_steps_ahead 5 25 100            how far ahead, in samples at --sample_freq
    python pretrain.py --folder RUN --resume               go on after an interruption
    python train.py --folder RUN                           then: fine-tune it on the same recordings, with their labels

After each patch of the signal the encoder's state predicts all leads at several distances ahead. pretrain_history.csv
gives the loss beside two baselines in the same unit, "nothing changes" (persistence) and a linear autoregressive
predictor, and the skill, the share of a baseline's loss that the model saves. engine/forecasting.py defines the unit.

The run folder holds pretrain_config.json, pretrain_model.pth (best epoch), pretrain_final_model.pth (last epoch),
pretrain_history.csv, pretrain_train_ids.txt, pretrain_valid_ids.txt, pretrain_skipped_records.csv and
pretrain_record_warnings.txt.
"""

import argparse
import math

import numpy as np
import torch

from data.dataset import train_batches, unlabelled_dataset
from data.metadata import read_metadata
from data.overview import overview
from data.preprocess import SignalConfig
from data.splits import Split
from engine.allocator import keep_freed_memory
from engine.augment import change_gain
from engine.baselines import Persistence, fit_linear, skill
from engine.distributed import process_group
from engine.forecasting import error_unit, huber, losses_ahead, typical_spread
from engine.handover import make_pretrain_config
from engine.loop import EMA, Trainer, make_optimizer, make_schedule
from engine.options import (
    add_data_arguments,
    add_run_arguments,
    add_size_arguments,
    check_arguments,
    check_sizes,
    chosen_sizes,
    open_recordings,
    open_run,
    resume,
    settings_of_run,
    write_skipped_and_warnings,
)
from engine.run_folder import RunError
from engine.script import clean_exit
from models import CAUSAL_ENCODERS, ENCODERS, build_encoder
from models.next_sample import NextSampleModel


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_arguments(parser)
    group = parser.add_argument_group("what the model reads and predicts")
    group.add_argument("--sample_freq", type=float, default=100.0, help="Hz (default: %(default)s)")
    group.add_argument("--seq_length", type=int, default=800, help="samples in a window (default: %(default)s)")
    group.add_argument(
        "--k_steps_ahead",
        type=int,
        nargs="+",
        default=[2, 5, 10, 15, 20, 30, 40, 50, 75, 100],
        metavar="K",
        help="samples ahead of the last seen one (default: %(default)s)",
    )
    group = parser.add_argument_group("model")
    group.add_argument("--encoder", choices=CAUSAL_ENCODERS, default="transformer", help="default: %(default)s")
    sizes = add_size_arguments(group, {name: causal_sizes(name) for name in CAUSAL_ENCODERS})
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, default=50, help="default: %(default)s")
    group.add_argument("--batch_size", type=int, default=64, help="windows (default: %(default)s)")
    group.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (default: %(default)s)")
    group.add_argument("--weight_decay", type=float, default=0.05, help="default: %(default)s")
    group.add_argument("--ema_decay", type=float, default=0.99, help="of the averaged weights (default: %(default)s)")
    group.add_argument(
        "--gain",
        type=float,
        default=0.2,
        help="augmentation: spread of each window's amplification (default: %(default)s)",
    )
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    check_sizes(parser, args, sizes, causal_sizes(args.encoder))
    if min(args.k_steps_ahead) < 1:
        parser.error("--k_steps_ahead must be positive: the model has seen the other samples")
    if max(args.k_steps_ahead) >= args.seq_length:
        parser.error(
            f"--k_steps_ahead {max(args.k_steps_ahead)} is not within a window of --seq_length {args.seq_length} samples"
        )
    return args


def causal_sizes(encoder):
    """Sizes of an encoder, without the one that would let it see the future."""
    return {name: value for name, value in ENCODERS[encoder][1].items() if name != "bidirectional"}


def make_loss(scale, gain, group, generator):
    """Robust error of the predictions for windows of random amplification, each distance ahead weighing the same.
    Every process changes the whole batch of B windows alike, and computes its part of it, b = B / number of
    processes.
    """
    scale = torch.tensor(scale, device=group.device)

    def loss_fn(model, batch):
        x, lengths = (group.all_gather(t.to(group.device, non_blocking=True)) for t in (batch.x, batch.lengths))
        x = change_gain(x, gain, generator)
        part = group.local_rows(len(x))
        x, lengths = x[part], lengths[part]
        prediction, future, valid = model(x, lengths)  # (b, 12, K, T')
        error, n = huber(prediction, future, valid, error_unit(x, lengths, scale))  # (K,), (K,)
        return (error / group.all_reduce(n.clone()).clamp(min=1)).mean()

    return loss_fn


def history_row(k_steps_ahead, loss, persistence, linear):
    """Columns of pretrain_history.csv from the validation losses (K,) of model and baselines, all distances first."""
    row = {
        "valid_loss": loss.mean(),
        "persistence_loss": persistence.mean(),
        "linear_loss": linear.mean(),
        "skill_persistence": skill(loss.mean(), persistence.mean()),
        "skill_linear": skill(loss.mean(), linear.mean()),
    }
    for k, *losses in zip(k_steps_ahead, loss, persistence, linear):
        row |= dict(zip((f"valid_loss_{k}", f"persistence_loss_{k}", f"linear_loss_{k}"), losses))
        row |= {f"skill_persistence_{k}": skill(losses[0], losses[1]), f"skill_linear_{k}": skill(losses[0], losses[2])}
    return {name: float(value) for name, value in row.items()}


def save(run, name, model):
    run.save(name, {"encoder": model.encoder.state_dict(), "head": model.head.state_dict()})


def pretrain(args, run, group):
    """The whole experiment. args: the flags, run: the RunFolder to fill, group: the processes that train together."""
    device = group.device

    # Data: one memory map of preprocessed signals and a split by patient; no labels
    signal_config = SignalConfig(sample_freq=args.sample_freq)
    cache = open_recordings(args, signal_config, group, run, "pretrain_")
    data = unlabelled_dataset(cache, read_metadata(args.metadata, cache.names, cache.duplicates))
    train_rows, valid_rows = Split.from_flags(vars(args)).rows(data.targets, cache.sources, data.metadata, args.seed)
    for line in [*data.metadata.warnings, *overview(data, None, train_rows, valid_rows)]:
        print(line)
    batches = train_batches(
        data, train_rows, args.seq_length, args.batch_size, args.seed, group.rank, group.world_size, device
    )
    train_signals, valid_signals = ([cache.signal(i) for i in rows] for rows in (train_rows, valid_rows))
    print(f"{len(train_rows)} recordings train, {len(valid_rows)} validate; {run.path}")

    # Model, and what trains it
    torch.manual_seed(args.seed)
    encoder_config = {"encoder": args.encoder, **chosen_sizes(args, ENCODERS[args.encoder][1]), "n_leads": 12}
    scale = typical_spread(train_signals)
    model = NextSampleModel(build_encoder(encoder_config), args.k_steps_ahead, scale).to(device)
    optimizer = make_optimizer(model, args.lr, args.weight_decay)
    schedule = make_schedule(optimizer, args.epochs * len(batches))
    generator = torch.Generator(device)
    trainer = Trainer(
        model,
        optimizer,
        schedule,
        EMA(model, args.ema_decay),
        make_loss(scale, args.gain, group, generator),
        device,
        args.bf16,
        group,
        args.compile,
    )

    # Baselines
    stride = model.encoder.stride
    linear = fit_linear(train_signals, args.seq_length, args.k_steps_ahead, stride, scale, args.sample_freq, device)

    def validate(predict):
        return losses_ahead(predict, valid_signals, args.seq_length, args.k_steps_ahead, stride, scale, device)  # (K,)

    baselines = validate(Persistence(args.k_steps_ahead, stride)), validate(linear)
    if np.isnan(baselines).any():
        raise RunError(f"no validation recording shows {max(args.k_steps_ahead)} samples ahead")

    train_ids = "".join(f"{cache.names[i]}\n" for i in train_rows)
    resumed = resume(run, trainer, args, train_ids, "pretrain_")
    history, best = resumed or ([], math.inf)
    if resumed is None:
        facts = {
            "n_train": len(train_rows),
            "n_valid": len(valid_rows),
            "n_skipped": len(cache.skipped),
            "sources": sorted(set(cache.sources)),
        }
        head = {"k_steps_ahead": args.k_steps_ahead, "scale": scale}
        run.write_text("pretrain_train_ids.txt", train_ids)
        run.write_text("pretrain_valid_ids.txt", "".join(f"{cache.names[i]}\n" for i in valid_rows))
        write_skipped_and_warnings(run, cache, "pretrain_")
        run.write_json(
            "pretrain_config.json",
            make_pretrain_config(signal_config, encoder_config, head, settings_of_run(args), facts),
        )

    for epoch, learned, speed in trainer.epochs(
        batches, len(history) + 1, args.epochs, args.seed, generator, cache.names
    ):
        row = history_row(args.k_steps_ahead, validate(lambda x, lengths: trainer.ema.model(x, lengths)[0]), *baselines)
        if row["valid_loss"] < best or epoch == 1:
            best = row["valid_loss"]
            save(run, "pretrain_model.pth", trainer.ema.model)
        history.append({**learned, **row, **speed})
        run.write_rows("pretrain_history.csv", history)
        if epoch < args.epochs:
            run.save(
                "pretrain_checkpoint.pth",
                {"trainer": trainer.state(), "history": history, "best": best, "settings": settings_of_run(args)},
            )
        else:  # last of all: it marks the run as finished
            save(run, "pretrain_final_model.pth", trainer.ema.model)
        print(
            f"epoch {epoch:3d}  train {learned['train_loss']:.4f}  valid {row['valid_loss']:.4f}  skill against persistence {row['skill_persistence']:.3f}, "
            f"linear {row['skill_linear']:.3f}  {speed['seconds']:.1f} s",
            flush=True,
        )

    run.remove("pretrain_checkpoint.pth")


def main(argv=None):
    with clean_exit("pretrain.py", "go on with --resume"):
        args = parse_args(argv)
        keep_freed_memory()
        with process_group(args.cuda) as group, open_run(args, group, "pretrain_") as run:
            pretrain(args, run, group)


if __name__ == "__main__":
    main()
